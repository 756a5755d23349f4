"""Fixtures: the three places. A test that takes ``ctx`` runs in each of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

import lab


@pytest.fixture(scope="session", autouse=True)
def children_without_pytest() -> Iterator[None]:
    """Spawned children import the main module again; here that is pytest, which takes longer than their work."""
    main = sys.modules["__main__"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(main, "__spec__", None)
        patch.setattr(main, "__file__", None)
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
