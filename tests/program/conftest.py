"""What tests of programs have in common."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kit import variables


@pytest.fixture
def fleet(cluster: Any) -> dict[str, str]:
    """The environment that points at the session's fleet."""
    cluster.connect()
    return variables.leading_to(cluster.settings)
