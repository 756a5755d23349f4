"""Nothing in Redis grows because a sender is faster than its reader; and a Redis that is full refuses, and loses nothing."""

from __future__ import annotations

import os
import queue as queues
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from faults import ceiling
from lab.cluster.managers import managed
from lab.errors import BadSettings
from lab.settings import Settings
from lab.store import backlog
from lab.store.backlog import AHEAD, MOST
from tests.cluster import ceiling_targets as targets
from tests.cluster.test_faults import run_program
from tests.kit.wait import until

ITEM = 100_000
MANY = 4 * MOST // ITEM


def used(ctx: Any) -> int:
    """Bytes that Redis uses now."""
    info = ctx.connect().store.call("INFO", "memory").decode()
    return int(info.partition("used_memory:")[2].split()[0])


@contextmanager
def in_thread(work: Callable[[], object]) -> Iterator[threading.Thread]:
    """Something that waits for others, which must have ended with the block."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield thread
    thread.join(30)
    assert not thread.is_alive()


def comes_to_rest(length: Callable[[], int]) -> int:
    """What is counted once it has not changed for a second."""
    seen, since = -1, 0.0
    while seen != (now := length()) or time.monotonic() - since < 1:
        if now != seen:
            seen, since = now, time.monotonic()
        time.sleep(0.02)
    return seen


def numbered(n: int) -> bytes:
    return n.to_bytes(4, "big") + bytes(ITEM)


@pytest.fixture(params=["SimpleQueue", "Pipe", "Queue", "managed"])
def line(cluster: Any, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """What sends and what receives; how many wait in Redis."""
    if request.param == "Pipe":
        here, there = cluster.Pipe()
        yield here.send, there.recv, lambda: cluster.connect().store.call("LLEN", there._inbox)
    elif request.param == "managed":
        monkeypatch.setattr(managed, "MOST", MOST)
        with cluster.Manager() as manager:
            queue = manager.Queue()
            yield queue.put, queue.get, queue.qsize
    else:
        queue = getattr(cluster, request.param)()
        yield queue.put, queue.get, queue._channel.length


def test_a_sender_is_held_back_until_somebody_reads_and_all_arrives_in_order(cluster: Any, line: Any) -> None:
    send, receive, length = line
    before = used(cluster)
    with in_thread(lambda: [send(numbered(n)) for n in range(MANY)]):
        assert MOST // 2 < comes_to_rest(length) * ITEM <= MOST + AHEAD
        assert used(cluster) - before < 2 * MOST
        assert [receive()[:4] for _ in range(MANY)] == [numbered(n)[:4] for n in range(MANY)]


def test_put_of_a_queue_waits_for_nobody_and_its_feeder_does(cluster: Any) -> None:
    queue = cluster.Queue()
    begun = time.monotonic()
    for n in range(MANY):
        queue.put(numbered(n))
    assert time.monotonic() - begun < 5
    assert comes_to_rest(queue._channel.length) < MANY
    assert queue.qsize() == MANY
    assert [queue.get()[:4] for _ in range(MANY)] == [numbered(n)[:4] for n in range(MANY)]
    queue.close()
    queue.join_thread()


def test_a_queue_of_a_manager_is_full_for_who_does_not_wait_and_says_so_to_who_does(
    cluster: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(managed, "MOST", MOST + 1)
    monkeypatch.setattr(backlog, "TELL_AFTER", 1.0)
    with cluster.Manager() as manager:
        shared = manager.Queue()
        with pytest.raises(queues.Full):
            deque((shared.put(numbered(0), timeout=0.1) for _ in range(MANY)), 0)
        with pytest.raises(queues.Full):
            shared.put_nowait(numbered(0))
        run = cluster.connect()
        (waiting,) = run.store.pipeline([("EVAL", "return redis.call('KEYS', ARGV[1])", 0, run.key("*:room:waiters"))])
        assert not waiting  # who gave up waits no more
        with in_thread(lambda: shared.put(numbered(0))):
            until(lambda: "a put has waited for" in capfd.readouterr().err, "it says that it waits")
            for _ in range(MANY // 4):
                shared.get()


def test_large_messages_count_with_what_is_laid_down_beside_the_list(cluster: Any) -> None:
    queue = cluster.SimpleQueue()
    item = os.urandom(MOST // 4)
    with in_thread(lambda: [queue.put(item) for _ in range(12)]):
        assert comes_to_rest(queue._channel.length) == 3
        assert all(queue.get() == item for _ in range(12))


def test_a_message_larger_than_the_ceiling_passes_one_at_a_time(cluster: Any) -> None:
    here, there = cluster.Pipe()
    item = os.urandom(MOST + 1)
    with in_thread(lambda: [here.send(item) for _ in range(3)]):
        assert comes_to_rest(lambda: cluster.connect().store.call("LLEN", there._inbox)) == 1
        assert all(there.recv() == item for _ in range(3))


def test_a_reader_in_another_process_wakes_the_sender_each_time(cluster: Any) -> None:
    queue, (here, there) = cluster.SimpleQueue(), cluster.Pipe()
    reader = cluster.Process(target=targets.forward, args=(queue.get, there.send, MANY, 0.001))
    reader.start()
    begun = time.monotonic()
    with in_thread(lambda: [queue.put(numbered(n)) for n in range(MANY)]):
        assert [here.recv() for _ in range(MANY)] == [numbered(n)[:4] for n in range(MANY)]
    reader.join()
    assert time.monotonic() - begun < 20


@pytest.mark.parametrize("end", ["closed", "killed"])
def test_a_sender_that_waits_for_a_reader_who_is_gone_has_a_broken_pipe(cluster: Any, end: str) -> None:
    here, there = cluster.Pipe()
    reader = cluster.Process(target=targets.hold, args=(there, 60 if end == "killed" else 2))
    reader.start()
    there.close()

    def fill() -> None:
        while True:
            here.send(numbered(0))

    def broken() -> None:
        with pytest.raises(BrokenPipeError):
            fill()

    with in_thread(broken) as thread:
        until(lambda: cluster.connect().store.call("EXISTS", f"{here._outbox}:room:waiters"), "it waits")
        assert thread.is_alive()
        if end == "killed":
            reader.kill()
    reader.join()


def test_a_sender_killed_while_it_waits_holds_up_no_other(cluster: Any) -> None:
    queue = cluster.SimpleQueue()
    senders = [
        cluster.Process(target=targets.put_many, args=(queue.put, name, 100, ITEM)) for name in (b"a", b"b", b"c")
    ]
    for sender in senders:
        sender.start()
    comes_to_rest(queue._channel.length)
    senders[0].kill()
    senders[0].join()
    got: dict[bytes, list[int]] = {b"a": [], b"b": [], b"c": []}
    while len(got[b"b"]) + len(got[b"c"]) < 200:
        item = queue.get()
        got[item[:1]].append(item[1])
    assert got[b"b"] == got[b"c"] == list(range(100))  # each in its order
    assert got[b"a"] == list(range(len(got[b"a"])))
    for sender in senders[1:]:
        sender.join()
        assert sender.exitcode == 0


def test_two_hundred_megabytes_through_imap_leave_redis_and_the_program_small(cluster: Any) -> None:
    peak = ceiling.Peak(cluster)
    before = used(cluster)
    items = (bytes(1_000_000) for _ in range(200))
    with peak.watched(), cluster.Pool(2) as pool:
        assert sum(pool.imap(targets.length, items)) == 200_000_000
    assert peak.bytes - before < 64e6


def test_workers_wait_for_a_pool_that_does_not_read_their_answers(cluster: Any) -> None:
    before, peak, gate = used(cluster), ceiling.Peak(cluster), threading.Event()
    with peak.watched(), cluster.Pool(4) as pool:
        pool.map(targets.make, [1] * 8)
        held = pool.apply_async(
            targets.make, (1,), callback=lambda _: gate.wait(60)
        )  # in the thread that reads answers
        answers = pool.map_async(targets.make, [1_000_000] * 100, 1)
        run, results = cluster.connect(), pool._calls.key("results")
        until(lambda: run.store.call("EXISTS", f"{results}:room:waiters"), "a worker waits")
        assert comes_to_rest(lambda: run.store.call("LLEN", results)) < 20
        gate.set()
        assert answers.get(60) == [bytes(1_000_000)] * 100
        assert held.get(10) == b"\0"
    assert peak.bytes - before < 48e6


PRINTS = """
import sys, time
import lab

