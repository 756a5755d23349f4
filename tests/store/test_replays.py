"""Somebody with write access to Redis and without the key: copies, swaps, forged marks and numbers, what can be read."""

from __future__ import annotations

import os
import signal
import struct
from collections.abc import Iterator
from multiprocessing.managers import BaseManager
from queue import Empty
from typing import Any

import pytest
import redis

from lab.cluster import managers
from lab.errors import WrongKey
from lab.store.claimcheck import SMALL
from lab.store.wire import HEAD_SIZE, LARGE
from tests.cluster import cluster_targets as targets
from tests.kit.wait import until, within
from tests.store import replay_targets

SECRET = b"a secret that nobody else is to know"


@pytest.fixture
def intruder(cluster: Any) -> Iterator[redis.Redis]:
    cluster.connect()
    with redis.Redis.from_url(cluster.settings.broker_url) as client:
        yield client


def everything(client: Any) -> Iterator[bytes]:
    """All values in Redis, whatever their type."""
    read = {
        b"string": lambda key: [client.get(key)],
        b"list": lambda key: client.lrange(key, 0, -1),
        b"hash": lambda key: [part for pair in client.hgetall(key).items() for part in pair],
        b"set": client.smembers,
        b"zset": lambda key: client.zrange(key, 0, -1),
    }
    for key in client.scan_iter("crosshost:{*"):
        yield key
        yield from read.get(client.type(key), lambda _: [])(key)


