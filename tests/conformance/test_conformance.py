"""The judge judges rightly: what hangs, crashes or regresses is named, and what is left out is on the page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

import conformance.__main__ as command
from conformance import scorecard, source
from conformance.judge import Ground, Outcome, run_class
from tests import ROOT

SCRIPT = """
import json, os, sys, time
fd, tests = int(sys.argv[1]), sys.argv[4:]
def tell(**event): os.write(fd, json.dumps(event).encode() + b"\\n")
for test in tests:
    tell(event="begin", test=test)
    if test == "hangs":
        print('Timeout (0:00:01)!\\nThread 0x1\\n  File "/x/_test_multiprocessing.py", line 12 in test_it', flush=True)
        time.sleep(600)
    if test == "crashes":
        os._exit(7)
    status = "fail" if test == "fails" else "pass"
    tell(event="end", test=test, status=status, why="", seconds=0.5)
tell(event="done")
"""


class Scripted(Ground):
    """A place whose tests do what their names say."""

    renewed = 0

    def __enter__(self) -> Ground:
        self.env = dict(os.environ)
        return self

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-c", SCRIPT]

    def renew(self) -> None:
        self.renewed += 1


def test_what_hangs_or_crashes_is_named_and_the_rest_is_run() -> None:
    ground = Scripted("threads")
    with ground:
        found = dict(run_class(ground, "Any", ["a", "crashes", "b", "hangs", "fails", "c"], 3.0))
    assert {name: outcome.status for name, outcome in found.items()} == {
        "a": "pass", "crashes": "crash", "b": "pass", "hangs": "timeout", "fails": "fail", "c": "pass",
    }  # fmt: skip
    assert found["crashes"].why == "exit code 7"
    assert found["hangs"].why == "no progress, at line 12 in test_it"
    assert ground.renewed == 2


def judged(monkeypatch: pytest.MonkeyPatch, *outcomes: Outcome, ratchet: bool = True) -> Any:
    """The command, with one test, whose attempts end as given."""
    attempts = iter(outcomes)
    monkeypatch.setattr(command, "Ground", Scripted)
    monkeypatch.setattr(command, "all_tests", lambda ground: [("TestA", "test_b"), ("TestA", "test_new")])
    monkeypatch.setattr(scorecard, "ratchet", lambda: ["TestA.test_b", "TestOfAnotherPython.test_c"])
    monkeypatch.setattr(command, "run_class", lambda ground, kind, names, t: [(name, next(attempts)) for name in names])
    return CliRunner().invoke(command.main, ["--ratchet"] if ratchet else ["--on", "threads"])


def test_the_ratchet_fails_when_a_test_fails_that_passed_before(monkeypatch: pytest.MonkeyPatch) -> None:
    done = judged(monkeypatch, Outcome("fail", "first"), Outcome("fail", "second"))
    assert done.exit_code == 1
    assert "1 did not pass, which passed before: TestA.test_b" in done.output


def test_a_second_attempt_that_passes_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    done = judged(monkeypatch, Outcome("timeout", "no progress"), Outcome("pass"))
    assert done.exit_code == 0
    assert "1 passed at the second attempt only" in done.output
    assert re.search(r"pass at attempt 2 .*TestA.test_b  at first timeout: no progress", done.output)


def test_what_the_budget_leaves_out_does_not_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 2000.0])
    monkeypatch.setattr(command, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    done = judged(monkeypatch)
    assert done.exit_code == 1
    assert "1 did not pass, which passed before: TestA.test_b" in done.output


def test_the_scorecard_counts_what_was_not_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    done = judged(monkeypatch, Outcome("pass"), Outcome("skip", "not for threads"), ratchet=False)
    assert done.exit_code == 0
    assert re.search(r"^all +1 of 1$", done.output, re.MULTILINE)
    assert "not for threads (1)" in done.output


def test_an_interpreter_without_the_suite_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "NAME", "test._no_such_suite")
    done = CliRunner().invoke(command.main, ["--ratchet"])
    assert done.exit_code == 2
    assert f"{sys.executable} (Python" in done.output
    assert "libpython3-testsuite" in done.output
    assert CliRunner().invoke(command.main, ["--ratchet", "--if-present"]).exit_code == 0


def test_the_page_names_every_exclusion_and_invents_none() -> None:
    page = (ROOT / "docs" / "differences.md").read_text()
    names = [entry.name for entry in scorecard.exclusions()]
    assert len(set(names)) == len(names)
    assert sorted(re.findall(r"^\| `([a-z-]+)` \|", page, re.MULTILINE)) == sorted(names)


def test_the_ratchet_holds_only_what_applies() -> None:
    known = scorecard.exclusions()
    assert len(scorecard.ratchet()) > 100
    assert [test for test in scorecard.ratchet() if scorecard.exclusion_of(test, known)] == []


@pytest.mark.skipif(not source.present(), reason="this interpreter comes without CPython's tests")
@pytest.mark.parametrize("place", ["threads", "processes"])
def test_the_suite_runs_in_a_local_place(place: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "conformance", "--on", place, "--match", "*TestEvent.*", "-v"],
        cwd=ROOT, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "TestEvent.test_event" in done.stdout


@pytest.mark.skipif(not source.present(), reason="this interpreter comes without CPython's tests")
def test_the_suite_runs_on_the_cluster_and_finds_what_is_broken(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.connect()
    monkeypatch.setenv("CROSSHOST_BROKER_URL", cluster.settings.broker_url)
    monkeypatch.setenv("CROSSHOST_AUTHKEY", cluster.settings.authkey.decode())
    (tmp_path / "sitecustomize.py").write_text(
        "import lab.cluster.connection as c\nc.Connection.poll = lambda self, timeout=0.0: True\n"
    )
    found = {}
    for path in ("", str(tmp_path)):
        with Ground("cluster") as ground:
            ground.env["PYTHONPATH"] = f"{path}:{ROOT}"
            found[path] = dict(run_class(ground, "WithProcessesTestPoll", ["test_empty_string"], 60.0))
    assert [outcomes["test_empty_string"].status for outcomes in found.values()] == ["pass", "fail"]