def noisy():
    while True:
        print("x" * 999)

def quiet():
    pass

def used(ctx):
    return int(ctx.connect().store.call("INFO", "memory").decode().partition("used_memory:")[2].split()[0])

def tell(*words):
    print(*words, file=sys.stderr, flush=True)

if __name__ == "__main__":
    with lab.get_context("cluster") as ctx:
        before = used(ctx)
        child = ctx.Process(target=noisy)
        child.start()
        time.sleep(3)  # a child that nobody holds back prints 500 MB meanwhile
        tell("grown", (used(ctx) - before) >> 20)
        sys.stdin.readline()  # until somebody reads
        other = ctx.Process(target=quiet)
        other.start()
        other.join()
        tell("other", other.exitcode)
        child.terminate()
        child.join()
        tell("child", child.exitcode)
"""


def test_a_child_that_prints_without_end_waits_for_whoever_reads_the_program(tmp_path: Path) -> None:
    script = tmp_path / "prints.py"
    script.write_text(PRINTS)
    env = {**os.environ, "CROSSHOST_HOSTS": "1", "PYTHONPATH": os.getcwd()}
    program = subprocess.Popen([sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, env=env)  # fmt: skip
    try:
        assert program.stderr is not None
        word, grown = program.stderr.readline().split()
        assert (word, int(grown) < 16) == (b"grown", True)
        out, err = program.communicate(b"\n", timeout=60)
    finally:
        program.kill()
    assert err.decode().splitlines() == ["other 0", f"child {-signal.SIGTERM}"]
    assert len(out) > 1 << 20
    assert set(out.splitlines()[:1000]) == {b"x" * 999}


FULL = """
import threading, time
import redis
import lab
from tests.cluster.ceiling_targets import add, echo, forward
from tests.cluster.cluster_targets import sleep_for

