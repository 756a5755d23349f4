"""The tests pass however they are started."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT

INTERRUPTED = "tests/mapping/test_map.py::test_ctrl_c_waits_for_the_end_of_what_must_not_be_half_done"


def in_the_background() -> None:
    """As a shell without job control starts what ends in ``&``."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.mark.parametrize("stdin", ["closed", "empty"])
def test_they_do_in_the_background_without_a_terminal_in_a_directory_with_a_space(stdin: str, tmp_path: Path) -> None:
    redirected = "<&-" if stdin == "closed" else "</dev/null"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "--basetemp",
        str(tmp_path / "a b"),
        INTERRUPTED,
    ]
    done = subprocess.run(
        ["sh", "-c", f'"$@" {redirected}', "-", *command], cwd=ROOT, preexec_fn=in_the_background, start_new_session=True,
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("."), done.stdout  # it ran
