"""Lock, RLock, Semaphore, BoundedSemaphore, Condition, Event and Barrier, with multiprocessing's signatures and exceptions.

Differs from multiprocessing: a timeout runs out only when nobody else can go on; who is notified is who has waited longest.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from lab.explored.operation import Place, Touch
from lab.explored.scheduler import Worker, active, current
from lab.explored.shared import Held, Shared

TOO_OFTEN = "semaphore or lock released too many times"


class Lock(Held, Shared):
    """A lock; any process may release it."""

    kind = inherited = "Lock"
    _recursive = False

    def __init__(self, label: str = "") -> None:
        super().__init__(label)
        self.owner: Worker | None = None
        self.owner_at: Place = ("", 0)
        self._count = 0

    def state(self) -> Any:
        """Who holds it, how often."""
        return self.owner.key if self.owner else None, self._count

    def show(self) -> str:
        """Who holds it."""
        return self.owner.key if self.owner else "free"

    def free_for(self, worker: Worker) -> bool:
        """Whether a worker could acquire it now."""
        return self._count == 0 or (self._recursive and self.owner is worker)

    def take(self) -> bool:
        """Acquire it, as a part of an operation."""
        me = current()
        if not self.free_for(me):
            return False
        if self._count == 0:
            step = active().trace[-1]
            self.owner, self.owner_at = me, step.where
        self._count += 1
        return True

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Lock, waiting at most ``timeout`` seconds; whether it is now ours."""
        me = current()
        if not block:
            return bool(self._do("try", self.take, note=lambda got: "got it" if got else "not free"))
        return bool(self._do("acquire", self.take, lambda: self.free_for(me), timeout=timeout))

    def release(self) -> None:
        """Unlock."""
        self._do("release", self._release)

    def _release(self) -> None:
        if self._recursive and self.owner is not current():
            raise AssertionError("attempt to release recursive lock not owned by thread")
        if self._count == 0:
            raise ValueError(TOO_OFTEN)
        self.drop(self._count - 1)

    def drop(self, count: int) -> None:
        """Go down to so many levels, as a part of an operation."""
        self._count = count
        if count == 0:
            self.owner = None

    @property
    def count(self) -> int:
        """How often it is held."""
        return self._count

    def locked(self) -> bool:
        """Whether anybody holds it."""
        return bool(self._do("locked", lambda: self._count > 0, writes=False))


class RLock(Lock):
    """A lock that its holder may acquire again."""

    kind = inherited = "RLock"
    _recursive = True


class Semaphore(Held, Shared):
    """A number that is not to fall below 0."""

    kind = inherited = "Semaphore"

    def __init__(self, value: int = 1) -> None:
        if value < 0:
            raise ValueError("semaphore initial value must be >= 0")
        super().__init__()
        self._value = self._first = value

    def state(self) -> Any:
        """Its number."""
        return self._value

    def show(self) -> str:
        """Its number."""
        return str(self._value)

    def _take(self) -> bool:
        if self._value == 0:
            return False
        self._value -= 1
        return True

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Take one, waiting at most ``timeout`` seconds; whether it worked."""
        if not block:
            return bool(self._do("try", self._take, note=lambda got: "got it" if got else "none left"))
        return bool(self._do("acquire", self._take, lambda: self._value > 0, timeout=timeout))

    def release(self) -> None:
        """Give one back."""
        self._do("release", self._release)

    def _release(self) -> None:
        self._value += 1

    def get_value(self) -> int:
        """How often it can be acquired without waiting."""
        return int(self._do("get_value", lambda: self._value, writes=False, note=str))


class BoundedSemaphore(Semaphore):
    """A Semaphore that cannot be released above its first value."""

    inherited = "BoundedSemaphore"

    def _release(self) -> None:
        if self._value >= self._first:
            raise ValueError(TOO_OFTEN)
        super()._release()


class _Waiter:
    """One call of ``Condition.wait``."""

    def __init__(self, worker: Worker) -> None:
        self.worker, self.notified = worker, False


class Condition(Held, Shared):
    """A condition variable: ``wait`` lets go of the lock and waits in one step, and is woken with the lock in hand."""

    kind = inherited = "Condition"

    def __init__(self, lock: Any = None) -> None:
        super().__init__()
        self._lock: Lock = lock if lock is not None else RLock(f"{self.label}'s lock")
        self._waiters: list[_Waiter] = []

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Acquire its lock."""
        return self._lock.acquire(block, timeout)

    def release(self) -> None:
        """Release its lock."""
        self._lock.release()

    def state(self) -> Any:
        """Who waits, and who has been notified."""
        return tuple((waiter.worker.key, waiter.notified) for waiter in self._waiters)

    def show(self) -> str:
        """How many wait."""
        return f"{sum(not waiter.notified for waiter in self._waiters)} waiting"

    def _also(self, writes: bool = True) -> tuple[Touch, ...]:
        return (self._lock.touch(writes),)

    def _check(self, words: str) -> None:
        if self._lock.owner is not current():
            raise AssertionError(words)

    def wait(self, timeout: float | None = None) -> bool:
        """Let go of the lock, wait to be notified, lock again; False when the time ran out."""
        self._check("must acquire() condition before using wait()")
        me = current()
        waiter, levels = _Waiter(me), self._lock.count

        def sleep() -> None:
            self._lock.drop(0)
            self._waiters.append(waiter)

        def wake() -> bool:
            self._waiters.remove(waiter)
            self._lock.take()
            self._lock.drop(levels)
            return True

        def give_up() -> bool:
            self._waiters.remove(waiter)
            return False

        self._do("wait", sleep, also=self._also())
        ready = self._do(
            "wake",
            wake,
            lambda: waiter.notified and self._lock.free_for(me),
            also=self._also(),
            timeout=timeout,
            expire=give_up,
        )
        if not ready:
            for _ in range(levels):
                self._lock.acquire()
        return bool(ready)

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        """Wait until a predicate is true; its last value."""
        deadline = None if timeout is None else active().now + timeout
        while not (result := predicate()):
            left = None if deadline is None else deadline - active().now
            if left is not None and left <= 0:
                break
            self.wait(left)
        return result

    def notify(self, n: int = 1) -> None:
        """Wake up to ``n`` waiting processes."""
        self._check("lock is not owned")

        def act() -> int:
            woken = [waiter for waiter in self._waiters if not waiter.notified][:n]
            for waiter in woken:
                waiter.notified = True
            return len(woken)

        self._do("notify", act, also=self._also(writes=False), note=lambda woken: f"wakes {woken}")

    def notify_all(self) -> None:
        """Wake all waiting processes."""
        self.notify(1 << 30)


