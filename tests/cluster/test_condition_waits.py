"""Waiting for a condition: whatever is lost or interrupted, whoever has waited has the lock, once, and stands in no line."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lab.cluster.synchronize import SEMAPHORE, STEP_ASIDE, Condition, Lock, SemLock
from lab.errors import LeaseLost
from lab.store.run import BURY, Run
from lab.store.store import Store
from tests.kit.proxy import Proxy
from tests.kit.server import Server
from tests.kit.wait import until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("valkey")) as server:
        yield server


class Side:
    """A lock and its condition, as one of two processes knows them."""

    def __init__(self, run: Run, name: str, owned: bool) -> None:
        self.run, self.name = run, name
        self.semlock = SemLock(run, f"{name}:lock", SEMAPHORE, 1, 1, owned)
        lock = Lock.__new__(Lock)
        lock._semlock = self.semlock
        lock._make_methods()
        self.condition = Condition.__new__(Condition)
        self.condition.__setstate__((lock, name))

    def in_line(self) -> tuple[int, int]:
        """How many wait to be notified, and how many for the lock."""
        call = self.run.store.call
        return call("LLEN", self.name), call("LLEN", f"{self.semlock.name}:waiters")

    def notify(self) -> None:
        """Notify one."""
        with self.condition:
            self.condition.notify()


@pytest.fixture
def sides(request: pytest.FixtureRequest, run: Run, server: Server) -> tuple[Side, Side]:
    """That of a process whose connections go through the proxy, and that of another which knows the same run."""
    owned = getattr(request, "param", True)
    past = Run(run.settings, Store(server.url), run.id, run.me)
    name = run.new_name("condition")
    return Side(run, name, owned), Side(past, name, owned)


def has_the_lock_once(mine: Side, theirs: Side) -> None:
    """Assert that the lock is ours, that to release it frees it, and that nothing of a wait is left."""
    assert mine.in_line() == (0, 0)
    assert not theirs.semlock.acquire(block=False)
    mine.semlock.release()
    assert theirs.semlock.acquire(block=False)
    theirs.semlock.release()
    assert theirs.run.store.call("KEYS", theirs.run.key("wake", "*")) == []


both_kinds = pytest.mark.parametrize("sides", [True, False], ids=["lock", "semaphore"], indirect=True)


def once(
    patch: pytest.MonkeyPatch, owner: Any, name: str, instead: Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]
) -> None:
    """Have the next call of a method be another, which gets the method."""
    method = getattr(owner, name)

    def other(*args: Any, **kwds: Any) -> Any:
        setattr(owner, name, method)
        return instead(method, args, kwds)

    patch.setattr(owner, name, other)


def interrupted_before(method: Any, args: tuple[Any, ...], kwds: dict[str, Any]) -> Any:
    raise KeyboardInterrupt


def interrupted_after(method: Any, args: tuple[Any, ...], kwds: dict[str, Any]) -> Any:
    method(*args, **kwds)
    raise KeyboardInterrupt


@both_kinds
@pytest.mark.parametrize("moment", [interrupted_before, interrupted_after])
def test_an_interrupt_as_the_ticket_is_handed_in(
    sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch, moment: Any
) -> None:
    mine, theirs = sides
    mine.condition.acquire()
    once(monkeypatch, mine.run.store, "call", moment)
    with pytest.raises(KeyboardInterrupt):
        mine.condition.wait(10)
    has_the_lock_once(mine, theirs)


@both_kinds
def test_an_interrupt_before_anybody_notifies(sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch) -> None:
    mine, theirs = sides
    mine.condition.acquire()
    once(monkeypatch, mine.run.store, "wait", interrupted_before)
    with pytest.raises(KeyboardInterrupt):
        mine.condition.wait(10)
    has_the_lock_once(mine, theirs)


@both_kinds
def test_an_interrupt_of_who_was_notified_and_waits_for_the_lock(
    sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, theirs = sides
    mine.condition.acquire()
    noticed = threading.Timer(0.3, theirs.semlock.release)

    def moment(method: Any, args: tuple[Any, ...], kwds: dict[str, Any]) -> Any:
        theirs.semlock.acquire()
        theirs.condition.notify()
        theirs.run.store.settle()
        assert theirs.in_line() == (0, 1)
        noticed.start()
        raise KeyboardInterrupt

    once(monkeypatch, mine.run.store, "wait", moment)
    with pytest.raises(KeyboardInterrupt):
        mine.condition.wait(10)
    noticed.join()
    has_the_lock_once(mine, theirs)


@both_kinds
def test_an_interrupt_just_as_the_lock_was_handed_over(
    sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, theirs = sides
    mine.condition.acquire()

    def moment(method: Any, args: tuple[Any, ...], kwds: dict[str, Any]) -> Any:
        theirs.notify()
        return interrupted_after(method, args, kwds)  # with the token, which nobody has looked at

    once(monkeypatch, mine.run.store, "wait", moment)
    with pytest.raises(KeyboardInterrupt):
        mine.condition.wait(10)
    has_the_lock_once(mine, theirs)


@both_kinds
def test_who_is_not_notified_in_time_has_the_lock_again(sides: tuple[Side, Side]) -> None:
    mine, theirs = sides
    mine.condition.acquire()
    assert mine.condition.wait(0.05) is False
    has_the_lock_once(mine, theirs)


@both_kinds
@pytest.mark.parametrize("released", [True, False])
def test_who_is_notified_just_after_its_time_was_notified(
    sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch, released: bool
) -> None:
    mine, theirs = sides
    mine.condition.acquire()
    later = threading.Timer(0.3, theirs.semlock.release)

    def moment(method: Any, args: tuple[Any, ...], kwds: dict[str, Any]) -> Any:
        theirs.semlock.acquire()
        theirs.condition.notify()
        if released:
            theirs.semlock.release()
        else:
            later.start()
        return method(*args, **kwds)

    once(monkeypatch, mine.semlock, "_come_back", moment)
    assert mine.condition.wait(0.05) is True
    if not released:
        later.join()
    has_the_lock_once(mine, theirs)


@both_kinds
def test_a_token_that_is_lost_is_replaced(sides: tuple[Side, Side], proxy: Proxy) -> None:
    mine, theirs = sides
    for _ in range(5):
        mine.condition.acquire()
        with ThreadPoolExecutor(1) as threads:
            notified = threads.submit(theirs.run.store.call, "PING")  # a thread is there
            notified.result()

            def notify() -> None:
                until(lambda: theirs.in_line() == (1, 0), "it waits", 10)
                proxy.lose_replies(1)
                theirs.notify()

            notified = threads.submit(notify)
            assert mine.condition.wait(20) is True
            notified.result()
        has_the_lock_once(mine, theirs)


@both_kinds
def test_a_step_aside_whose_reply_is_lost_is_taken_once(sides: tuple[Side, Side], proxy: Proxy) -> None:
    mine, theirs = sides
    mine.condition.acquire()
    proxy.lose_replies(1)
    with ThreadPoolExecutor(1) as threads:
        in_line = threads.submit(until, lambda: theirs.in_line() == (1, 0), "it waits, once", 10)
        woken = threads.submit(theirs.notify)
        assert mine.condition.wait(20) is True
        in_line.result()
        woken.result()
    assert proxy.lost == 1
    has_the_lock_once(mine, theirs)


def test_who_dies_with_a_notification_keeps_nobody_from_the_lock(sides: tuple[Side, Side], server: Server) -> None:
    _, theirs = sides
    child = Run(theirs.run.settings, Store(server.url), theirs.run.id, "child")
    theirs.run.store.call("ZADD", theirs.run.key("processes"), theirs.run.server_ms() + 60_000, "child")
    dying = Side(child, theirs.name, True)
    dying.condition.acquire()
    child.eval(STEP_ASIDE, [dying.semlock.name, dying.name], 1, 1, 1, child.new_ticket())
    theirs.condition.acquire()
    theirs.condition.notify()
    theirs.run.store.settle()
    assert theirs.in_line() == (0, 1)
    theirs.run.eval(BURY, [theirs.run.mailbox], "child", "letter", 0, 0)
    theirs.condition.release()
    assert theirs.condition.acquire(False)
    with pytest.raises(LeaseLost):
        child.eval(STEP_ASIDE, [dying.semlock.name, dying.name], 1, 1, 1, child.new_ticket())
    theirs.condition.release()


def test_all_that_are_notified_get_the_lock_one_after_the_other(sides: tuple[Side, Side]) -> None:
    mine, theirs = sides
    inside, most = [0], [0]

    def wait() -> bool:
        side = Side(mine.run, mine.name, True)
        with side.condition:
            came = side.condition.wait(20)
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            inside[0] -= 1
            return bool(came)

    with ThreadPoolExecutor(5) as threads:
        waiters = [threads.submit(wait) for _ in range(5)]
        until(lambda: theirs.in_line() == (5, 0), "all wait", 10)
        with theirs.condition:
            theirs.condition.notify(2)
            theirs.condition.notify_all()
            theirs.run.store.settle()
            assert theirs.in_line() == (0, 5)
        assert [waiter.result(20) for waiter in waiters] == [True] * 5
    assert most == [1]


def test_a_semaphore_with_places_left_wakes_who_is_notified_at_once(run: Run) -> None:
    semlock = SemLock(run, run.new_name("sem"), SEMAPHORE, 3, 3, False)
    name = run.new_name("condition")
    with ThreadPoolExecutor(1) as threads:

        def wait() -> bool:
            semlock.acquire()
            return semlock.step_aside(name, 10)

        woken = threads.submit(wait)
        until(lambda: run.store.call("LLEN", name) == 1, "it waits", 10)
        condition = Condition.__new__(Condition)
        lock = Lock.__new__(Lock)
        lock._semlock = SemLock(run, semlock.name, SEMAPHORE, 3, 3, False)
        lock._make_methods()
        condition.__setstate__((lock, name))
        with condition:
            condition.notify()
            assert woken.result(5) is True
    assert semlock._get_value() == 2