if __name__ == "__main__":
    with lab.get_context("cluster") as ctx:
        intruder = redis.Redis(unix_socket_path=ctx.connect().store.address.removeprefix("unix://"))
        value, lock, queue = ctx.Value("i", 0, lock=False), ctx.Lock(), ctx.Queue()
        here, there = ctx.Pipe()
        children = [ctx.Process(target=add, args=(value, lock, 400)) for _ in range(2)]
        children.append(ctx.Process(target=forward, args=(queue.get, there.send, 150, 0.02)))
        for child in children:
            child.start()
        pool = ctx.Pool(2)
        pool.map(echo, [b""] * 8)
        small = pool.map_async(sleep_for, [0.02] * 200, 1)
        large = pool.map_async(echo, [bytes(500_000)] * 50, 1)
        for n in range(150):
            queue.put(n.to_bytes(4, "big") + bytes(200_000))
        end, refused, n = time.monotonic() + 6, 0, 0  # three leases
        while time.monotonic() < end:
            try:
                intruder.set(f"filler:{n}", bytes(1_000_000 if not refused else 10_000))
                n += 1
            except redis.exceptions.OutOfMemoryError:
                refused += 1
                time.sleep(0.01)
        print("full", refused > 100, intruder.info("memory")["used_memory"] < 40 << 20)
        intruder.delete(*intruder.keys("filler:*"))
        print("pool", len(small.get(60)), large.get(60) == [bytes(500_000)] * 50)
        print("queue", [here.recv() for _ in range(150)] == [n.to_bytes(4, "big") for n in range(150)])
        for child in children:
            child.join()
        print("lock", value.value, [child.exitcode for child in children])
        child = ctx.Process(target=sleep_for, args=(0,))
        child.start()
        child.join()
        print("new", child.exitcode)
        pool.close()
        pool.join()
"""


def test_a_redis_that_is_full_for_three_leases_costs_time_and_nothing_else(tmp_path: Path) -> None:
    done = run_program(tmp_path / "full.py", FULL, 120, MEMORY=32 << 20, LEASE=2, HOSTS=2)
    assert done.stdout.splitlines() == [
        "full True True",
        "pool 200 True",
        "queue True",
        "lock 800 [0, 0, 0]",
        "new 0",
    ], done.stderr
    told = done.stderr.splitlines()
    assert re.match(r"crosshost: Redis at unix:\S+ has no memory left \(maxmemory\), so what sends waits", told[0])
    assert "luggage" in told[0]  # which is what holds it
    assert told[1] == "  Going on as soon as it has some; giving up after 30 s."
    assert "has memory again, after" in told[-1]
    assert all(re.search(r"has no memory left|Going on as soon|has memory again", line) for line in told)


GROWS = """
import os
import lab
from lab.errors import RedisFull

if __name__ == "__main__":
    with lab.get_context("cluster") as ctx, ctx.Manager() as manager:
        mapping = manager.dict()
        try:
            for n in range(100):
                mapping[n] = os.urandom(1_000_000)
        except RedisFull as exc:
            print(exc.message)
        print(len(mapping) > 2)
        mapping.clear()
        mapping["after"] = 1
        print(mapping)
        print(ctx.Pool(1).map(len, ["abc"]))
"""


def test_what_grows_until_redis_is_full_has_an_error_that_names_it_and_deleting_helps(tmp_path: Path) -> None:
    done = run_program(tmp_path / "grows.py", GROWS, MEMORY=16 << 20, OUTAGE=1, HOSTS=1)
    error, *rest = done.stdout.splitlines()
    assert re.search(
        r"has no memory left \(maxmemory\), for \d+ s now. This program holds \d+.\d MB of it \(object ", error
    )
    assert rest == ["True", "{'after': 1}", "[3]"], done.stderr


@pytest.mark.parametrize(("text", "size"), [("", 0), ("16m", 16 << 20), ("2G", 2 << 30), ("512mb", 512 << 20)])
def test_the_memory_of_a_fleet_is_a_setting(text: str, size: int) -> None:
    assert Settings.from_env({"CROSSHOST_MEMORY": text}).memory == size


@pytest.mark.parametrize("text", ["1k", "much", "-1", "1.5g"])
def test_a_memory_that_cannot_be_used_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(BadSettings, match="512m or 2g"):
        Settings.from_env({"CROSSHOST_MEMORY": text})
