"""producer locks, stack and top: a process with arguments, two streams and an exit code."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from lab.watching.watcher import Watcher
from tests.kit.processes import die_with_us
from tests.kit.server import Server
from tests.kit.wait import readable, until
from tests.watching.conftest import STUCK, line_of, producer, seen
from tests.watching.test_watcher import named

Programs = Callable[..., Any]


def waiting(watcher: Watcher, *names: str) -> None:
    seen(watcher, lambda fleet: all(named(fleet, name).doing == "waits for a lock" for name in names))


def test_a_deadlock_is_named_with_both_lines(programs: Programs, server: Server, watcher: Watcher) -> None:
    programs("left", "right")
    waiting(watcher, "left", "right")
    done = producer(server, "locks")
    assert done.returncode == 1, done.stderr
    assert "deadlock in run" in done.stdout
    assert "2 processes wait for each other" in done.stdout
    for name, line in (("left", line_of("with b", "left")), ("right", line_of("with a", "right"))):
        assert re.search(rf"  {name} on host-\d/\d+ waits for sem:\S+, which \w+ on", done.stdout), done.stdout
        assert f"at {STUCK}:{line} in {name}" in done.stdout
    (deadlock,) = json.loads(producer(server, "locks", "--json").stdout)["deadlocks"]
    assert deadlock["certain"]
    assert {link["at"]["line"] for link in deadlock["links"]} == {line_of("with b", "left"), line_of("with a", "right")}


def test_a_lock_that_is_only_wanted_is_no_deadlock(programs: Programs, server: Server, watcher: Watcher) -> None:
    programs("holder", "waiter")
    waiting(watcher, "waiter")
    done = producer(server, "locks")
    assert done.returncode == 0, done.stderr
    assert "◆ wanted" in done.stdout
    assert re.search(r"held by holder on host-\d/\d+ +stuck.py:\d+", done.stdout)
    assert "deadlock" not in done.stdout


def test_who_waits_for_its_own_lock_is_named(programs: Programs, server: Server, watcher: Watcher) -> None:
    programs("twice")
    waiting(watcher, "twice")
    done = producer(server, "locks")
    assert done.returncode == 1
    assert "deadlock" in done.stdout
    assert "1 process waits for a lock that it holds itself" in done.stdout


def test_a_process_with_a_thread_that_may_let_go_is_not_called_a_deadlock(
    programs: Programs, server: Server, watcher: Watcher
) -> None:
    programs("twofold")
    waiting(watcher, "twofold")
    done = producer(server, "locks")
    assert "deadlock" not in done.stdout
    assert "or has another thread that lets go" in done.stdout


def test_the_stack_of_a_process_that_computes_in_c(programs: Programs, server: Server) -> None:
    programs("cruncher")
    done = producer(server, "stack", "cruncher")
    assert done.returncode == 0, done.stderr
    own = [line for line in done.stdout.splitlines() if line.startswith("  > ")]
    assert own[0] == f"  > {STUCK}:{line_of('sum(', 'cruncher')} in cruncher"
    assert "forker" not in done.stdout  # what was before the fork is nobody's business


def test_all_threads_of_a_process_are_in_its_stack_each_time(
    programs: Programs, server: Server, watcher: Watcher
) -> None:
    programs("twofold")
    process = named(watcher.look(), "twofold")
    for typed in (process.id[:8], f"{process.host}/{process.pid}", "twofold"):
        done = producer(server, "stack", typed, "--json")
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        lines = {
            frame["function"]: frame["line"] for thread in told["threads"] for frame in thread["frames"] if frame["own"]
        }
        assert lines["twofold"] == line_of("with a", "twofold")
        assert lines["keep"] == line_of("time.sleep", "keep")
        assert told["threads"][0]["current"]


def test_a_stopped_process_is_said_to_be_stopped(programs: Programs, server: Server, watcher: Watcher) -> None:
    programs("sleeper")
    pid = named(watcher.look(), "sleeper").pid
    os.kill(pid, signal.SIGSTOP)
    try:
        done = producer(server, "stack", "sleeper")
        assert "It is stopped (SIGSTOP)" in done.stdout
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_process_goes_on_after_it_was_asked(programs: Programs, server: Server, watcher: Watcher) -> None:
    programs("sleeper", "waiter")
    for name in ("sleeper", "sleeper", "waiter"):
        producer(server, "stack", name)
    assert named(watcher.look(), "sleeper").doing == "runs"


def test_a_name_that_stands_for_nothing_or_for_two(programs: Programs, server: Server) -> None:
    programs("sleeper", "sleeper")
    done = producer(server, "stack", "nobody")
    assert done.returncode == 2
    assert "There is no process 'nobody'" in done.stderr
    done = producer(server, "stack", "sleeper")
    assert done.returncode == 2
    assert "may be any of 2 processes" in done.stderr
    done = producer(server, "stack", "root")
    assert done.returncode == 2
    assert "the program itself" in done.stderr


def test_a_stranger_who_asks_is_refused(programs: Programs, server: Server) -> None:
    programs("sleeper")
    done = producer(server, "stack", named_id(server, "sleeper"), CROSSHOST_AUTHKEY="f" * 64)
    assert done.returncode == 8, done.stderr
    assert "did not say" in done.stderr


def named_id(server: Server, name: str) -> str:
    document = json.loads(producer(server, "top", "--once", "--json").stdout)
    return next(str(p["id"]) for run in document["runs"] for p in run["processes"] if p["name"] == name)


def test_top_once_as_json_and_as_text(programs: Programs, server: Server, watcher: Watcher) -> None:
    programs("left", "right", "pool")
    waiting(watcher, "left", "right")
    document = json.loads(producer(server, "top", "--once", "--json").stdout)
    (run,) = document["runs"]
    assert {process["name"] for process in run["processes"]} >= {"left", "right", "MainProcess"}
    assert [host["name"] for host in document["hosts"]] == ["host-1", "host-2"]
    assert len(document["deadlocks"]) == 1
    text = producer(server, "top", "--once").stdout
    assert re.search(r"host-\d +4 +■+□*", text)
    assert re.search(r"left +host-\d/\d+ +waits for a lock sem:", text)
    assert "wait in a circle" in text


def test_top_goes_on_in_a_terminal_until_ctrl_c(programs: Programs, server: Server) -> None:
    programs("sleeper")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "producer", "top", "--every", "0.2"]
    env = {**server.env, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    with subprocess.Popen(command, env=env, stdin=theirs, stdout=theirs, stderr=theirs, preexec_fn=die_with_us) as top:
        os.close(theirs)
        shown, deadline = b"", time.monotonic() + 30
        while shown.count(b"Ctrl-C ends this") < 3 and time.monotonic() < deadline:
            if readable(ours, 1):
                shown += os.read(ours, 1 << 16)
        assert b"sleeper" in shown
        assert shown.count(b"Ctrl-C ends this") >= 3
        top.send_signal(signal.SIGINT)
        until(lambda: _drained(ours) and top.poll() is not None, "it ends")
        assert top.returncode == 130
    os.close(ours)


def _drained(terminal: int) -> bool:
    while readable(terminal, 0):
        try:
            if not os.read(terminal, 1 << 16):
                break
        except OSError:  # the other end is closed
            break
    return True


def test_without_a_fleet_it_says_how_to_have_one(server: Server) -> None:
    for command in (["locks"], ["top", "--once"], ["stack", "x"]):
        done = producer(server, *command, CROSSHOST_BROKER_URL="")
        assert done.returncode == 6
        assert "producer fleet" in done.stderr
