"""Waiting for a lock: the list of waiters tells what a lost reply or an interrupt leaves open."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lab.cluster.synchronize import RECURSIVE_MUTEX, SEMAPHORE, SemLock
from lab.errors import LeaseLost
from lab.store import store as stores
from lab.store.run import BURY, MAIL, Run
from lab.store.script import PUSH, REGISTER
from lab.store.store import Store
from tests.kit.proxy import Proxy
from tests.kit.server import Server
from tests.kit.wait import until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture
def other(run: Run, server: Server) -> Run:
    """The same program past the proxy: the holder for whom the tested one waits."""
    return Run(run.settings, Store(server.url), run.id, run.me)


_numbers = itertools.count()


def pair(run: Run, other: Run, kind: int = SEMAPHORE, owned: bool = True) -> tuple[SemLock, SemLock]:
    """One lock, as both know it."""
    key = run.new_name(f"lock{next(_numbers)}")
    return SemLock(run, key, kind, 1, 1, owned), SemLock(other, key, kind, 1, 1, owned)


def waiting(lock: SemLock, other: Run) -> int:
    return int(other.store.call("LLEN", f"{lock.name}:waiters"))


def contend(mine: SemLock, theirs: SemLock) -> None:
    """Have a lock wait once, after which it asks and waits in one round trip."""
    theirs.acquire()

    def take_turns() -> None:
        with mine:
            pass

    thread = threading.Thread(target=take_turns)
    thread.start()
    until(lambda: waiting(mine, theirs.run), "it waits", 10)
    theirs.release()
    thread.join(10)
    assert mine._crowded is mine.owned


@pytest.mark.parametrize("crowded", [False, True])
@pytest.mark.parametrize("owned", [True, False])
def test_a_place_whose_token_is_lost_is_taken_once(
    run: Run, other: Run, proxy: Proxy, crowded: bool, owned: bool
) -> None:
    mine, theirs = pair(run, other, owned=owned)
    if crowded:
        contend(mine, theirs)
    for _ in range(5):
        theirs.acquire()
        got = threading.Event()
        thread = threading.Thread(target=lambda got=got: mine.acquire() and got.set())
        thread.start()
        until(lambda: waiting(mine, other), "it waits", 10)
        proxy.lose_replies(1)
        theirs.release()
        assert got.wait(10)
        assert not theirs.acquire(block=False)
        mine.release()
        thread.join()
    assert theirs.acquire(block=False)
    theirs.release()


def test_a_crowded_lock_whose_first_reply_is_lost_is_taken_once(run: Run, other: Run, proxy: Proxy) -> None:
    mine, theirs = pair(run, other)
    for _ in range(5):
        contend(mine, theirs)
        proxy.lose_replies(1)
        assert mine.acquire(timeout=10)  # it is free: the token says so at once
        assert not theirs.acquire(block=False)
        mine.release()
    assert theirs.acquire(block=False)


def test_a_crowded_lock_whose_request_is_lost_is_asked_for_again(run: Run, other: Run) -> None:
    mine, theirs = pair(run, other)
    contend(mine, theirs)
    run.store.wait(lambda _: ("PING",), 1)  # so that this thread has a connection to wait on
    run.store._own_lane().link._connection._sock.shutdown(socket.SHUT_RDWR)
    assert mine.acquire(timeout=10)
    assert not theirs.acquire(block=False)
    mine.release()
    assert theirs.acquire(block=False)


def test_a_lock_that_was_free_is_asked_for_alone_the_next_time(run: Run, other: Run) -> None:
    mine, theirs = pair(run, other)
    contend(mine, theirs)
    assert mine.acquire(timeout=5)
    assert not mine._crowded
    mine.release()
    assert other.store.call("EXISTS", f"{mine.name}:waiters") == 0


def test_a_crowded_lock_that_is_not_free_in_time_leaves_no_ticket(run: Run, other: Run) -> None:
    mine, theirs = pair(run, other, RECURSIVE_MUTEX)
    contend(mine, theirs)
    theirs.acquire()
    assert not mine.acquire(timeout=0.2)
    assert waiting(mine, other) == 0
    theirs.release()
    assert mine.acquire(timeout=5)


@pytest.mark.parametrize("crowded", [False, True])
def test_an_interrupt_just_as_the_lock_was_got_gives_it_back(
    run: Run, other: Run, monkeypatch: pytest.MonkeyPatch, crowded: bool
) -> None:
    mine, theirs = pair(run, other)
    if crowded:
        contend(mine, theirs)
    name = "wait" if crowded else "call"
    method = getattr(run.store, name)

    def interrupted(*args: Any, **kwds: Any) -> Any:
        method(*args, **kwds)  # Redis has given the place; the interrupt comes before anybody has looked at the reply
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(run.store, name, interrupted)
    with pytest.raises(KeyboardInterrupt):
        mine.acquire()
    assert theirs.acquire(block=False)


def test_an_interrupt_before_the_lock_was_asked_for_gives_back_nothing(
    run: Run, other: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, theirs = pair(run, other)
    theirs.acquire()

    def interrupted(*_: Any) -> Any:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(run.store, "call", interrupted)
    with pytest.raises(KeyboardInterrupt):
        mine.acquire()
    assert not mine.acquire(block=False)  # it is still theirs
    theirs.release()


def test_who_is_taken_for_dead_is_refused_and_leaves_no_journal(run: Run, server: Server, proxy: Proxy) -> None:
    child = Run(run.settings, Store(proxy.url, patience=5), run.id, "child")
    run.store.call("ZADD", run.key("processes"), run.server_ms() + 60_000, "child")
    source, journal = run.new_name("list"), run.key("journal", "child")
    child.eval(PUSH, [source], "in time")
    assert run.store.call("EXISTS", journal)
    run.eval(BURY, [run.mailbox], "child", "letter", 0, 0)
    assert not run.store.call("EXISTS", journal)
    with pytest.raises(LeaseLost):
        child.eval(PUSH, [source], "late")
    child.eval(MAIL, [run.new_name("mail")], "may be sent by anybody")
    child.eval(REGISTER, [run.new_name("key")])
    with pytest.raises(LeaseLost):
        child.eval(PUSH, [source], "after what was not refused")
    assert run.store.call("LRANGE", source, 0, -1) == [b"in time"]
    assert not run.store.call("EXISTS", journal)  # nothing there by which it could be taken for alive


def test_who_is_taken_for_dead_while_its_reply_is_lost_hears_so(run: Run, server: Server, proxy: Proxy) -> None:
    child = Run(run.settings, Store(proxy.url, patience=5), run.id, "child")
    run.store.call("ZADD", run.key("processes"), run.server_ms() + 60_000, "child")
    source = run.new_name("list")
    child.eval(PUSH, [source], "first")
    child.post(PUSH, [source], "second")
    child.store._lane.link.close()  # broken, and nobody has noticed
    run.eval(BURY, [run.mailbox], "child", "letter", 0, 0)
    with pytest.raises(LeaseLost):
        child.store.settle()
    assert child.store.call("PING") == b"PONG"  # the lane is of use to the next


@pytest.mark.parametrize("crowded", [False, True])
@pytest.mark.parametrize("owned", [True, False])
def test_who_is_taken_for_dead_while_it_waits_is_not_given_the_place(
    run: Run, other: Run, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, crowded: bool, owned: bool
) -> None:
    child = Run(run.settings, Store(proxy.url, patience=5), run.id, "child")
    run.store.call("ZADD", run.key("processes"), run.server_ms() + 60_000, "child")
    mine, theirs = pair(child, other, owned=owned)
    monkeypatch.setattr(stores, "SLICE", 0.3)
    if crowded:
        contend(mine, theirs)
    theirs.acquire()
    with ThreadPoolExecutor(1) as threads:
        got = threads.submit(mine.acquire)
        until(lambda: waiting(mine, other), "it waits", 10)
        time.sleep(0.4)  # one slice of the wait: what asked for the place is not sent again
        other.eval(BURY, [run.mailbox], "child", "letter", 0, 0)
        theirs.release()  # throws the ticket away
        assert theirs.acquire(block=False)
        proxy.lose_replies(1)
        with pytest.raises(LeaseLost):
            got.result(10)
    theirs.release()


def test_who_is_taken_for_dead_is_not_given_a_place_when_its_time_is_up(run: Run, other: Run, proxy: Proxy) -> None:
    child = Run(run.settings, Store(proxy.url, patience=5), run.id, "child")
    run.store.call("ZADD", run.key("processes"), run.server_ms() + 60_000, "child")
    mine, theirs = pair(child, other, owned=False)
    theirs.acquire()
    with ThreadPoolExecutor(1) as threads:
        got = threads.submit(mine.acquire, True, 1.5)
        until(lambda: waiting(mine, other), "it waits", 10)
        other.eval(BURY, [run.mailbox], "child", "letter", 0, 0)
        theirs.release()
        assert theirs.acquire(block=False)
        with pytest.raises(LeaseLost):
            got.result(10)
    theirs.release()
