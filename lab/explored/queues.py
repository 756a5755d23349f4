"""Queue, JoinableQueue and SimpleQueue.

Differs from multiprocessing: an item is in the queue as soon as ``put`` returns; there is no feeder thread between.
"""

from __future__ import annotations

import copy
import queue
from collections import deque
from typing import Any

from lab.explored.shared import Handle, Packed, Shared


class _Items(Shared):
    """What is in a queue."""

    kind = "Queue"

    def __init__(self, maxsize: int = 0) -> None:
        super().__init__()
        self.maxsize, self.items, self.unfinished = maxsize, deque[Packed](), 0

    def state(self) -> Any:
        """The items."""
        return tuple(item.state() for item in self.items), self.unfinished

    def show(self) -> str:
        """The items, or how many there are."""
        if len(self.items) > 3:
            return f"{len(self.items)} items"
        return "[" + ", ".join(item.show() for item in self.items) + "]"

    def has_room(self) -> bool:
        """Whether one more may be put."""
        return self.maxsize <= 0 or len(self.items) < self.maxsize

    def put(self, obj: Any, block: bool, timeout: float | None) -> None:
        """Append a copy."""
        item = Packed(obj)

        def act() -> None:
            if not self.has_room():
                raise queue.Full
            self.items.append(item)
            self.unfinished += 1

        self._do(
            "put", act, self.has_room if block else None, timeout=timeout, expire=_full, note=lambda _: item.show()
        )

    def get(self, block: bool, timeout: float | None) -> Any:
        """Take the oldest."""

        def act() -> Packed:
            if not self.items:
                raise queue.Empty
            return self.items.popleft()

        ready = (lambda: bool(self.items)) if block else None
        item = self._do("get", act, ready, timeout=timeout, expire=_empty, note=lambda item: item.show())
        return item.open()

    def task_done(self) -> None:
        """Count one task less."""

        def act() -> None:
            if self.unfinished <= 0:
                raise ValueError("task_done() called too many times")
            self.unfinished -= 1

        self._do("task_done", act)

    def join(self) -> None:
        """Wait until no task is left."""
        self._do("join", lambda: None, lambda: self.unfinished == 0, writes=False)

    def count(self, kind: str, answer: Any) -> Any:
        """A question about how many there are."""
        return self._do(kind, lambda: answer(len(self.items)), writes=False, note=str)


def _full() -> None:
    raise queue.Full


def _empty() -> None:
    raise queue.Empty


class Queue(Handle):
    """A queue; closing it closes it for the process that does."""

    inherited = "Queue"

    def __init__(self, maxsize: int = 0) -> None:
        self._items, self._closed = _Items(maxsize), False

    def for_child(self) -> Queue:
        """A second, open handle."""
        other = copy.copy(self)
        other._closed = False
        return other

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError(f"Queue {self!r} is closed")

    def put(self, obj: Any, block: bool = True, timeout: float | None = None) -> None:
        """Append an object; ``queue.Full`` when there is no room in time."""
        self._check_open()
        self._items.put(obj, block, timeout)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the oldest object; ``queue.Empty`` when there is none in time."""
        self._check_open()
        return self._items.get(block, timeout)

    def put_nowait(self, obj: Any) -> None:
        """Append an object or raise ``queue.Full`` at once."""
        self.put(obj, False)

    def get_nowait(self) -> Any:
        """Take an object or raise ``queue.Empty`` at once."""
        return self.get(False)

    def qsize(self) -> int:
        """How many objects are in the queue."""
        return int(self._items.count("qsize", int))

    def empty(self) -> bool:
        """Whether there is nothing to get."""
        return bool(self._items.count("empty", lambda count: count == 0))

    def full(self) -> bool:
        """Whether there is no room."""
        return bool(self._items.count("full", lambda _: not self._items.has_room()))

    def close(self) -> None:
        """Give up this handle; ``put`` and ``get`` then raise ValueError."""
        self._closed = True

    def join_thread(self) -> None:
        """Return at once: there is no feeder thread."""
        if not self._closed:
            raise AssertionError(f"Queue {self!r} not closed")

    def cancel_join_thread(self) -> None:
        """Do nothing: there is no feeder thread."""


class JoinableQueue(Queue):
    """A Queue that counts the tasks put into it until each is reported done."""

    inherited = "JoinableQueue"

    def task_done(self) -> None:
        """Report one task done; ValueError when that is one too many."""
        self._items.task_done()

    def join(self) -> None:
        """Wait until every task is done."""
        self._items.join()


class SimpleQueue(Handle):
    """A queue that only puts, gets and says whether it is empty."""

    inherited = "SimpleQueue"

    def __init__(self) -> None:
        self._items = _Items()

    def for_child(self) -> SimpleQueue:
        """A second handle."""
        return copy.copy(self)

    def put(self, obj: Any) -> None:
        """Append an object."""
        self._items.put(obj, True, None)

    def get(self) -> Any:
        """Wait for an object and take it."""
        return self._items.get(True, None)

    def empty(self) -> bool:
        """Whether there is nothing to get."""
        return bool(self._items.count("empty", lambda count: count == 0))

    def close(self) -> None:
        """Give up this handle."""
