"""A producer in the background: what was ignored when it started stays ignored, as for every program under nohup."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lab import PLACES

SCRIPT = """
import os, signal
from multiprocessing import Process

if __name__ == "__main__":
    os.kill(os.getpid(), signal.SIGINT)
    p = Process(target=print, args=("a child",))
    p.start()
    p.join()
    print("not interrupted", p.exitcode)
"""


@pytest.mark.parametrize("place", PLACES)
def test_ctrl_c_is_not_for_a_script_in_the_background(place: str, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "-m", "producer", "run", "script.py", "--on", place], cwd=tmp_path, capture_output=True, text=True,
        stdin=subprocess.DEVNULL, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN), timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["a child", "not interrupted 0"]


def test_ctrl_c_is_not_for_a_command_in_the_background_and_sigterm_is(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "producer", "map", "operator:not_", "-", "--on", "threads"], cwd=tmp_path, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    ) as process:  # fmt: skip
        assert process.stdin
        assert process.stdout
        process.stdin.write("a line\n")
        process.stdin.flush()
        assert process.stdout.readline() == "false\n"
        process.send_signal(signal.SIGINT)
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "true\n"
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 143
