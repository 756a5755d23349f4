"""Spans of OpenTelemetry: a worker's are the children of who asked for the call; without it, nothing is sent."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from lab.watching.functions import function_of
from tests import ROOT
from tests.kit import variables

SPANNED = ROOT / "tests" / "programs" / "spanned.py"


def test_each_call_has_a_span_whose_parent_is_who_asked_for_it(cluster: Any) -> None:
    cluster.connect()
    command = [sys.executable, "-m", "producer", "run", str(SPANNED), "--on", "cluster"]
    done = subprocess.run(
        command, env=variables.leading_to(cluster.settings), capture_output=True, text=True, check=False, timeout=90
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    ours, theirs = said["ours"], said["theirs"]
    assert len({span["trace"] for span in ours + theirs}) == 1  # one trace, across processes
    by_id = {span["id"]: span for span in ours + theirs}
    (request,) = [span for span in ours if span["name"] == "request"]
    asked = [span for span in ours if span["kind"] == "PRODUCER"]
    assert all(span["parent"] == request["id"] for span in asked)
    names = [span["name"].split()[0] for span in asked]
    assert sorted(names) == sorted(
        ["Pool.apply"] * 3 + ["Pool.map", "Pool.imap", "Executor.map"] + ["Executor.submit"] * 3
    )
    calls = [(by_id[span["parent"]]["name"], span["name"]) for span in theirs if span["kind"] == "CONSUMER"]
    assert calls == [
        ("Pool.apply square", "square"),
        ("Pool.map square", "square"),
        ("Pool.map square", "square"),
        ("Pool.imap square", "square"),
        ("Pool.apply fail", "fail"),
        ("Executor.submit square", "square"),
        ("Executor.map square", "square"),
        ("Executor.map square", "square"),
        ("Executor.submit fail", "fail"),
    ]
    inside = [span for span in theirs if span["name"] == "inside"]
    assert len(inside) == 7
    assert all(by_id[span["parent"]]["name"] == "square" for span in inside)  # what a call does is in its span
    for span in ours + theirs:
        failed = "fail" in span["name"]
        assert (span["status"] == "ERROR") == failed
        assert [event for event, _ in span["events"]] == (["exception"] if failed else [])
        assert not failed or "ValueError" in span["events"][0][1]


@pytest.mark.parametrize("given", ["sys.modules['opentelemetry'] = None", "import opentelemetry.trace"])
def test_where_it_is_not_installed_or_nobody_records_the_function_is_sent_as_it_is(given: str) -> None:
    said = subprocess.run(
        [sys.executable, "-c", f"import sys\n{given}\nimport lab.cluster.pool\nfrom lab import spans\n"
         "print(spans.begin(len, 'x') == (len, None), spans.current())"],
        capture_output=True, text=True, check=True, cwd=ROOT, timeout=60,
    )  # fmt: skip
    assert said.stdout == "True {}\n"


def test_on_a_host_without_it_the_call_is_made() -> None:
    said = subprocess.run(
        [sys.executable, "-c", "import sys\nsys.modules['opentelemetry'] = None\nfrom lab.spans import Spanned\n"
         "print(Spanned(divmod, 'divmod', {'traceparent': 'x'})(7, 2))"],
        capture_output=True, text=True, check=True, cwd=ROOT, timeout=60,
    )  # fmt: skip
    assert said.stdout == "(3, 1)\n"


def test_who_looks_at_a_fleet_sees_the_function_of_such_a_call() -> None:
    import pickle

    from lab.spans import Spanned

    assert function_of(pickle.dumps((1, 0, Spanned(json.dumps, "dumps", {"traceparent": "x"}), (), {}))) == "json.dumps"
