"""imap with a ``buffersize``: it reads its input as its results are taken, as ``Executor.map`` of Python 3.14 does."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from multiprocessing import pool
from typing import Any

_IMapIterator: Any = pool.IMapIterator  # the stubs have none of its attributes
_IMapUnorderedIterator: Any = pool.IMapUnorderedIterator


def check(buffersize: Any) -> None:
    """Refuse what ``Executor.map`` refuses."""
    if buffersize is not None and not isinstance(buffersize, int):
        raise TypeError("buffersize must be an integer or None")
    if buffersize is not None and buffersize < 1:
        raise ValueError("buffersize must be None or > 0")


class Results:
    """What takes the results of one imap. While somebody has it, they are wanted; the pool itself keeps the imap."""

    def __init__(self, source: Buffered) -> None:
        self._source = source
        source.taker = weakref.ref(self)

    def __iter__(self) -> Results:
        return self

    def next(self, timeout: float | None = None) -> Any:
        """The next result, as ``multiprocessing.pool.IMapIterator.next``."""
        return self._source.next(timeout)

    __next__ = next


class Buffered(_IMapIterator):  # type: ignore[misc]
    """Results in order; the input is read, in the thread of whoever takes them, up to ``buffersize`` beyond those taken.

    Not in the pool's thread that sends calls: while that waited here for a result to be taken, the calls that its taker
    makes meanwhile would wait for it.

    Attributes:
        taker: The Results, if anybody still has it.

    Args:
        owner: The pool.
        tasks: Makes the tasks of a job, by its number.
        buffersize: Calls that were sent and whose results were not yet taken.
    """

    taker: Callable[[], Results | None]

    def __init__(self, owner: Any, tasks: Callable[[int], Iterator[Any]], buffersize: int) -> None:
        super().__init__(owner)
        self._send = owner._taskqueue.put
        self._tasks = tasks(self._job)
        self._buffersize, self._sent, self._read = buffersize, 0, False
        self._turn = threading.Lock()
        self._send_until(buffersize)

    def next(self, timeout: float | None = None) -> Any:
        """The next result, as ``multiprocessing.pool.IMapIterator.next``."""
        with self._cond:
            taken = self._index - len(self._items)
        self._send_until(taken + 1 + self._buffersize)
        return super().next(timeout)

    __next__ = next

    def _send_until(self, count: int) -> None:
        with self._turn:  # excluded: two threads that take results, in the input at once
            while self._sent < count and not self._read:
                task = next(self._tasks, None)
                if task is None:
                    self._end()
                    return
                self._sent += 1
                self._send(([task], None))

    def _end(self, _length: int = 0) -> None:
        self._read = True
        self._set_length(self._sent)

    def read_on(self, wait: Callable[[], None]) -> None:
        """Somebody waits for the end of the pool, perhaps who takes the results: have the pool's thread send the rest.

        Unless nobody wants it any more.
        """
        with self._turn:
            if self._read:
                return
            if self.taker() is None:
                self._end()
            else:
                self._read = True
                self._send((self._rest(wait), self._end))

    def _rest(self, wait: Callable[[], None]) -> Iterator[Any]:
        wait()
        for task in self._tasks:
            self._sent += 1
            yield task
            wait()


class BufferedUnordered(Buffered, _IMapUnorderedIterator):  # type: ignore[misc]
    """The same, results as they come."""
