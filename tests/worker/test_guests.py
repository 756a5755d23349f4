"""What programs may have of a host that limits them, and where their owners read that it does."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab.fleet.engine import PROCESS_QUEUE, PROCESS_TASK, make_app
from lab.settings import Settings
from lab.store.store import Store
from tests import ROOT
from tests.kit import variables
from tests.kit.server import KEY, Server
from tests.kit.wait import until

LIMITS = {
    "CROSSHOST_MESSAGE_SIZE": "4M",
    "CROSSHOST_RUN_PROCESSES": "2",
    "CROSSHOST_RUN_OUTPUT": "2K",
    "CROSSHOST_PROCESS_MEMORY": "256M",
    "CROSSHOST_PROCESS_FILES": "64",
}

GUEST = """
import os, sys, time
import lab
from lab.errors import NotEnoughSlots


def allocate(megabytes):
    return len(bytearray(megabytes << 20))


def open_files(number):
    return len([os.open("/dev/null", os.O_RDONLY) for _ in range(number)])


def length(data):
    return len(data)


def give(megabytes):
    return bytes(megabytes << 20)


def talk(times):
    for number in range(times):
        print("x" * 99, flush=True)


def wait():
    time.sleep(60)


def try_(ctx, function, argument):
    with ctx.Pool(1) as pool:
        try:
            print("result", pool.apply(function, (argument,)))
        except Exception as exc:
            print("error", type(exc).__name__, *getattr(exc, "__notes__", ()), *str(exc).splitlines()[:1])


def main(ctx, what):
    if what == "memory":
        try_(ctx, allocate, 20)
        try_(ctx, allocate, 500)
        process = ctx.Process(target=allocate, args=(500,))
        process.start()
        process.join()
        print("exit", process.exitcode)
    if what == "files":
        try_(ctx, open_files, 20)
        try_(ctx, open_files, 100)
    if what == "message":
        try_(ctx, length, bytes(3 << 20))
        try_(ctx, length, bytes(5 << 20))
        try_(ctx, give, 5)
        process = ctx.Process(target=length, args=(bytes(5 << 20),))
        process.start()
        process.join()
        print("exit", process.exitcode)
    if what == "processes":
        two = [ctx.Process(target=wait) for _ in range(2)]
        for process in two:
            process.start()
        third = ctx.Process(target=wait)
        began = time.monotonic()
        try:
            third.start()
        except NotEnoughSlots as exc:
            print("error", exc.message, "|", exc.hint, "|", time.monotonic() - began < 8)
        two[0].kill()
        two[0].join()
        fourth = ctx.Process(target=talk, args=(1,))
        fourth.start()
        fourth.join()
        print("exit", fourth.exitcode)
        two[1].kill()
    if what == "pool":
        try:
            ctx.Pool(3)
        except NotEnoughSlots as exc:
            print("error", exc.message)
        with ctx.Pool(2) as pool:
            print("result", pool.map(length, [b"x", b"xx"]))
    if what == "output":
        for _ in range(2):
            process = ctx.Process(target=talk, args=(30,))
            process.start()
            process.join()
            print("exit", process.exitcode)


if __name__ == "__main__":
    main(lab.get_context("cluster"), sys.argv[1])
