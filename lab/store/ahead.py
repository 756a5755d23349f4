"""Holding ahead: a process that alone reads a list takes several of its messages at once, and has the next at hand.

A round trip for each message costs more than everything else that is done with it. So when more is there than was asked
for, the next messages come along: as many as this process gets within ``HOLD``, at the pace of its last ones. Who computes
for long with each message holds none.

What is held is nobody else's; who uses this makes sure that nobody else reads the list meanwhile. Redis has it still, with
how many this process had got before, so that nothing is lost when a reply is, or the process is interrupted: it takes the
same again. By the number that it has got since, the rest is laid back, and is again the first of the list.

On Redis, for a list ``LIST``: list ``LIST:held``, a number and the messages; those that were got already go with the next.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from lab.store.run import Run

MOST, MOST_BYTES = 64, 1 << 16
"""Messages that are held, and about how many bytes of them."""
HOLD = 0.002
"""Seconds for which a process holds messages, if it goes on as it did."""


class Ahead:
    """A list that this process reads.

    Args:
        run: The run.
        key: The list.

    Attributes:
        allowed: Whether messages may be held.
        got: Messages that this process has got of those that it held.
        lock: Of what is held; it tells whether this very thread has it, and so is in a signal's handler.
    """

    def __init__(self, run: Run, key: str) -> None:
        self._run, self._key = run, key
        self._begin(True)

    def _begin(self, allowed: bool) -> None:
        self._pid, self.allowed = os.getpid(), allowed
        self.lock: Any = threading.RLock()
        self.got = 0
        self._held: deque[bytes] = deque()
        self._unheard = False  # a reply that tells what is held may be lost
        self._waiting = 0  # threads that may be blocked in Redis
        self._pace = HOLD
        self._returned = 0.0
        self._weight = 0
        self._plenty = False
        self._last = threading.local()  # whether what this thread took last was held

    def __len__(self) -> int:
        return len(self._held) if self._pid == os.getpid() else 0

    def take(self, timeout: float | None, before: Sequence[tuple[Any, ...]] = ()) -> bytes | None:
        """The next message, waiting for it; None if there was none in time (``Run.take``)."""
        if self._pid != os.getpid():
            self._begin(False)  # a forked copy: what is held is the parent's
        self._pace += (min(time.monotonic() - self._returned, HOLD) - self._pace) / 4
        if self.lock._is_owned():
            return self._take_one(timeout, before)
        with self.lock:
            # Excluded, by the lock: laying back what is held while more is on its way here. By the number of those that wait:
            # a thread that gets from Redis what comes after the messages that are held, and then gets those.
            if not self._held and (self._unheard or (self._plenty and not self._waiting)):
                self._take_more()
            if self._held:
                return self._next()
            self._waiting += 1
        try:
            return self._take_one(timeout, before)
        finally:
            with self.lock:
                self._waiting -= 1

    def _next(self) -> bytes:
        message = self._held.popleft()
        self.got += 1
        self._note()
        self._last.was_held, self._returned = True, time.monotonic()
        return message

    def _note(self) -> None:
        """One more, or one less, was got of what is held."""

    def _take_more(self) -> None:
        most = min(MOST, MOST_BYTES // max(self._weight, 1), int(HOLD / max(self._pace, 1e-6))) if self.allowed else 0
        if most > 1 or self._unheard:
            self._unheard = True
            more = self._take_held(max(most, 1))
            if more is None:  # others read, too
                self.drop()
                return
            self._held.extend(more)
            self._unheard, self._plenty = False, len(more) >= most

    def hear(self) -> None:
        """Have known here what is held, if a reply that told it was lost: for who asks what is there, and takes nothing."""
        if (
            self._unheard and not self.lock._is_owned()
        ):  # or a handler would take what the frame beneath it is just taking
            with self.lock:
                if self._unheard and self._pid == os.getpid():
                    self._take_more()

    def _take_held(self, many: int) -> list[bytes] | None:
        """Take messages by a script that calls ``hold`` and does no harm when it is run twice; None if others read, too."""
        raise NotImplementedError

    def _take_one(self, timeout: float | None, before: Sequence[tuple[Any, ...]]) -> bytes | None:
        taken = self._run.take(self._key, timeout, 1, before, look=self.allowed)
        self._returned = time.monotonic()
        if not taken:
            return None
        self._plenty, self._weight = self.allowed and self._run.plenty, len(taken[0])
        self._last.was_held = False
        return taken[0]

    def put_back(self, message: bytes) -> None:
        """Lay the message that this thread took last, and did not get, back."""
        with self.lock:
            if not self._last.was_held:
                self._run.give_back(self._key)
                return
            self._held.appendleft(message)
            self.got -= 1
            self._note()

    def drop(self) -> None:
        """Forget what is held, as it was laid back, and hold nothing any more."""
        self.allowed = self._unheard = False
        self._held.clear()
