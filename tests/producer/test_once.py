"""A comparison that a host has made before is not made again: what a container that is started again asks for."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT

AGAIN = "has compared before"


def compare(file: Path) -> tuple[int, str]:
    words = ["-m", "producer", "compare", "thread_local", "--on", "threads", "--quiet", "--once", str(file)]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "compared"


def test_a_host_compares_once(file: Path) -> None:
    code, first = compare(file)
    assert code == 0
    assert AGAIN not in first
    code, again = compare(file)
    assert code == 0
    assert AGAIN in again
    assert "docker compose run --rm producer compare" in again


def test_another_host_compares_too(file: Path) -> None:
    file.write_text(f"not-{socket.gethostname()} 0")
    assert AGAIN not in compare(file)[1]
    assert AGAIN in compare(file)[1]


def test_a_comparison_whose_claims_did_not_hold_stays_one(file: Path) -> None:
    file.write_text(f"{socket.gethostname()} 1")
    code, said = compare(file)
    assert code == 1
    assert AGAIN in said


@pytest.mark.parametrize("text", ["", " ", "{} ", "{} x", "{}"])
def test_a_file_that_was_not_written_to_its_end_says_nothing(file: Path, text: str) -> None:
    file.write_text(text.format(socket.gethostname()))
    assert AGAIN not in compare(file)[1]
