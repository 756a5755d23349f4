"""Queue, JoinableQueue and SimpleQueue: a Redis list, with the stdlib's own feeder thread in front of it.

``multiprocessing.queues.Queue`` is a pipe, a lock at each end of it, a semaphore that counts the room, and a thread that
pickles and sends what was put. Its put, feeder, close and join are used as they are; the pipe and the locks become a list,
on which Redis' pushes and pops are already atomic.

On Redis: list ``queue:ID``; EVALSHA of a push, BLMOVE to get. A bounded queue has a semaphore beside it.

Differs from multiprocessing: an item that a process has got is gone if that process dies, as in multiprocessing, but an
item that it had only put is safe once ``join_thread()`` has returned, on whatever host it was put.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import context, queues, reduction, util
from queue import Empty
from typing import Any

from lab.cluster import run as runs
from lab.cluster.claimcheck import check_in, receive
from lab.cluster.run import Run
from lab.cluster.script import PUSH, REGISTER
from lab.cluster.synchronize import SEM_VALUE_MAX
from lab.errors import LabError, WrongKey

_dumps, _loads = reduction.ForkingPickler.dumps, reduction.ForkingPickler.loads


class _NoLock:
    """Stands for the locks around a pipe, which a list does not need."""

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        return True

    def release(self) -> None:
        pass


class Outgoing:
    """What was put here and is not yet in Redis: to the stdlib's feeder its pipe, and its count of room as well.

    It does not know the queue, so that a queue which nobody uses any more ends its feeder.

    Args:
        channel: Where it goes.
        sem: Places for items on all hosts; None if the queue is unbounded.
    """

    def __init__(self, channel: Channel, sem: Any) -> None:
        self._channel, self.sem = channel, sem
        self.lock = threading.Lock()
        self.unsent = 0

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Make room for an item, as ``put`` asks."""
        if self.sem is not None and not self.sem.acquire(block, timeout):
            return False
        with self.lock:
            self.unsent += 1
        return True

    def release(self) -> None:
        """Take back the room of an item that could not be sent."""
        with self.lock:
            self.unsent -= 1
        with _told():
            self.leave()

    def leave(self) -> None:
        """Give back the room of an item that was got."""
        if self.sem is not None:
            self.sem.release()

    def send_bytes(self, payload: Any) -> None:
        """Send an item."""
        message = self._channel.seal(payload)
        with self.lock:  # excluded: qsize counting an item on its way and again in Redis, or in neither
            self._channel.push(message)
            self.unsent -= 1

    def close(self) -> None:
        """What the feeder does last: wait until everything sent has arrived."""
        with _told():
            self._channel.settle()


@contextmanager
def _told() -> Iterator[None]:
    """An error is printed. Excluded: the stdlib's feeder meeting it after the last item, and waiting for another for ever."""
    try:
        yield
    except LabError as exc:
        print(f"crosshost: {exc}", file=sys.stderr)


class Channel:
    """The list behind a queue, with what the stdlib asks of the reading end of a pipe."""

    closed = False

    def __init__(self, run: Run, key: str) -> None:
        self.run, self.key = run, key

    @classmethod
    def new(cls, run: Run) -> Channel:
        """A list that no queue has yet."""
        channel = cls(run, run.new_name("queue"))
        run.post(REGISTER, [channel.key])
        return channel

    def seal(self, payload: Any) -> Any:
        """A message, ready to be pushed."""
        return self.run.seal(self.key, *check_in(self.run, payload))

    def push(self, message: Any) -> None:
        """Append a message; it is there before anything that this process sends later."""
        self.run.post(PUSH, [self.key], message)

    def lay(self, message: Any) -> None:
        """Append a message, and wait until it is there."""
        self.run.eval(PUSH, [self.key], message)

    def take(self, block: bool, timeout: float | None) -> memoryview | None:
        """The first message, or None if there was none in time. What was not signed for this queue is thrown away."""
        while True:
            taken = self.run.take(self.key, timeout if block else 0)
            if not taken:
                return None
            try:
                return receive(self.run, self.key, taken[0])
            except WrongKey as exc:
                print(f"crosshost: {exc}", file=sys.stderr)

    recv_bytes = None

    def poll(self, timeout: float = 0.0) -> bool:
        """Whether there is a message now; OSError once the feeder of a closed queue has ended."""
        if self.closed:
            raise OSError("handle is closed")
        return self.length() > 0

    def length(self) -> int:
        """Messages waiting."""
        return int(self.run.store.call("LLEN", self.key))

    def settle(self) -> None:
        """Wait until everything sent has arrived."""
        self.run.store.settle()

    def close(self) -> None:
        """What the feeder of a closed queue says last."""
        self.closed = True

    def __getstate__(self) -> str:
        context.assert_spawning(self)
        return self.key

    def __setstate__(self, key: str) -> None:
        run = runs.current()
        assert run is not None
        self.run, self.key = run, key


