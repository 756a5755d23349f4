"""Fixtures: the three places. A test that takes ``ctx`` runs in each of them."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import lab
from lab.store.run import Run
from lab.store.store import Store
from tests.kit import composed
from tests.kit.proxy import Proxy
from tests.kit.server import Server

# The interpreters that the tests start number thousands, and each of them imports what the one before has compiled, which is
# three quarters of the time that a fleet starts in: some environments have them all compile everything anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A shell without job control has what it starts in the background ignore SIGINT, and every process below inherits that: who
# is interrupted here, as by Ctrl-C, would never learn of it. What producers do that are started so, test_cli.py has.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Files, not tests, are dealt out; and a test process that dies does not leave the others waiting.

    Who has one test left begins it when more have come, or is told that none will. xdist deals once, and again after each
    test that was done: a process that has one test alone, as the dead one had done the rest of its file, waits for ever.
    """
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Dealer(LoadFileScheduling):  # type: ignore[misc]
        def _reschedule(self, node: Any) -> None:
            super()._reschedule(node)
            while not node.shutting_down and self._pending_of(self.assigned_work[node]) <= 2:
                super()._reschedule(node)

    return Dealer(config, log)


@pytest.fixture(scope="session", autouse=True)
def children_without_pytest() -> Iterator[None]:
    """Spawned children import the main module again; here that is pytest, which takes longer than their work."""
    main = sys.modules["__main__"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(main, "__spec__", None)
        patch.setattr(main, "__file__", None, raising=False)  # pytest-xdist has none
        yield


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """The context of an embedded fleet, one for the session."""
    ctx = lab.get_context("cluster")
    yield ctx
    ctx.close()


def _context(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue("cluster") if request.param == "cluster" else lab.get_context(request.param)


@pytest.fixture(params=lab.PLACES)
def ctx(request: pytest.FixtureRequest) -> Any:
    """The context of each place."""
    return _context(request)


@pytest.fixture(params=["processes", "cluster"])
def remote(request: pytest.FixtureRequest) -> Any:
    """The context of each place whose children have a memory of their own."""
    return _context(request)


@pytest.fixture
def threads() -> Any:
    """The context of threads."""
    return lab.get_context("threads")


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    """What a test loses replies with, before the ``server`` of its module."""
    with Proxy(server.socket) as proxy:
        yield proxy


@pytest.fixture
def run(server: Server, proxy: Proxy) -> Iterator[Run]:
    """A program whose connections go through the proxy."""
    run = Run.as_root(server.settings, Store(proxy.url, patience=20))
    yield run
    run.close()


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[composed.Fleet]:
    """A fleet in containers, built and not up yet; one for all tests that need no other settings."""
    name = f"crosshost-test-{os.getpid()}"
    with composed.project(tmp_path_factory.mktemp("compose"), name, name) as fleet:
        missing = fleet.compose("up", "-d", check=False)
        assert missing.returncode != 0
        assert "sh deploy/setup" in missing.stderr
        fleet.script("setup")
        fleet.compose("--profile", "monitor", "build", timeout=300)
        yield fleet