"""


@dataclass
class House:
    """A host with limits, whose programs have none of their own."""

    server: Server
    program: Path

    def guest(self, what: str) -> subprocess.CompletedProcess[str]:
        env = {**variables.leading_to(self.server.settings), "PYTHONPATH": str(ROOT), "CROSSHOST_START_TIMEOUT": "20"}
        done = subprocess.run(
            [sys.executable, str(self.program), what], env=env, capture_output=True, text=True, timeout=100
        )
        assert done.returncode == 0, done.stderr
        return done

    @property
    def log(self) -> str:
        return (self.server.directory / "host-1.log").read_text()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("house")
    (folder / "guest.py").write_text(GUEST)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in LIMITS.items():
            patch.setenv(name, value)
        server = Server(folder, hosts=1, slots=2)
        server.start()
        server.add_host()
        for name in LIMITS:  # the host alone has them
            patch.delenv(name)
        server.wait()
        try:
            store = Store(server.url)
            until(lambda: store.call("SCARD", "crosshost:hosts") == 1, "the host is up", 60)
            yield House(server, folder / "guest.py")
        finally:
            server.__exit__(None, None, None)


def test_memory_beyond_the_limit_is_an_error_of_the_call_that_names_the_setting(house: House) -> None:
    done = house.guest("memory")
    small, large, ended = done.stdout.splitlines()
    said = f"On host host-1 a process may have no more: CROSSHOST_PROCESS_MEMORY={256 << 20} was set there."
    assert small == f"result {20 << 20}"
    assert large.startswith(f"error MemoryError {said}")
    assert ended == "exit 1"
    assert "MemoryError" in done.stderr
    assert said in done.stderr


def test_open_files_beyond_the_limit_are_an_error_of_the_call_that_names_the_setting(house: House) -> None:
    few, many = house.guest("files").stdout.splitlines()
    assert few == "result 20"
    assert many.startswith("error OSError On host host-1 a process may have no more: CROSSHOST_PROCESS_FILES=64")


def test_what_is_larger_than_a_host_reads_is_refused_unread_and_the_caller_told(house: House) -> None:
    done = house.guest("message")
    small, large, answer, ended = done.stdout.splitlines()
    assert small == f"result {3 << 20}"
    assert re.match(r"error WrongKey .*more than 4194304 bytes .*refused unread: CROSSHOST_MESSAGE_SIZE=4194304", large)
    assert answer.startswith(f"result {bytes(5)!r}"[:-1])  # the host's limit is not the program's
    assert ended == "exit 1"
    assert re.search(r"host host-1: A message .*process:\w+ has 52\d{5} bytes .*CROSSHOST_MESSAGE_SIZE", done.stderr)
    assert "refused" in house.log


def test_one_process_more_than_a_program_may_have_is_refused_at_once(house: House) -> None:
    done = house.guest("processes")
    error, printed, ended = done.stdout.splitlines()
    assert error == (
        "error Host host-1: 2 processes of this program run here, and CROSSHOST_RUN_PROCESSES=2 was set. "
        "| Start fewer at once, or have it raised on that host. | True"
    )
    assert (printed, ended) == ("x" * 99, "exit 0")  # who ends makes room
    assert done.stderr == ""  # the exception says it


def test_a_pool_of_more_than_a_program_may_have_is_refused_and_a_smaller_one_is_not(house: House) -> None:
    error, result = house.guest("pool").stdout.splitlines()
    assert error == "error Host host-1: 2 processes of this program run here, and CROSSHOST_RUN_PROCESSES=2 was set."
    assert result == "result [1, 2]"


def test_what_a_program_prints_beyond_the_limit_is_left_out_and_it_goes_on(house: House) -> None:
    for _ in range(2):  # one program's is not the next one's
        done = house.guest("output")
        assert done.stdout.count("x") == 2048 - 2048 // 100 + 2  # those of "exit"
        assert re.findall("exit 0", done.stdout) == ["exit 0"] * 2
        said = "crosshost: host host-1 sends on no more of what this program prints: CROSSHOST_RUN_OUTPUT=2048 was set there."
        assert done.stderr.splitlines().count(said) == 1


def test_a_process_that_was_forged_and_is_huge_is_not_fetched(house: House) -> None:
    admin, run_id, process = house.server.client, "0123456789ac", "huge"
    base = f"crosshost:{{{run_id}}}:"
    admin.zadd(f"{base}processes", {"root": 2**53})
    admin.hset(f"{base}process:{process}", mapping={"payload": bytes(64 << 20), "parent": f"{base}mail:x"})
    before = admin.info("stats")["total_net_output_bytes"]
    app = make_app(Settings(broker_url=house.server.url, authkey=KEY.encode()))
    app.send_task(PROCESS_TASK, [run_id, process], queue=PROCESS_QUEUE)
    app.close()
    until(lambda: f"has {64 << 20} bytes and was refused unread" in house.log, "it was refused", 20)
    assert admin.info("stats")["total_net_output_bytes"] - before < 8 << 20
    until(lambda: not admin.hexists(f"{base}process:{process}", "payload"), "it is not kept either", 10)


ESCAPE = "\x1b[2J\x9b31m"


@pytest.mark.parametrize("forged", [[f"run{ESCAPE}", "p"], ["run", f"p{ESCAPE}"], ["a}b", "p"], ["run\nERROR: all lost", "p"],
                                    ["", "p"], [1, 2], ["x" * 100, "p"], ["run", None]])  # fmt: skip
def test_what_a_forged_start_says_of_itself_does_not_reach_the_log_as_it_is(forged: list[Any], house: House) -> None:
    app = make_app(Settings(broker_url=house.server.url, authkey=KEY.encode()))
    before = house.server.client.llen("crosshost:celery:dead")
    app.send_task(PROCESS_TASK, forged, queue=PROCESS_QUEUE)
    until(lambda: house.server.client.llen("crosshost:celery:dead") > before, "it is a dead letter", 20)
    app.close()
    assert not re.search("[\x1b\x9b]", house.log)
    assert "\nERROR: all lost" not in house.log


def test_a_supervisor_s_own_log_has_no_control_characters(house: House) -> None:
    # a reason that the supervisor logs, of a process that was withdrawn, in a run whose name is sound
    run_id, admin = "0123456789ab", house.server.client
    admin.zadd(f"crosshost:{{{run_id}}}:processes", {"root": 2**53})
    app = make_app(Settings(broker_url=house.server.url, authkey=KEY.encode()))
    app.send_task(PROCESS_TASK, [run_id, "gone"], queue=PROCESS_QUEUE)
    app.close()
    until(lambda: "withdrawn" in house.log, "the supervisor has logged", 20)
    line = next(line for line in house.log.splitlines() if "withdrawn" in line)
    assert re.match(r"\[[-\d :,]+: WARNING/\d+\] process gone of run 0123456789ab is not started", line)
    log = subprocess.run([sys.executable, "-c", f"""