class Queue(queues.Queue):  # type: ignore[type-arg]
    """A queue between hosts: put anywhere, got once.

    On Redis: list ``queue:ID``; a push for each item from the feeder thread, BLMOVE to get; a BoundedSemaphore for
    the room if there is a maxsize.

    Differs from multiprocessing: what nobody has got yet lies in Redis, not in a pipe of 64 KiB, so a process may end
    although nobody has read what it put.
    """

    def __init__(self, maxsize: int = 0, *, ctx: Any) -> None:
        channel = Channel.new(ctx.connect())
        sem = ctx.BoundedSemaphore(maxsize) if maxsize > 0 else None
        self._setup(maxsize if maxsize > 0 else SEM_VALUE_MAX, channel, sem)
        util.register_after_fork(self, Queue._after_fork)

    def _setup(self, maxsize: int, channel: Channel, sem: Any) -> None:
        self._ignore_epipe = False
        self._maxsize, self._channel = maxsize, channel
        self._sem = self._writer = Outgoing(channel, sem)
        self._reader = channel
        self._rlock = self._wlock = _NoLock()
        self._opid = os.getpid()
        self._reset()  # type: ignore[attr-defined]

    def _after_fork(self) -> None:
        self._setup(self._maxsize, self._channel, self._sem.sem)  # what the parent has put, the parent sends

    def __getstate__(self) -> Any:
        context.assert_spawning(self)
        return (self._maxsize, self._channel, self._sem.sem)

    def __setstate__(self, state: Any) -> None:
        self._setup(*state)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the first item.

        Raises:
            queue.Empty: There was none, or none in time.
            ValueError: The queue is closed here.
        """
        if self._closed:  # type: ignore[attr-defined]
            raise ValueError(f"Queue {self!r} is closed")
        payload = self._channel.take(block, timeout)
        if payload is None:
            raise Empty
        self._sem.leave()
        return _loads(payload)

    def qsize(self) -> int:
        """Items waiting, those on their way from this process included; exact only while nobody puts or gets."""
        with self._sem.lock:
            return self._channel.length() + int(self._sem.unsent)

    def empty(self) -> bool:
        """Whether no item waits.

        Raises:
            OSError: The queue is closed here, after it was used.
        """
        if self._closed and self._thread is not None:  # type: ignore[attr-defined]
            raise OSError("handle is closed")
        return not self._channel.poll()

    def full(self) -> bool:
        """Whether a put would block now."""
        return self._sem.sem is not None and bool(self._sem.sem._semlock._is_zero())


class JoinableQueue(Queue, queues.JoinableQueue):  # type: ignore[type-arg]
    """A queue whose items are counted until each is reported done.

    On Redis: as Queue, with a Semaphore that counts and a Condition to wait on.
    """

    def __init__(self, maxsize: int = 0, *, ctx: Any) -> None:
        Queue.__init__(self, maxsize, ctx=ctx)
        self._unfinished_tasks = ctx.Semaphore(0)
        self._cond = ctx.Condition()

    def __getstate__(self) -> Any:
        return (Queue.__getstate__(self), self._cond, self._unfinished_tasks)

    def __setstate__(self, state: Any) -> None:
        base, self._cond, self._unfinished_tasks = state
        Queue.__setstate__(self, base)

    put = queues.JoinableQueue.put


class SimpleQueue(queues.SimpleQueue):  # type: ignore[type-arg]
    """A queue without a feeder: ``put`` returns when Redis has the item.

    On Redis: as Queue.
    """

    def __init__(self, *, ctx: Any) -> None:
        self.__setstate__(Channel.new(ctx.connect()))

    def close(self) -> None:
        """Refuse further use here."""
        self._closed = True

    def empty(self) -> bool:
        """Whether no item waits."""
        self._check_closed()
        return not self._channel.poll()

    def __getstate__(self) -> Any:
        context.assert_spawning(self)
        return self._channel

    def __setstate__(self, channel: Any) -> None:
        self._channel, self._closed = channel, False

    def get(self) -> Any:
        """Take the first item, waiting for one."""
        self._check_closed()
        payload = self._channel.take(True, None)
        assert payload is not None
        return _loads(payload)

    def put(self, obj: Any) -> None:
        """Append an item."""
        self._check_closed()
        self._channel.lay(self._channel.seal(_dumps(obj)))

    def _check_closed(self) -> None:
        if self._closed:
            raise OSError("handle is closed")
