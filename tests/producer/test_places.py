"""The two places that only some Pythons have: found, refused with a word, or named as not here."""

from __future__ import annotations

import importlib.util
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from lab import MORE_PLACES, PLACES
from lab.concepts import CONCEPTS, NOT_ON
from lab.errors import ExitCode, NotHere
from lab.evidence import Result
from producer import places, report
from producer.comparison import Comparison
from producer.places import FreeThreaded
from producer.runs import Run
from tests import ROOT

HAS_INTERPRETERS = importlib.util.find_spec("concurrent.interpreters") is not None
FREE = next(filter(None, map(shutil.which, places.NAMES)), None)


def producer(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "producer", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=90, check=False)


def pretender(tmp_path: Path, text: str) -> str:
    """A program that is asked whether it is a Python without the GIL."""
    path = tmp_path / "python3.14t"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def failure(python: str) -> str:
    """Why a comparison with this Python failed."""
    done = producer("compare", "gil", "--on", "free-threaded", "--python", python, "--json", "-", "-q")
    assert done.returncode == ExitCode.CHECK_FAILED
    return str(json.loads(done.stdout)["runs"][0]["error"])


def test_without_names_the_places_that_there_are_run_and_the_others_are_named(tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    done = producer("compare", "thread_local", "--json", str(file), "-q")
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text())
    assert set(found["places"]) | set(found["missing"]) == {*PLACES, *MORE_PLACES}
    assert not set(found["places"]) & set(found["missing"])
    assert ("interpreters" in found["places"]) == HAS_INTERPRETERS
    assert ("free-threaded" in found["places"]) == bool(FREE)
    for place, why in found["missing"].items():
        assert f"{place}: {why.split()[0]}" in done.stdout


@pytest.mark.skipif(HAS_INTERPRETERS, reason="this Python has interpreters")
def test_interpreters_by_name_are_refused_where_there_are_none() -> None:
    done = producer("demo", "gil", "--on", "interpreters")
    assert done.returncode == ExitCode.USAGE
    assert "error: Interpreters are a place since Python 3.14, and this is" in done.stderr
    done = subprocess.run(
        [sys.executable, "-m", "lab.concepts.gil", "--on", "interpreters"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, "Traceback" in done.stderr) == (ExitCode.USAGE, False)


@pytest.mark.parametrize(
    ("python", "why"),
    [
        ("/no/such/python", "there is no /no/such/python"),
        (sys.executable, "with it"),
        ("true", "does not answer as a Python does"),
        ("false", "does not answer as a Python does"),
    ],
)
def test_what_is_no_python_without_the_gil_is_refused(python: str, why: str) -> None:
    done = producer("compare", "gil", "--on", "free-threaded", "--python", python)
    assert done.returncode == ExitCode.USAGE
    assert why in done.stderr
    assert "--python PATH" in done.stderr


def test_one_that_says_nothing_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "START", 0.3)
    with pytest.raises(NotHere, match="does not answer as a Python does"):
        FreeThreaded.found(pretender(tmp_path, "exec sleep 60"))


def test_a_gil_that_came_back_is_refused(tmp_path: Path) -> None:
    """A build without the GIL turns it on for an extension that needs it; a Python that never was without stands for it."""
    python = pretender(tmp_path, f'case "$1" in -I) echo 1 3.14.0;; *) exec {sys.executable} "$@";; esac')
    assert f"the GIL is on in {python} after the lab's imports" in failure(python)


def test_one_that_breaks_off_is_a_failed_run(tmp_path: Path) -> None:
    python = pretender(tmp_path, 'case "$1" in -I) echo 1 3.14.0;; *) exit 7;; esac')
    assert f"{python} broke off with exit code 7" in failure(python)


def test_what_a_place_cannot_show_is_said() -> None:
    for concepts in NOT_ON.values():
        assert set(concepts) <= set(CONCEPTS)
    assert places.pairs(["loss", "gil"], ["threads", "interpreters"]) == [
        ("loss", "threads"), ("gil", "threads"), ("gil", "interpreters"),
    ]  # fmt: skip
    assert places.left_out("loss", ["threads", "interpreters"])[0].startswith("not on interpreters: its workers end")
    with pytest.raises(ValueError, match="loss cannot be shown on interpreters"):
        places.pairs(["loss"], ["interpreters"])


def test_five_places_fit_on_80_columns() -> None:
    names = [*PLACES, *MORE_PLACES]
    found = Comparison(["counter"], names)
    for place in names:
        result = Result("counter", place, "happened", seconds=1.0, costs={"increment, by the way": 1.5e-6})
        result.check("a claim", True)
        found.runs.append(Run(result))
    with Console(width=80, file=io.StringIO(), record=True) as console:
        console.print(*report.comparison(found), sep="\n")
    text = console.export_text()
    assert "…" not in text
    assert "increment, by the way" in text
    assert all(len(line) <= 80 for line in text.splitlines())
    assert all(text.count(place) >= 3 for place in names)


def test_no_trace_is_made_of_them() -> None:
    done = producer("demo", "gil", "--on", "interpreters", "--trace", "/tmp/never-written.trace")
    assert done.returncode == ExitCode.USAGE
    assert "Nothing records what is done on interpreters" in done.stderr


@pytest.mark.skipif(FREE is None, reason=f"no Python without the GIL is installed ({', '.join(places.NAMES)})")
@pytest.mark.parametrize("name", CONCEPTS)
def test_each_concept_holds_without_the_gil(name: str) -> None:
    result = FreeThreaded.found("").run(name)
    assert result.place == "free-threaded"
    assert result.checks[0].claim == "the GIL is still off after the lab's imports"
    assert "The GIL" not in result.why
    assert result.ok, [check.claim for check in result.checks if not check.held]
