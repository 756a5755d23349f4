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
from multiprocessing import context, queues, reduction, util
from queue import Empty
from typing import Any

from lab.cluster import run as runs
from lab.cluster.run import Run
from lab.cluster.script import Script
from lab.cluster.synchronize import SEM_VALUE_MAX
from lab.errors import WrongKey

OPEN = Script("create(KEYS[3])")

PUSH = Script("""
fence()
push(KEYS[3], ARGV[3])
return 1
""")

_dumps, _loads = reduction.ForkingPickler.dumps, reduction.ForkingPickler.loads


class _NoLock:
    """Stands for the locks around a pipe, which a list does not need."""

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        return True

    def release(self) -> None:
        pass


class Room:
    """The stdlib queue's count of room: taken by put, given back by get, or by the feeder for what does not pickle.

    Args:
        sem: Places for items on all hosts; None if the queue is unbounded.
    """

    def __init__(self, sem: Any) -> None:
        self.sem = sem
        self.lock = threading.Lock()
        self.unsent = 0  # put here and not yet in Redis

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
        self.leave()

    def leave(self) -> None:
        """Give back the room of an item that was got."""
        if self.sem is not None:
            self.sem.release()


class Channel:
    """The list behind a queue, with the methods of both ends of a pipe."""

    closed = False

    def __init__(self, run: Run, key: str) -> None:
        self.run, self.key = run, key

    @classmethod
    def new(cls, run: Run) -> Channel:
        """A list that no queue has yet."""
        channel = cls(run, run.new_name("queue"))
        run.post(OPEN, [channel.key])
        return channel

    def send_bytes(self, payload: Any) -> None:
        """Append a message; it is there before anything that this process sends later."""
        self.run.post(PUSH, [self.key], self.run.seal(self.key, payload))

    def take(self, block: bool, timeout: float | None) -> memoryview | None:
        """The first message, or None if there was none in time. What was not signed for this queue is thrown away."""
        while True:
            taken = self.run.take(self.key, timeout if block else 0)
            if not taken:
                return None
            try:
                return self.run.unseal(self.key, taken[0])
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
        """What the feeder does last: wait until everything sent has arrived."""
        self.settle()
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
        util.register_after_fork(self, queues.Queue._after_fork)  # type: ignore[attr-defined]

    def _setup(self, maxsize: int, channel: Channel, sem: Any) -> None:
        self._ignore_epipe = False
        self._maxsize, self._sem = maxsize, Room(sem)
        self._reader = self._writer = self._channel = channel
        self._rlock = self._wlock = _NoLock()
        self._opid = os.getpid()
        self._reset()  # type: ignore[attr-defined]
        self._send_bytes = self._send

    def _send(self, payload: Any) -> None:
        with self._sem.lock:  # excluded: qsize counting an item on its way and again in Redis, or in neither
            self._channel.send_bytes(payload)
            self._sem.unsent -= 1

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
        self._channel.send_bytes(_dumps(obj))
        self._channel.settle()

    def _check_closed(self) -> None:
        if self._closed:
            raise OSError("handle is closed")
