"""Here, ``ctx`` and ``remote`` are the context of interpreters."""

from __future__ import annotations

from typing import Any

import pytest

import lab


@pytest.fixture(params=["interpreters"])
def ctx(request: pytest.FixtureRequest) -> Any:
    """The context of interpreters."""
    return lab.get_context(request.param)


@pytest.fixture
def remote(ctx: Any) -> Any:
    """The same: its children have a memory of their own."""
    return ctx
