"""Room for more calls, by the bytes of those that were sent and are not answered yet.

The pipe of ``multiprocessing.Pool`` takes 64 KiB; then the thread that fills it waits for the workers, so an input is read
as it is needed. Redis takes what it is given: here the pool counts, and waits.
"""

from __future__ import annotations

import threading

LAZY_BYTES = 1 << 16
"""What an ``imap`` may have under way before it reads on: what the stdlib's pipe takes."""
MOST_BYTES = 1 << 23
"""The same for calls whose arguments are in memory already: a burst of small ones is not held back."""
FEW = 2
"""Calls for each worker that are always sent, however large they are: one to run, and one to go on with."""


class Room:
    """How much is under way; the pool's thread that sends waits here until there is room for more.

    Args:
        workers: Processes that take calls.
    """

    def __init__(self, workers: int) -> None:
        self._few = FEW * workers
        self._changed = threading.Condition()
        self._calls = self._bytes = self._enough = 0
        self._closed = False

    def enter(self, size: int) -> None:
        """A call of so many bytes is under way."""
        with self._changed:
            self._calls += 1
            self._bytes += size

    def leave(self, size: int) -> None:
        """It has ended."""
        with self._changed:
            self._calls -= 1
            self._bytes -= size
            if self._enough and self._is_there():
                self._changed.notify_all()

    def wait(self, most: int) -> None:
        """Return at once if no more than ``most`` bytes are under way, else when half of them have ended, or most calls.

        It ends with the calls that are under way: by their answers, by the pool's failure, or when it is closed.
        """
        if self._bytes <= most:
            return
        with self._changed:
            # Half: excluded, one thread waking another for each answer of a burst.
            self._enough = most // 2
            self._changed.wait_for(self._is_there)
            self._enough = 0

    def close(self) -> None:
        """Nobody waits any more, now or later."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _is_there(self) -> bool:
        return self._bytes <= self._enough or self._calls < self._few or self._closed
