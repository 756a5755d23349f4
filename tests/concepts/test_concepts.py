"""Every concept bears out its own claims in every place, and the places agree."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from lab.concepts import CONCEPTS, counter, load, summary
from lab.concepts._shared import main, seconds_text
from lab.errors import ExitCode, NoWorkers
from lab.evidence import Result
from tests import ROOT

SMALL: dict[str, dict[str, Any]] = {
    "pipe": {"rounds": 20},
    "queue": {"workers": 2, "each": 10, "count": 20},
    "counter": {"workers": 4, "times": 20, "trials": 2},
    "pool": {"count": 18},
    "thread_pool": {"count": 8},
    "gil": {"items": 4, "rounds": 3},
    "share": {"size": 1_000_000},
}

AGREED = {
    "process": ["child's word"],
    "pipe": ["heard", "balls returned", "after the peer closed", "exit codes"],
    "queue": ["hello", "items", "distinct", "exit codes"],
    "counter": ["locked: trials by updates lost", "atomic: trials by updates lost", "exit codes"],
    "pool": [],
    "threads": ["list after the threads", "exit codes"],
    "thread_pool": [],
    "thread_local": ["workers", "found their own thread-local", "new threads that found one"],
    "gil": [],
    "loss": [],
    "delivery": ["tasks", "rounds", "deaths", "counted plainly", "counted once"],
    "lease": [],
    "share": ["bytes", "right answers"],
}

Run = Callable[[str, Any], Result]


@pytest.fixture(scope="module")
def run() -> Run:
    """Runs a concept in a place, once for all tests of this module."""
    results: dict[tuple[str, str], Result] = {}

    def run(name: str, ctx: Any) -> Result:
        if (name, ctx.place) not in results:
            results[name, ctx.place] = load(name)(ctx, **SMALL.get(name, {}))
        return results[name, ctx.place]

    return run


@pytest.mark.parametrize("name", CONCEPTS)
def test_a_concept_bears_out_its_claims(run: Run, ctx: Any, name: str) -> None:
    result = run(name, ctx)
    assert result.ok, [check.claim for check in result.checks if not check.held] + [result.facts]


@pytest.mark.parametrize("name", CONCEPTS)
def test_a_concept_brings_evidence(run: Run, ctx: Any, name: str) -> None:
    result = run(name, ctx)
    assert (result.concept, result.place) == (name, ctx.place)
    assert result.happened
    assert "\n" not in result.happened
    assert result.why
    assert result.who == sorted(set(result.who)) != []
    assert result.costs
    assert all(cost > 0 for cost in result.costs.values())
    assert result.seconds > 0
    assert result.to_json()["ok"] is True


@pytest.mark.parametrize("name", CONCEPTS)
def test_a_concept_finds_the_same_as_on_threads(run: Run, remote: Any, threads: Any, name: str) -> None:
    here, there = run(name, threads), run(name, remote)
    assert there.costs.keys() == here.costs.keys()
    assert {fact: there.facts[fact] for fact in AGREED[name]} == {fact: here.facts[fact] for fact in AGREED[name]}


@pytest.mark.parametrize("name", CONCEPTS)
def test_a_concept_gives_no_reasons_for_what_its_run_did_not_show(
    monkeypatch: pytest.MonkeyPatch, threads: Any, name: str
) -> None:
    check = Result.check
    monkeypatch.setattr(Result, "check", lambda self, claim, _held: check(self, claim, False))
    result = load(name)(threads, **SMALL.get(name, {}))
    assert result.why == "This run has not shown what it should have: some claims failed."


@pytest.mark.parametrize("lucky", [True, False])
def test_the_counter_says_whether_the_plain_way_lost_anything(
    monkeypatch: pytest.MonkeyPatch, threads: Any, lucky: bool
) -> None:
    def plain(*args: Any) -> None:
        (counter.locked if lucky else counter.window_open)(*args)

    monkeypatch.setattr(counter, "WAYS", (plain, *counter.WAYS[1:]))
    result = counter.run(threads, trials=1)
    assert ("plain lost none this time" in result.happened) == lucky
    assert result.ok


def test_a_concept_that_is_misspelt_gets_the_nearest_name() -> None:
    with pytest.raises(ValueError, match="did you mean 'counter'"):
        load("conter")


def test_every_concept_has_a_summary_of_one_line() -> None:
    assert all(0 < len(summary(name)) < 100 for name in CONCEPTS)


def concept(name: str, place: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """A concept as a learner runs it."""
    command = [sys.executable, "-m", f"lab.concepts.{name}", "--on", place]
    environment = {**os.environ, **environ}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("place", ["threads", "processes"])
def test_a_concept_runs_by_itself(place: str) -> None:
    done = concept("process", place)
    assert (done.returncode, done.stderr) == (0, "")
    assert "child process: " in done.stdout
    assert "Hello labex" in done.stdout
    assert f"process on {place}" in done.stdout
    assert "FAILED" not in done.stdout


def test_a_place_that_does_not_exist_is_bad_usage() -> None:
    done = concept("process", "mars")
    assert done.returncode == ExitCode.USAGE
    assert "Traceback" not in done.stderr
    assert "threads" in done.stderr


def test_a_wrong_setting_is_told_without_a_traceback() -> None:
    done = concept("process", "cluster", CROSSHOST_BROKER_URL="nonsense")
    assert done.returncode == ExitCode.BAD_SETTINGS
    assert "CROSSHOST_BROKER_URL" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_claim_that_failed_is_exit_code_1(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def run(ctx: Any) -> Result:
        result = Result("process", ctx.place)
        result.check("pigs fly", held=False)
        return result.conclude("Nothing.", {"threads": "None did."})

    monkeypatch.setattr(sys, "argv", ["process"])
    assert main(run) == ExitCode.CHECK_FAILED
    assert "FAILED  pigs fly" in capsys.readouterr().out


def test_an_error_of_the_lab_is_told_with_its_hint_and_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def run(ctx: Any) -> Result:
        raise NoWorkers("0 hosts answer.", "Start one: producer fleet")

    monkeypatch.setattr(sys, "argv", ["process"])
    assert main(run) == ExitCode.NO_WORKERS
    assert capsys.readouterr().err == "0 hosts answer.\nStart one: producer fleet\n"


@pytest.mark.parametrize(
    ("seconds", "text"), [(90.0, "90 s"), (1.234, "1.23 s"), (0.02, "20 ms"), (3.4e-6, "3.4 us"), (5e-8, "50 ns")]
)
def test_a_duration_has_a_unit_that_suits_it(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text
