"""What a manager hands out that blocks: the cluster's primitives behind the interface of ``threading`` and ``queue``.

A manager of multiprocessing serves ``threading.Lock``, ``queue.Queue`` and so on from its process, so these are the
signatures and errors that its proxies pass on. Here each is a thin face on the primitive of ``synchronize`` or ``queues``.

On Redis: as the primitives; a queue counts what is not done yet in hash ``queue:ID:count``.

Differs from multiprocessing: a Lock or RLock whose holder was killed or failed is free again.
"""

from __future__ import annotations

import time
from queue import Empty, Full
from typing import Any

from lab import buffers
from lab.cluster.managers import objects
from lab.cluster.queues import Channel
from lab.store.run import Run
from lab.store.script import Script

PUT = Script(
    """
redis.call('HINCRBY', KEYS[4], 'unfinished', 1)
create(KEYS[4])
push(KEYS[3], ARGV[3])
return 1
""",
    fenced=True,
)

DONE = Script(
    """
if tonumber(redis.call('HGET', KEYS[3], 'unfinished') or 0) < 1 then return -1 end
return redis.call('HINCRBY', KEYS[3], 'unfinished', -1)
""",
    fenced=True,
)

UNFINISHED = Script("return tonumber(redis.call('HGET', KEYS[3], 'unfinished') or 0)", numbered=False)

MOST = 1 << 26
"""Bytes that a queue holds before ``put`` waits; in multiprocessing they lie in the memory of the manager's server."""

_held: dict[str, Any] = {}
"""Locks that this process holds, with their managed objects: holding one keeps it, even without a proxy."""