class Event(Shared):
    """A flag to wait for."""

    kind = "Event"
    inherited = "Condition"

    def __init__(self) -> None:
        super().__init__()
        self._flag = False

    def state(self) -> Any:
        """The flag."""
        return self._flag

    def show(self) -> str:
        """The flag."""
        return "set" if self._flag else "unset"

    def is_set(self) -> bool:
        """Whether it is set."""
        return bool(self._do("is_set", lambda: self._flag, writes=False, note=str))

    def _put(self, flag: bool) -> None:
        self._flag = flag

    def set(self) -> None:
        """Set it; all who wait go on."""
        self._do("set", lambda: self._put(True))

    def clear(self) -> None:
        """Unset it."""
        self._do("clear", lambda: self._put(False))

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set; False when the time ran out."""
        return bool(self._do("wait", lambda: True, lambda: self._flag, writes=False, timeout=timeout))


class Barrier(Shared):
    """A gate that opens when so many have come to it, again and again."""

    kind = "Barrier"
    inherited = "Condition"

    def __init__(self, parties: int, action: Callable[[], object] | None = None, timeout: float | None = None) -> None:
        super().__init__()
        self.parties, self._action, self._timeout = parties, action, timeout
        self._round, self._inside, self._broken = 0, 0, False
        self._broken_rounds: set[int] = set()

    def state(self) -> Any:
        """How many are inside; the number of the round only as far as somebody is still in it."""
        return self._inside, self._broken

    def show(self) -> str:
        """How many are inside."""
        return "broken" if self._broken else f"{self._inside} of {self.parties}"

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the others; which one of them this was.

        Raises:
            threading.BrokenBarrierError: It was aborted or reset, or the time of one of them ran out.
        """
        timeout = self._timeout if timeout is None else timeout
        index, mine = self._do("arrive", self._arrive, lambda: self._inside < self.parties or self._broken)
        if index == self.parties - 1:
            if self._action is not None:
                try:
                    self._action()
                except BaseException:
                    self.abort()
                    raise
                self._do("open", self._open)
            return int(index)
        self._do(
            "pass",
            lambda: self._pass(mine),
            lambda: self._round != mine or self._broken or mine in self._broken_rounds,
            writes=False,
            timeout=timeout,
            expire=self._give_up,
        )
        return int(index)

    def _arrive(self) -> tuple[int, int]:
        if self._broken:
            raise threading.BrokenBarrierError
        self._inside += 1
        if self._inside == self.parties and self._action is None:
            self._open()
            return self.parties - 1, self._round
        return self._inside - 1, self._round

    def _open(self) -> None:
        self._round, self._inside = self._round + 1, 0

    def _pass(self, mine: int) -> None:
        if mine in self._broken_rounds or (self._broken and self._round == mine):
            raise threading.BrokenBarrierError

    def _give_up(self) -> None:
        self._broken = True
        raise threading.BrokenBarrierError

    def abort(self) -> None:
        """Break it: all who wait, and all who come, get BrokenBarrierError."""

        def act() -> None:
            self._broken = True

        self._do("abort", act)

    def reset(self) -> None:
        """Make it anew; whoever waits gets BrokenBarrierError."""

        def act() -> None:
            if self._inside:
                self._broken_rounds.add(self._round)
            self._broken = False
            self._open()

        self._do("reset", act)

    @property
    def n_waiting(self) -> int:
        """How many wait now."""
        return int(self._do("n_waiting", lambda: self._inside, writes=False))

    @property
    def broken(self) -> bool:
        """Whether it is broken."""
        return bool(self._do("broken", lambda: self._broken, writes=False))
