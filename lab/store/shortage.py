"""A Redis that has no memory left: how long the program waits for some to become free, and what it says of it.

With ``maxmemory`` and ``noeviction`` Redis refuses what would need more, and does the rest. So what takes, answers, releases
and deletes goes on: its scripts are allowed to (``script``). What adds to it waits here, and is sent again.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lab.errors import RedisFull
from lab.store.outage import SILENCE

PAUSE = 0.2
"""Seconds between two attempts. There is no event for memory that became free."""


def is_full(reply: object) -> bool:
    """Whether a reply says that there is no memory left."""
    return isinstance(reply, Exception) and str(reply).startswith("OOM")


SHARE = 64
"""Processes that may each use what is free divided by this, before they ask again."""


def free_memory(info: object) -> int:
    """Bytes that are free, by the answer to INFO; 0 if that is not known, as a user may not be allowed to ask."""
    if not isinstance(info, bytes):
        return 0
    said = dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line)
    most = int(said.get("maxmemory", 0)) or 1 << 50
    return max(0, most - int(said["used_memory"]))


class Shortage:
    """One per process and server.

    Args:
        address: The server, for messages.
        patience: Seconds that a command is tried again.
        tell: Whether to say so on standard error: for the program, not for its processes on the hosts.

    Attributes:
        holders: Says what holds the memory, as far as that is known.
    """

    def __init__(self, address: str, patience: float, tell: bool) -> None:
        self.address, self.patience, self._tell = address, patience, tell
        self.holders: Callable[[], str] = str
        self._lock = threading.RLock()
        self._waiting, self._since, self._told = 0, 0.0, False

    @contextmanager
    def waiting(self) -> Iterator[Callable[[], None]]:
        """For who was refused; what is given is called before each further attempt.

        Raises (what is given):
            RedisFull: There was no room for too long.
        """
        begun = time.monotonic()
        with self._lock:
            self._waiting += 1
            self._since = self._since if self._waiting > 1 else begun
        over = False
        try:
            yield lambda: self._pause(begun)
            over = True
        finally:
            with self._lock:
                self._waiting -= 1
                told, self._told = self._told, self._told and self._waiting > 0
            if over and told and not self._told:
                self._say(f"has memory again, after {time.monotonic() - self._since:.1f} s.")

    def _pause(self, begun: float) -> None:
        waited = time.monotonic() - begun
        if waited >= self.patience:
            raise full(self.address, waited, self.holders())
        with self._lock:
            tell = self._tell and not self._told and waited >= SILENCE
            self._told = self._told or tell
        if tell:
            self._say(f"has no memory left (maxmemory), so what sends waits. {self.holders()}\n"
                      f"  Going on as soon as it has some; giving up after {self.patience:g} s.")  # fmt: skip
        time.sleep(PAUSE)

    def _say(self, text: str) -> None:
        if sys.stderr is not None:
            print(f"crosshost: Redis at {self.address} {text}", file=sys.stderr, flush=True)

    def after_fork(self) -> None:
        """Give a forked child a lock that nobody holds, and nobody who waits."""
        self._lock = threading.RLock()
        self._waiting, self._told = 0, False


def full(address: str, waited: float, holders: str) -> RedisFull:
    """The error for a Redis without memory."""
    return RedisFull(
        f"Redis at {address} has no memory left (maxmemory), for {waited:.0f} s now. {holders}".rstrip(),
        "Have what lies there read, or deleted; or give Redis more. For the fleet that comes with a command: "
        "CROSSHOST_MEMORY=2g",
    )
