"""What is read first under a lock comes with it the next time, and is never older than what its reader knows."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from lab.cluster.foresight import SMALL
from lab.cluster.sharedctypes import Memory, SharedArray, SharedValue
from lab.cluster.synchronize import RECURSIVE_MUTEX, SemLock
from lab.errors import KeyLost
from lab.store.run import Run
from lab.store.store import Store
from tests.kit.proxy import Proxy
from tests.kit.server import Server
from tests.kit.wait import until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("valkey")) as server:
        yield server


class Side:
    """A lock and what it guards, as one of two processes knows them."""

    def __init__(self, run: Run, name: str, length: int) -> None:
        self.run = run
        self.lock = SemLock(run, f"{name}:lock", RECURSIVE_MUTEX, 1, 1, True)
        self.memory = Memory(run, f"{name}:memory", 8)
        self.value = SharedValue(ctypes.c_long, self.memory)
        self.array = SharedArray(ctypes.c_long * length, Memory(run, f"{name}:array", 8 * length))

    def increment(self) -> int:
        """Add one, under the lock."""
        with self.lock:
            self.value.value += 1
            return int(self.value.value)


LENGTH = 2 * SMALL // 8


@pytest.fixture
def sides(run: Run, server: Server, proxy: Proxy) -> tuple[Side, Side]:
    """That of a child, which has no beats, and whose connections go through the proxy; and that of another process."""
    run.store.call("ZADD", run.key("processes"), run.server_ms() + 60_000, "child")
    child = Run(run.settings, Store(proxy.url, patience=20), run.id, "child")
    name = run.new_name("guarded")
    run.store.call("SETRANGE", f"{name}:memory", 0, bytes(8))
    run.store.call("SETRANGE", f"{name}:array", 0, bytes(8 * LENGTH))
    return Side(child, name, LENGTH), Side(Run(run.settings, Store(server.url), run.id, run.me), name, LENGTH)


class Asked:
    """What is read in a round trip of its own."""

    def __init__(self, side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
        self.many = 0
        call = side.run.store.call

        def counted(*command: Any) -> Any:
            self.many += command[0] == "GETRANGE"
            return call(*command)

        monkeypatch.setattr(side.run.store, "call", counted)


def test_what_was_read_first_comes_with_the_lock_the_next_time(
    sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, theirs = sides
    asked = Asked(mine, monkeypatch)
    for n in range(3):
        with mine.lock:
            assert mine.value.value == 2 * n
            mine.value.value = 2 * n + 1
        assert theirs.increment() == 2 * n + 2
    assert asked.many == 1


def test_it_comes_too_with_a_lock_that_had_to_be_waited_for(
    sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, theirs = sides
    mine.increment()
    asked = Asked(mine, monkeypatch)
    held, waited_for = threading.Semaphore(0), f"{mine.lock.name}:waiters"

    def set_late(value: int) -> None:
        with theirs.lock:
            held.release()
            until(lambda: theirs.run.store.call("LLEN", waited_for), "it is waited for", 10)
            theirs.value.value = value

    for n in range(3):
        later = threading.Thread(target=set_late, args=(n,))
        later.start()
        held.acquire()
        with mine.lock:
            assert mine.value.value == n
        later.join()
    assert asked.many == 0


def test_it_is_good_for_one_read(sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch) -> None:
    mine, theirs = sides
    mine.increment()
    with mine.lock:
        assert mine.value.value == 1
        theirs.value.add(5)
        assert mine.value.value == 6


def test_what_somebody_changed_without_the_lock_and_told_of_is_seen(sides: tuple[Side, Side]) -> None:
    mine, theirs = sides
    mine.increment()
    with mine.lock:
        theirs.value.add(5)
        theirs.run.store.call("RPUSH", mine.run.key("told"), "done")
        assert mine.run.store.wait(lambda left: ("BLPOP", mine.run.key("told"), left), 10)
        assert mine.value.value == 6


def test_what_this_process_wrote_meanwhile_is_seen(sides: tuple[Side, Side]) -> None:
    mine, _ = sides
    mine.increment()
    with mine.lock:
        mine.value.value = 7
        assert mine.value.value == 7
    with mine.lock:
        other = threading.Thread(target=setattr, args=(mine.value, "value", 8))
        other.start()
        other.join()
        assert mine.value.value == 8


def test_what_is_not_read_any_more_is_not_brought(sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch) -> None:
    mine, _ = sides
    mine.increment()
    for _ in range(2):
        with mine.lock:
            mine.value.value = 1
    assert mine.lock._foresight.commands() == []
    assert mine.increment() == 2


def test_what_is_large_is_not_brought(sides: tuple[Side, Side]) -> None:
    mine, theirs = sides
    for n in range(3):
        theirs.array[0] = n
        theirs.run.store.settle()
        with mine.lock:
            assert mine.array[:][0] == n
    assert mine.lock._foresight.commands() == []


def test_one_that_fails_costs_the_reader_an_error_and_nobody_the_lock(sides: tuple[Side, Side]) -> None:
    mine, theirs = sides
    mine.increment()
    key = mine.memory.key
    theirs.run.store.call("UNLINK", key)
    theirs.run.store.call("RPUSH", key, "no number")
    with pytest.raises(KeyLost), mine.lock:
        assert mine.value.value
    assert theirs.lock.acquire(block=False)
    theirs.lock.release()


def test_a_lost_reply_brings_nothing_and_loses_nothing(sides: tuple[Side, Side], proxy: Proxy) -> None:
    mine, theirs = sides
    mine.value.value = -1
    assert mine.increment() == 0
    for n in range(5):
        proxy.lose_replies(1)
        assert mine.increment() == 2 * n + 1
        assert theirs.increment() == 2 * n + 2
    assert proxy.lost == 1