import logging
from worker import supervisor
supervisor._log_plainly()
supervisor.log.error("process %s", {ESCAPE!r})
"""], cwd=ROOT, capture_output=True, check=True)  # fmt: skip
    assert log.stderr.decode().rstrip().endswith(r"process \x1b[2J\x9b31m")


@pytest.mark.parametrize("announced", [
    {"pid": "1", "slots": "1", "version": "1", "key": "x", "started": "x"},
    {"pid": "1", "slots": "1", "version": f"1{ESCAPE}", "key": "x", "started": "1"},
    {"slots": "0", "running": "0"},
    {"slots": "x", "running": b"\xff"},
    "something else",
])  # fmt: skip
def test_a_host_that_was_invented_ends_no_worker_and_steers_no_terminal(announced: Any, house: House) -> None:
    admin, name = house.server.client, f"host-0{ESCAPE if isinstance(announced, str) else ''}"
    key = f"crosshost:host:{name}"
    admin.sadd("crosshost:hosts", name, b"\xff")
    if isinstance(announced, str):
        admin.set(key, announced, px=60_000)
    else:
        admin.hset(key, mapping=announced)
    try:
        env = {**variables.leading_to(house.server.settings), "PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, "-m", "producer", "workers", "--json"], env=env, capture_output=True,
                              text=True, timeout=60)  # fmt: skip
        if not isinstance(announced, str):
            assert [each["name"] for each in json.loads(done.stdout)["hosts"]] == ["host-1"], done.stderr
        assert not re.search("[\x1b\x9b]", done.stdout + done.stderr)
        if isinstance(announced, dict) and "running" in announced:  # all its slots are taken, so a host compares
            assert house.guest("processes").stdout.count("exit 0") == 1
    finally:
        admin.delete(key)
        admin.srem("crosshost:hosts", name, b"\xff")
    assert os.path.exists(f"/proc/{house.server.workers[0].pid}")
