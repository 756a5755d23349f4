"""The contract of all places, for interpreters; but that nobody can kill one."""

from __future__ import annotations

import pytest

pytest.importorskip("concurrent.interpreters", reason="Python has interpreters since 3.14; the containers have it")

from tests.cluster.test_contract import *  # noqa: F403

del test_a_killed_child_has_minus_the_signals_number  # noqa: F821