# --- what can be read -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 10 * SMALL], ids=["small", "large"])
def test_nothing_that_processes_say_to_each_other_can_be_read(cluster: Any, intruder: redis.Redis, size: int) -> None:
    secret = SECRET * (size // len(SECRET) + 1)
    queue, (here, there), manager = cluster.Queue(), cluster.Pipe(), cluster.Manager()
    with manager, cluster.Pool(1) as pool:
        shared = manager.dict(key=secret)
        slow = pool.apply_async(targets.sleep_for, (0.5,))
        calls = pool.map_async(targets.echo, [secret] * 3, 1)
        queue.put(secret)
        here.send(secret)
        until(lambda: queue.qsize() == 1, "the item is in Redis", 10)
        written = list(everything(intruder))
        assert any(queue._channel.key.encode() in name for name in written)
        assert not [value for value in written if SECRET in value]
        slow.get(10)
        assert calls.get(10) == [secret] * 3
        assert queue.get(timeout=10) == there.recv() == shared["key"] == secret
        assert not [value for value in everything(intruder) if SECRET in value]


def test_a_process_that_waits_for_its_start_can_not_be_read(
    cluster: Any, intruder: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lab.cluster.process import Popen

    send, seen = Popen._send_message, list[bytes]()

    def recorded(popen: Popen, again: bool = False) -> None:
        seen.extend(everything(intruder))
        send(popen, again)

    monkeypatch.setattr(Popen, "_send_message", recorded)
    process = cluster.Process(target=targets.echo, args=(SECRET,))
    process.start()
    process.join(10)
    (payload,) = [value for value in seen if len(value) > 500 and value[0] == 2][:1]
    assert payload
    for word in (
        SECRET,
        b"cluster_targets",
        b"sys_path",
        bytes(process.authkey),
        bytes(process.authkey).hex().encode(),
    ):
        assert not [value for value in seen if word in value]


# --- pipes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("marks", [1, 3])
def test_a_pipe_does_not_end_by_a_mark_that_somebody_has_laid_there(
    cluster: Any, intruder: redis.Redis, marks: int
) -> None:
    here, there = cluster.Pipe()
    for n in range(2):
        here.send(n)
    intruder.rpush(there._inbox, *[b""] * marks)
    for n in range(2, 5):
        here.send(n)
    assert [there.recv() for _ in range(5)] == list(range(5))
    assert not there.poll()
    here.close()
    with pytest.raises(EOFError):
        there.recv()


def test_a_mark_that_was_laid_too_early_costs_nothing_of_what_was_sent_before_the_end(
    cluster: Any, intruder: redis.Redis
) -> None:
    here, there = cluster.Pipe()
    here.send(0)
    intruder.rpush(there._inbox, b"", b"")
    for n in (1, 2):
        here.send(n)
    here.close()
    intruder.rpush(there._inbox, b"what nobody has sent", b"")
    assert [there.recv() for _ in range(3)] == [0, 1, 2]
    for _ in range(2):  # it stays at the end
        with pytest.raises(EOFError):
            there.recv()


def test_the_end_is_told_to_every_holder_of_an_end_although_marks_were_added(
    cluster: Any, intruder: redis.Redis
) -> None:
    here, there = cluster.Pipe(duplex=False)
    told = cluster.Queue()
    readers = [cluster.Process(target=read_to_the_end, args=(here, told)) for _ in range(2)]
    for reader in readers:
        reader.start()
    intruder.rpush(here._inbox, b"", b"")
    there.send("only")
    there.close()
    intruder.rpush(here._inbox, b"")
    assert sorted(told.get(timeout=20) for _ in readers) == [0, 1]
    for reader in readers:
        reader.join(10)


def read_to_the_end(pipe: Any, told: Any) -> None:
    count = 0
    while True:
        try:
            pipe.recv()
        except EOFError:
            told.put(count)
            return
        count += 1


@pytest.mark.parametrize("size", [10, LARGE])
def test_a_pipes_message_that_is_sent_again_is_refused(
    cluster: Any, intruder: redis.Redis, capfd: pytest.CaptureFixture[str], size: int
) -> None:
    here, there = cluster.Pipe()
    here.send(b"1" * size)
    here.send(b"2")
    copies: Any = intruder.lrange(there._inbox, 0, -1)
    intruder.rpush(there._inbox, *copies)
    here.send(b"3")
    assert [there.recv() for _ in range(3)] == [b"1" * size, b"2", b"3"]
    assert capfd.readouterr().err.count("this is a copy") == 2


def test_a_pipes_message_does_not_open_at_the_other_end_or_in_another_pipe(cluster: Any, intruder: redis.Redis) -> None:
    (here, there), (_, elsewhere) = cluster.Pipe(), cluster.Pipe()
    here.send("mine")
    copy: Any = intruder.lindex(there._inbox, 0)
    for end in (here, elsewhere):
        intruder.rpush(end._inbox, copy)
    there.send("answer")
    assert here.recv() == "answer"
    assert there.recv() == "mine"


# --- queues: what is allowed, as docs/security.md says ------------------------------------------------------------------


def test_a_queues_item_can_be_delivered_again_and_out_of_order_but_only_in_its_queue(
    cluster: Any, intruder: redis.Redis
) -> None:
    queue, other = cluster.Queue(), cluster.Queue()
    for n in range(2):
        queue.put(n)
    until(lambda: queue.qsize() == 2 == intruder.llen(queue._channel.key), "both are in Redis", 10)
    first, second = intruder.lrange(queue._channel.key, 0, -1)
    intruder.delete(queue._channel.key)
    intruder.rpush(queue._channel.key, second, first, second)
    intruder.rpush(other._channel.key, first, second)
    assert [queue.get(timeout=5) for _ in range(3)] == [1, 0, 1]
    with pytest.raises(Empty):
        other.get(timeout=0.3)


def test_luggage_that_was_changed_or_exchanged_costs_its_own_item(cluster: Any, intruder: redis.Redis) -> None:
    queue, run = cluster.SimpleQueue(), cluster.connect()
    items = [os.urandom(2 * SMALL) for _ in range(3)]
    for item in items:
        queue.put(item)
    lying = [ticket[HEAD_SIZE:-16] for ticket in intruder.lrange(queue._channel.key, 0, -1)]
    assert all(key.startswith(run.base.encode()) for key in lying)
    intruder.copy(lying[2], lying[0], replace=True)  # type: ignore[arg-type]
    intruder.setrange(lying[1], 100, b"!!!")
    queue.put("next")
    assert [queue.get(), queue.get()] == [items[2], "next"]


# --- pools ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["calls", "taken"])
@pytest.mark.parametrize("number", [8191, 2**31, 2**32 - 1, 2**32, 2**53, 2**64 - 1])
def test_a_number_that_no_call_has_makes_nothing_in_redis_grow(
    cluster: Any, intruder: redis.Redis, number: int, where: str
) -> None:
    with cluster.Pool(1) as pool:
        assert pool.apply(targets.echo, (1,)) == 1
        before = intruder.info("memory")["used_memory"]
        key = pool._calls.key("calls") if where == "calls" else pool._calls.key("taken", "gone")
        forged = bytes(HEAD_SIZE) + struct.pack(">Q", number) + bytes(20)
        intruder.rpush(key, forged, bytes(3))
        if where == "taken":  # as if a worker of this name had died, to which they seem to belong
            pool._calls.recover("gone", host_lost=False, overdue=False)
        assert pool.map(targets.echo, range(50), 1) == list(range(50))
        assert intruder.strlen(pool._calls.key("seen")) <= 1025
        assert intruder.info("memory")["used_memory"] - before < 2_000_000


def test_a_call_whose_number_a_forgery_has_used_before_is_done_all_the_same(
    cluster: Any, intruder: redis.Redis
) -> None:
    with cluster.Pool(2) as pool:
        forged = [bytes(HEAD_SIZE) + struct.pack(">Q", n) + bytes(20) for n in range(40)]
        intruder.rpush(pool._calls.key("calls"), *forged)
        assert pool.map(targets.echo, range(30), 1) == list(range(30))


def test_calls_that_are_exchanged_give_each_its_own_result(cluster: Any, intruder: redis.Redis) -> None:
    with cluster.Pool(1) as pool:
        gate = pool.apply_async(targets.sleep_for, (0.5,))
        results = [pool.apply_async(replay_targets.double, (n,)) for n in range(4)]
        calls = pool._calls.key("calls")
        until(lambda: intruder.llen(calls) == 4, "they wait in Redis", 10)
        waiting: Any = intruder.lrange(calls, 0, -1)
        intruder.delete(calls)
        intruder.rpush(calls, *reversed(waiting))
        gate.get(10)
        assert [result.get(10) for result in results] == [0, 2, 4, 6]


def test_a_pools_results_count_once_and_open_in_no_other_pool(cluster: Any, intruder: redis.Redis) -> None:
    with cluster.Pool(1) as pool, cluster.Pool(1) as other:
        theirs = other.apply_async(targets.sleep_for, (1.0,))
        seen = list[Any]()
        counted = pool.apply_async(targets.sleep_for, (0.2,), callback=seen.append)
        hand = cluster.connect().key("hand", "*")
        counted.get(10)
        copies = [
            blob
            for key in intruder.scan_iter(hand.replace("{", "\\{").replace("}", "\\}"))
            for blob in intruder.lrange(key, 0, -1)
        ]
        assert copies
        for target in (pool, other):
            intruder.rpush(target._calls.key("results"), *copies)
        assert pool.apply(targets.echo, ("next",)) == "next"
        assert theirs.get(10) == 1.0
        assert seen == [0.2]


# --- events and signals -----------------------------------------------------------------------------------------------


def test_events_and_output_that_are_sent_again_are_refused(
    cluster: Any, intruder: redis.Redis, capfd: pytest.CaptureFixture[str]
) -> None:
    run = cluster.connect()
    letter = run.letter(run.mailbox, event="output", process="x", stream="stdout", text="once\n")
    running = cluster.Process(target=targets.nothing)
    running.start()
    running.join(10)
    intruder.rpush(run.mailbox, letter, letter, letter)
    process = cluster.Process(target=targets.nothing)
    process.start()
    process.join(10)
    out, err = capfd.readouterr()
    assert out.count("once") == 1
    assert err.count("this is a copy") == 2


def test_a_signal_that_is_sent_again_is_refused(cluster: Any, intruder: redis.Redis) -> None:
    ready, go, counted = cluster.Event(), cluster.Event(), cluster.Value("i", 0)
    process = cluster.Process(target=replay_targets.count_signals, args=(ready, counted, go))
    process.start()
    assert ready.wait(10)
    run, me = cluster.connect(), process._popen.process_id
    inbox: Any = intruder.hget(run.key("process", me), "inbox")

    def command() -> bytes:
        return bytes(me.encode() + b" " + run.seal(run.key("commands", me), str(int(signal.SIGINT)).encode()))

    copy = command()
    for count in (1, 2):
        intruder.rpush(inbox, copy)
        until(lambda: not intruder.llen(inbox), f"copy {count} was taken", 10)
        assert within(10, lambda: counted.value == 1), (
            f"{counted.value} came, after {count}; it ended: {process.exitcode}"
        )
    intruder.rpush(inbox, command())
    until(lambda: counted.value == 2, "another signal, which is no copy, came", 10)
    go.set()
    process.join(10)


# --- managers ---------------------------------------------------------------------------------------------------------


def test_an_earlier_state_of_a_managed_object_is_refused_by_who_has_seen_a_later_one(
    cluster: Any, intruder: redis.Redis
) -> None:
    with cluster.Manager() as manager:
        shared = manager.dict(key=1)
        key = shared._id
        early: Any = intruder.hmget(key, "version", "state")
        shared["key"] = 2
        late: Any = intruder.hmget(key, "version", "state")
        intruder.hset(key, "state", early[1])  # under the number of the later one
        process = cluster.Process(target=replay_targets.change, args=(shared, 3))
        process.start()
        process.join(10)
        assert process.exitcode == 1
        intruder.hset(key, mapping={"version": early[0], "state": early[1]})
        with pytest.raises(WrongKey, match="changes to it are lost"):
            shared["key"]
        assert shared["key"] == 1  # told once: see docs/security.md
        intruder.hset(key, mapping={"version": late[0], "state": late[1]})
        assert shared["key"] == 2


def test_the_state_of_one_object_does_not_open_in_another(cluster: Any, intruder: redis.Redis) -> None:
    with cluster.Manager() as manager:
        one, other = manager.list([1]), manager.list([2])
        other.append(3)
        intruder.hset(other._id, "state", intruder.hget(one._id, "state"))
        process = cluster.Process(target=targets.echo, args=(other,))
        process.start()
        process.join(10)
        other_view = managers.objects.KINDS["stored"](cluster.connect(), other._id, "x")
        with pytest.raises(WrongKey, match="refused unread"):
            other_view.call("__len__", (), {})


class Bank(managers.BaseManager):
    pass


Bank.register("Counter", replay_targets.Counter)


def test_a_call_of_a_resident_object_that_is_sent_again_is_refused(
    cluster: Any, intruder: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert issubclass(Bank, BaseManager)
    run, bank = cluster.connect(), Bank(ctx=cluster)
    bank.start()
    counter = bank.Counter()  # type: ignore[attr-defined]
    calls, taken = run.key("calls", run.me), list[bytes]()
    take = run.take

    def recorded(source: str, timeout: float | None, most: int = 1, *more: Any) -> list[bytes]:
        blobs: list[bytes] = take(source, timeout, most, *more)
        if source == calls:
            taken.extend(blobs)
        return blobs

    monkeypatch.setattr(run, "take", recorded)
    with cluster.Pool(1) as pool:
        assert pool.apply(call_step, (counter,)) == 0
        assert pool.apply(call_step, (counter,)) == 1
        until(lambda: taken, "a call was seen", 10)
        intruder.rpush(calls, *taken, *taken)
        until(lambda: not intruder.llen(calls), "the copies were taken", 10)
        assert pool.apply(call_step, (counter,)) == 2
    bank.shutdown()


def call_step(counter: Any) -> int:
    return int(counter.step())


# --- numbers, which Redis works with --------------------------------------------------------------------------------------


def test_a_shared_number_can_be_changed_and_stays_a_number(cluster: Any, intruder: redis.Redis) -> None:
    value, array = cluster.Value("i", 1), cluster.Array("d", [1.0, 2.0])
    intruder.setrange(value.get_obj()._memory.key, 0, b"\x00\x00\x05\x00")
    intruder.setrange(array.get_obj()._memory.key, 0, b"\xff" * 8)
    assert value.value == 1280
    assert array[0] != array[0]  # a NaN
    assert array[1] == 2.0
