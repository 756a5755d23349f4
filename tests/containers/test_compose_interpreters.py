"""Interpreters need Python 3.14, which the containers have: their tests, and the comparison, in the image as it ships."""

from __future__ import annotations

import json
import sysconfig

from tests import ROOT
from tests.kit import composed
from tests.kit.composed import Fleet

pytestmark = composed.MARKS

RUN = """
import sys
sys.path += ["/tests", "/tests/onloan/src", "/packages"]  # after the image's own, which are what is tested
import pytest
sys.exit(pytest.main(["-p", "pytest_timeout", "-p", "no:cacheprovider", "-rs", "/tests/tests/interpreters"]))
"""
"""What is pure Python of this environment's packages is enough for pytest there."""


def test_the_contract_holds_on_interpreters(fleet: Fleet) -> None:
    done = fleet.compose(
        "run", "--rm", "-T", "--no-deps", "--entrypoint", "python", "-e", "PYTEST_DISABLE_PLUGIN_AUTOLOAD=1",
        "-v", f"{ROOT / 'tests'}:/tests/tests:ro", "-v", f"{ROOT / 'pyproject.toml'}:/tests/pyproject.toml:ro",
        "-v", f"{ROOT / 'onloan'}:/tests/onloan:ro", "-v", f"{sysconfig.get_path('purelib')}:/packages:ro",
        "producer", "-c", RUN, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    summary = done.stdout.splitlines()[-1]
    assert "passed" in summary
    assert int(summary.split()[0]) > 90, summary
    assert "skipped" not in summary, done.stdout[-3000:]


def test_the_comparison_has_a_column_for_them(fleet: Fleet) -> None:
    done = fleet.producer("compare", "gil", "counter", "loss", "--on", "threads,interpreters", "--json", "-")
    found = json.loads(done.stdout)
    assert found["places"] == ["threads", "interpreters"]
    runs = {(run["concept"], run["place"]): run for run in found["runs"]}
    assert ("loss", "interpreters") not in runs
    assert runs["counter", "interpreters"]["facts"]["token: trials by updates lost"] == {"0": 5}
    assert all(run["ok"] for run in runs.values())
