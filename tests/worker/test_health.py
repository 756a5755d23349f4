"""A worker's health check measures work: it fails when the event loop stands still or Redis is away, and recovers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kit.server import Server
from tests.kit.wait import within
from worker.health import VARIABLE

CHECK = (sys.executable, "-S", "-m", "worker.health")


def healthy() -> bool:
    return subprocess.run(CHECK, capture_output=True, timeout=30).returncode == 0


def becomes(wanted: bool) -> bool:
    """Whether the check says so within a minute; it is asked, as a container's is."""
    return within(60, lambda: healthy() == wanted, every=0.2)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "announced"))
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    assert not healthy()
    with Server(tmp_path, hosts=1, slots=1, lease=2) as server:
        yield server


@contextmanager
def frozen(process: subprocess.Popen[bytes]) -> Iterator[None]:
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def test_a_worker_is_healthy_while_its_event_loop_reaches_redis(server: Server) -> None:
    assert becomes(True)
    with frozen(server.workers[0]):
        assert becomes(False)
    assert becomes(True)
    assert server.valkey
    with frozen(server.valkey):
        assert becomes(False)
    assert becomes(True)


def test_the_check_imports_nothing_of_what_it_watches() -> None:
    program = "import sys, worker.health; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-S", "-c", program], capture_output=True, text=True, check=True, timeout=30)
    assert not {"redis", "celery", "lab", "socket"} & set(done.stdout.split())
