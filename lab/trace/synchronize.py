"""Locks, semaphores, conditions, events and barriers, traced."""

from __future__ import annotations

import threading
from multiprocessing import synchronize as standard
from typing import Any

from lab.trace.clock import now
from lab.trace.wrapper import Traced, gave_up, note


class Held(Traced):
    """What ``with`` acquires and releases."""

    acquire: Any
    release: Any

    def __enter__(self) -> Any:
        return self.acquire()

    def __exit__(self, *exc_info: object) -> None:
        self.release()


class TracedLock(Held):
    """Around a Lock, RLock, Semaphore or BoundedSemaphore.

    Of a lock that is taken again by who has it, the outermost time counts.
    """

    _levels: dict[int, int] | None = None

    def acquire(self, *args: Any, **kwds: Any) -> Any:
        """Take it; both the wish and the possession are noted."""
        if (levels := self._levels) is not None:
            me = threading.get_ident()
            if levels.get(me):
                levels[me] += 1
                return self._inner.acquire(*args, **kwds)
        note(now(), "wanted", self._name)
        try:
            got = self._inner.acquire(*args, **kwds)
        except BaseException as exc:
            gave_up(self._name, exc)
            raise
        note(now(), "got" if got else "gave up", self._name)
        if got and levels is not None:
            levels[me] = 1
        return got

    def release(self, *args: Any) -> None:
        """Give it back. The time is that before: whoever gets it next, gets it later."""
        if (levels := self._levels) is not None:
            me = threading.get_ident()
            if levels.get(me, 0) > 1:
                self._inner.release(*args)
                levels[me] -= 1
                return
            self._do("released", self._inner.release, *args)
            levels.pop(me, None)
            return
        self._do("released", self._inner.release, *args)


class TracedRLock(TracedLock):
    """Around an RLock."""

    def __init__(self, inner: Any, name: str, **_: Any) -> None:
        super().__init__(inner, name, _levels={})

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._inner, self._name)


class TracedCondition(Held):
    """Around a Condition, and the wrapper of its lock."""

    wait_for: Any = standard.Condition.wait_for

    _lock: TracedLock

    def __init__(self, inner: Any, name: str, lock: TracedLock | None = None) -> None:
        super().__init__(inner, name, _lock=lock or TracedRLock(inner, f"{name}'s lock"))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._inner, self._name, self._lock if self._lock._inner is not self._inner else None)

    def acquire(self, *args: Any, **kwds: Any) -> Any:
        """Take its lock."""
        return self._lock.acquire(*args, **kwds)

    def release(self) -> None:
        """Give its lock back."""
        self._lock.release()

    def wait(self, timeout: float | None = None) -> Any:
        """Give the lock back, wait, have it again. When it was asked for again only the inner one knows: at the end, here."""
        note(now(), "released", self._lock._name)
        try:
            woken = self._wait(self._inner.wait, timeout)
            note(now(), "woken" if woken else "gave up", self._name)
        finally:
            note(now(), "wanted", self._lock._name)
            note(now(), "got", self._lock._name)
        return woken

    def notify(self, n: int = 1) -> None:
        """Wake up to n of those that wait."""
        self._do("notified", self._inner.notify, n, more={"count": n})

    def notify_all(self) -> None:
        """Wake all."""
        self._do("notified", self._inner.notify_all)


class TracedEvent(Traced):
    """Around an Event."""

    def set(self) -> None:
        """Set it."""
        self._do("set", self._inner.set)

    def clear(self) -> None:
        """Clear it."""
        self._do("cleared", self._inner.clear)

    def wait(self, timeout: float | None = None) -> Any:
        """Wait until it is set."""
        woken = self._wait(self._inner.wait, timeout)
        note(now(), "woken" if woken else "gave up", self._name)
        return woken


class TracedBarrier(Traced):
    """Around a Barrier."""

    def wait(self, timeout: float | None = None) -> Any:
        """Wait until all have come."""
        index = self._wait(self._inner.wait, timeout)
        note(now(), "woken", self._name, 0, {"value": index})
        return index