class Lock:
    """``threading.Lock`` on every host."""

    kind = "Lock"
    managed: str | None = None
    error = "release unlocked lock"

    def __init__(self, *, ctx: Any) -> None:
        self.primitive = getattr(ctx, self.kind)()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take it; whether it was taken."""
        if not blocking and timeout != -1:
            raise ValueError("can't specify a timeout for a non-blocking call")
        if timeout < 0 and timeout != -1:
            raise ValueError("timeout value must be a non-negative number")
        taken = bool(self.primitive.acquire(blocking, None if timeout == -1 else timeout))
        if taken:
            self._count(1)
        if taken and self.managed is not None:
            _note_held(self.managed, self)
        return taken

    def release(self) -> None:
        """Give it back.

        Raises:
            RuntimeError: Nobody holds it.
        """
        self._count(1)
        try:
            self.primitive.release()
        except (ValueError, AssertionError):
            self._count(0)
            raise RuntimeError(self.error) from None
        if self.managed is not None and self.primitive._semlock._count() <= 0:
            _held.pop(self.managed, None)

    def locked(self) -> bool:
        """Whether somebody holds it; proxies have this since Python 3.14."""
        return bool(self.primitive._semlock._is_zero())

    def _count(self, holds: int) -> None:
        # The primitive counts what this process took and gave back, but another process may have done one of the two.
        self.primitive._semlock._holds = holds

    def __reduce__(self) -> Any:
        if self.managed is None:
            return _rebuild, (type(self), self.__dict__)
        objects.find("live", self.managed).travels()
        return _managed, (self.managed,)

    def __repr__(self) -> str:
        return repr(self.primitive)


def _rebuild(kind: type[Lock], state: dict[str, Any]) -> Any:
    lock = kind.__new__(kind)
    lock.__dict__.update(state)
    return lock


def _managed(key: str) -> Any:
    return objects.find("live", key).primitive


def _note_held(key: str, lock: Lock) -> None:
    _held[key] = lock, objects.find("live", key)


class RLock(Lock):
    """``threading.RLock`` on every host."""

    kind = "RLock"
    error = "cannot release un-acquired lock"

    def _count(self, holds: int) -> None:
        """Do nothing: only the thread that took it gives it back."""


class Semaphore:
    """``threading.Semaphore`` on every host."""

    kind = "Semaphore"

    def __init__(self, value: int = 1, *, ctx: Any) -> None:
        self.primitive = getattr(ctx, self.kind)(value)

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """Take a place; whether one was taken."""
        if not blocking and timeout is not None:
            raise ValueError("can't specify timeout for non-blocking acquire")
        return bool(self.primitive.acquire(blocking, timeout))

    def release(self) -> None:
        """Give a place back."""
        self.primitive.release()

    def __repr__(self) -> str:
        return repr(self.primitive)


class BoundedSemaphore(Semaphore):
    """``threading.BoundedSemaphore`` on every host."""

    kind = "BoundedSemaphore"

    def release(self) -> None:
        """Give a place back.

        Raises:
            ValueError: All are there.
        """
        try:
            self.primitive.release()
        except ValueError:
            raise ValueError("Semaphore released too many times") from None


class Condition:
    """``threading.Condition`` on every host.

    Args:
        lock: A managed Lock or RLock, or its proxy; an RLock of its own when None.
    """

    def __init__(self, lock: Any = None, *, ctx: Any) -> None:
        shared = getattr(lock, "_shared", None)
        self.lock = RLock(ctx=ctx) if lock is None else shared.primitive if isinstance(shared, objects.Live) else lock
        if not isinstance(self.lock, Lock):
            raise TypeError(f"the lock of a managed Condition must be a managed Lock or RLock, not {lock!r}")
        self.primitive = ctx.Condition(self.lock.primitive)

    def acquire(self, *args: Any) -> bool:
        """Take its lock."""
        return self.lock.acquire(*args)

    def release(self) -> None:
        """Give its lock back."""
        self.lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        """Give the lock back, wait to be notified, take the lock again; whether we were notified in time."""
        self._check("cannot wait on un-acquired lock")
        return bool(self.primitive.wait(timeout))

    def notify(self, n: int = 1) -> None:
        """Wake up to n of those that wait."""
        self._check("cannot notify on un-acquired lock")
        self.primitive.notify(n)

    def notify_all(self) -> None:
        """Wake all that wait."""
        self._check("cannot notify on un-acquired lock")
        self.primitive.notify_all()

    def _check(self, error: str) -> None:
        if not self.lock.primitive._semlock._is_mine():
            raise RuntimeError(error)

    def __getstate__(self) -> Any:
        return self.lock, self.primitive._name

    def __setstate__(self, state: Any) -> None:
        from lab.cluster.synchronize import Condition

        self.lock, name = state
        self.primitive = Condition.__new__(Condition)
        self.primitive.__setstate__((self.lock.primitive, name))

    def __repr__(self) -> str:
        return repr(self.primitive)


class Queue:
    """``queue.Queue`` on every host: ``put`` has sent the item when it returns, ``join`` waits until all are done.

    Args:
        maxsize: Room for items; without bound if 0 or less.
    """

    managed: str | None = None

    def __init__(self, maxsize: int = 0, *, ctx: Any) -> None:
        run: Run = ctx.connect()
        self.channel = Channel.new(run, MOST)
        self.count = f"{self.channel.key}:count"
        self.room = ctx.Semaphore(maxsize) if maxsize > 0 else None
        self.all_done = ctx.Condition()

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Append an item.

        Raises:
            queue.Full: There was no room in time.
        """
        parts = buffers.dumps(item)
        if self.room is not None and not self.room.acquire(block, _checked(block, timeout)):
            raise Full
        if not self.channel.backlog.wait(buffers.size(parts), _checked(block, timeout) if block else 0):
            if self.room is not None:
                self.room.release()
            raise Full
        run, key = self.channel.run, self.channel.key
        # One script: excluded, a process killed between the two, and an item that is done before it counts as put.
        run.post(PUT, [key, self.count], self.channel.seal(*parts))

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the first item.

        Raises:
            queue.Empty: There was none in time.
        """
        payload = self._take(block, _checked(block, timeout))
        if payload is None:
            raise Empty
        if self.room is not None:
            self.room.release()
        return buffers.loads(payload)

    def _take(self, block: bool, timeout: float | None) -> memoryview | None:
        if not block or (timeout is not None and timeout <= objects.CHECK):
            return self.channel.take(block, timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        while deadline is None or time.monotonic() < deadline:
            left = objects.CHECK if deadline is None else min(objects.CHECK, deadline - time.monotonic())
            payload = self.channel.take(block, left)
            # or who waits at a queue whose manager was shut down would wait for ever; Live.call tells
            if payload is not None or (self.managed and not objects.find("live", self.managed).exists()):
                return payload
        return None

    def put_nowait(self, item: Any) -> None:
        """Append an item if there is room now."""
        self.put(item, False)

    def get_nowait(self) -> Any:
        """Take the first item if there is one now."""
        return self.get(False)

    def task_done(self) -> None:
        """Report an item done.

        Raises:
            ValueError: More were reported than had been put.
        """
        left = self.channel.run.eval(DONE, [self.count])
        if left < 0:
            raise ValueError("task_done() called too many times")
        if left == 0:
            with self.all_done:
                self.all_done.notify_all()

    def join(self) -> None:
        """Wait until every item is done."""
        with self.all_done:
            while self.channel.run.eval(UNFINISHED, [self.count]):
                self.all_done.wait()

    def qsize(self) -> int:
        """Items waiting."""
        return self.channel.length()

    def empty(self) -> bool:
        """Whether none waits."""
        return self.qsize() == 0

    def full(self) -> bool:
        """Whether there is no room."""
        return self.room is not None and bool(self.room._semlock._is_zero())


def _checked(block: bool, timeout: float | None) -> float | None:
    if block and timeout is not None and timeout < 0:
        raise ValueError("'timeout' must be a non-negative number")
    return timeout
