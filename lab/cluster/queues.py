"""Queue, JoinableQueue and SimpleQueue: a Redis list, with the stdlib's own feeder thread in front of it.

``multiprocessing.queues.Queue`` is a pipe, a lock at each end of it, a semaphore that counts the room, and a thread that
pickles and sends what was put. Its put, feeder, close and join are used as they are; the pipe and the locks become a list,
on which Redis' pushes and pops are already atomic.

What nobody has got yet has a bound in bytes, as a pipe has. Beyond it the feeder waits, and a ``put`` where there is none.

On Redis: list ``queue:ID``; EVALSHA of a push of what is there, BLMOVE to get. A bounded queue has a semaphore beside it.
What ``lab.cluster.reader`` and ``lab.store.backlog`` name.

Differs from multiprocessing: an item that does not pickle takes no other with it, even if its process ends then, and is not
waited for by ``join()``. An item that a process has got is gone if that process dies, as in multiprocessing, but an item that
it had only put is safe once ``join_thread()`` has returned, on whatever host it was put.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import context, queues, util
from queue import Empty
from types import SimpleNamespace
from typing import Any

from lab import buffers
from lab.cluster.reader import Reader
from lab.cluster.synchronize import SEM_VALUE_MAX
from lab.errors import LabError, WrongKey
from lab.store import run as runs
from lab.store.backlog import MOST, Backlog
from lab.store.claimcheck import check_in, receive, sealed
from lab.store.run import Run
from lab.store.script import PUSH, REGISTER

_SENTINEL: Any = vars(queues)["_sentinel"]  # private: what ends the feeder

BATCH, BATCH_BYTES = 64, 1 << 15
"""Items, and their bytes, that are sent together if they were put before the first of them was sent."""


class _NoLock:
    """Stands for the locks around a pipe, which a list does not need."""

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        return True

    def release(self) -> None:
        pass


class Outgoing(deque[Any]):
    """What was put here and is not yet in Redis: to the stdlib's feeder its buffer, its pipe, and its count of room as well.

    Taking an item from the buffer sends it, so that what the feeder's own loop gets is the sentinel at the end. That loop
    gives up at the first item that does not pickle when the process is ending: all behind it would be lost in silence.

    It does not know the queue, so that a queue which nobody uses any more ends its feeder.

    Args:
        channel: Where it goes.
        sem: Places for items on all hosts; None if the queue is unbounded.
    """

    send_bytes = None

    def __init__(self, channel: Channel, sem: Any) -> None:
        super().__init__()
        self._channel, self.sem = channel, sem
        self._packer = buffers.Packer()
        self._batch: list[Any] = []
        self._messages: list[Any] = []
        self._bytes = 0
        self.lock = threading.Lock()
        self.unsent = 0
        self.on_error: Callable[[BaseException, Any], object] = lambda _error, _obj: None
        self.on_lost: Callable[[], object] = lambda: None

    def popleft(self) -> Any:
        """Send all items; the sentinel, when it is there.

        Raises:
            IndexError: There is no more.
        """
        while self:
            obj = super().popleft()
            if obj is _SENTINEL:
                self._send()
                return obj
            if self._channel.run.closed:
                continue  # the program has left the run while this waited for room: there is nobody to get it
            try:
                self._add(obj)
            except BaseException as exc:  # noqa: BLE001 - whatever pickling runs: it costs this item and no other
                self._lose(exc, [obj])
            del obj  # excluded: an item that is kept until the next one comes
        self._send()
        raise IndexError

    def _add(self, obj: Any) -> None:
        """Have an item sent, when there is room for it, together with those that are here already."""
        parts = self._packer.dumps(obj)
        size = buffers.size(parts)
        if not self._channel.backlog.fits(size):
            self._send()  # excluded: waiting until somebody gets what is still here
        self._channel.backlog.wait(size)
        self._messages.append(self._channel.seal(*parts))
        self._batch.append(obj)
        self._bytes += size
        if len(self._batch) == BATCH or self._bytes >= BATCH_BYTES:
            self._send()

    def _send(self) -> None:
        if not self._batch:
            return
        batch, messages = self._batch, self._messages
        self._batch, self._messages, self._bytes = [], [], 0
        try:
            with self.lock:  # excluded: qsize counting an item on its way and again in Redis, or in neither
                self._channel.push(*messages)
                self.unsent -= len(batch)
        except BaseException as exc:  # noqa: BLE001 - told to whoever put them, or raised again
            self._lose(exc, batch)

    def _lose(self, exc: BaseException, items: list[Any]) -> None:
        """Items could not be sent."""
        if isinstance(exc, LabError) and self._channel.run.closed:
            return
        if isinstance(exc, LabError) and util.is_exiting():
            raise exc  # excluded: waiting once more for a Redis that is gone, for each item that is left
        for obj in items:
            self.release()
            with _told(), suppress(ValueError):  # somebody has reported more items done than there were
                self.on_lost()
            self.on_error(exc, obj)

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

    def __init__(self, run: Run, key: str, most: int = MOST, holds: bool = False) -> None:
        self.run, self.key = run, key
        self.reader = Reader(run, key, holds)
        # Of a queue that the stdlib keeps in a server's memory, whoever waits to put says so.
        self.backlog = Backlog(run, key, most, tell=most > MOST)

    @classmethod
    def new(cls, run: Run, most: int = MOST, holds: bool = False) -> Channel:
        """A list that no queue has yet: the bytes that it holds before senders wait, and what ``Reader`` asks."""
        channel = cls(run, run.new_name("queue"), most, holds)
        run.post(REGISTER, [channel.key])
        return channel

    def seal(self, *parts: Any) -> Any:
        """A message, ready to be pushed."""
        return sealed(self.run, self.key, check_in(self.run, *parts))

    def push(self, *messages: Any) -> None:
        """Append messages; they are there before anything that this process sends later."""
        self.run.post(PUSH, [self.key], *messages)

    def lay(self, message: Any) -> None:
        """Append a message, and wait until it is there."""
        self.run.eval(PUSH, [self.key], message)

    def take(self, block: bool, timeout: float | None) -> memoryview | None:
        """The first message, or None if there was none in time. What was not sealed for this queue is thrown away."""
        while (blob := self.reader.take(timeout if block else 0, self.backlog.before_take())) is not None:
            try:
                payload = receive(self.run, self.key, blob)
            except WrongKey as exc:
                print(f"crosshost: {exc}", file=sys.stderr)
            except BaseException:
                # Excluded: a ticket taken and its message not read, as Redis went away or the user interrupted between.
                self.reader.put_back(blob)
                raise
            else:
                self.backlog.took(len(payload))
                return payload
        return None

    recv_bytes = None

    def poll(self, timeout: float = 0.0) -> bool:
        """Whether there is a message now; OSError once the feeder of a closed queue has ended."""
        if self.closed:
            raise OSError("handle is closed")
        return self.length() > 0

    def length(self) -> int:
        """Messages waiting."""
        return self.reader.unread()

    def settle(self) -> None:
        """Wait until everything sent has arrived."""
        self.run.store.settle()

    def close(self) -> None:
        """What the feeder of a closed queue says last."""
        self.closed = True

    def __getstate__(self) -> tuple[str, int, bool]:
        context.assert_spawning(self)
        return self.key, self.backlog.most, self.reader.holds

    def __setstate__(self, state: tuple[str, int, bool]) -> None:
        run = runs.current()
        assert run is not None
        self.__init__(run, *state)  # type: ignore[misc]


class Queue(queues.Queue):  # type: ignore[type-arg]
    """A queue between hosts: put anywhere, got once.

    On Redis: list ``queue:ID``; a push by the feeder thread of all that is there, BLMOVE to get; a BoundedSemaphore for
    the room if there is a maxsize.

    Differs from multiprocessing: what nobody has got yet lies in Redis, 8 MiB of it and not 64 KiB as in a pipe. So a process
    may end although nobody has read what it put, as long as it is no more than that.
    """

    def __init__(self, maxsize: int = 0, *, ctx: Any) -> None:
        channel = Channel.new(ctx.connect(), holds=True)
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
        self._buffer = self._sem

    def _start_thread(self) -> None:
        self._sem.on_error = self._on_queue_feeder_error  # type: ignore[attr-defined]
        super()._start_thread()  # type: ignore[misc]

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
        return buffers.loads(payload)

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

    def _start_thread(self) -> None:
        # An item that could not be sent is done with, or ``join`` would wait for it for ever. Not a method of the queue: the
        # feeder must not keep that.
        counted: Any = SimpleNamespace(_cond=self._cond, _unfinished_tasks=self._unfinished_tasks)
        self._sem.on_lost = partial(queues.JoinableQueue.task_done, counted)
        super()._start_thread()


class SimpleQueue(queues.SimpleQueue):  # type: ignore[type-arg]
    """A queue without a feeder: ``put`` returns when Redis has the item, which it has not before there is room.

    On Redis: as Queue.

    Differs from multiprocessing: there is room for 8 MiB, not for 64 KiB.
    """

    def __init__(self, *, ctx: Any) -> None:
        self.__setstate__(Channel.new(ctx.connect(), holds=True))

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
        return buffers.loads(payload)

    def put(self, obj: Any) -> None:
        """Append an item."""
        self._check_closed()
        parts = buffers.dumps(obj)
        self._channel.backlog.wait(buffers.size(parts))
        self._channel.lay(self._channel.seal(*parts))

    def _check_closed(self) -> None:
        if self._closed:
            raise OSError("handle is closed")
