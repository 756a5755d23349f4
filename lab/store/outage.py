"""How long Redis has been away, and how long the program is willing to wait for it."""

from __future__ import annotations

import os
import sys
import threading
import time

import redis

from lab.errors import BrokerUnreachable
from lab.store import tls

PAUSE = 0.1
"""Seconds between two attempts to connect again."""

ATTEMPT = 15.0
"""Seconds that one attempt to connect takes at most. What is longer, this process was held up itself: see ``pause``."""

SILENCE = 1.0
"""Seconds after which the user is told."""

LOST = (redis.ConnectionError, redis.TimeoutError, OSError)
"""What a connection raises when it broke; a server that is still loading its data counts as well."""


class Outage:
    """One per process and server: all its connections break together, and one message about it is enough.

    Args:
        address: The server, for messages.
        patience: Seconds to go on trying, counted from the first failure to connect.
        tell: Whether to say so on standard error: for the program, not for its processes on the hosts.
    """

    def __init__(self, address: str, patience: float, tell: bool = False) -> None:
        self.address, self.patience = address, patience
        self.met = False
        self.over_at = 0.0
        """When the last one ended, by ``time.monotonic()``."""
        self._tell, self._told = tell, False
        self._lock = threading.RLock()
        self._since: float | None = None
        self._away = self._failed_at = 0.0

    @property
    def on(self) -> bool:
        """Whether the last attempt to connect failed."""
        return self._since is not None

    def pause(self, exc: Exception) -> None:
        """After an attempt to connect failed: wait a little before the next.

        Raises:
            BrokerUnreachable: The server was never there, refuses us, or has been away for longer than we wait.
        """
        with self._lock:
            now = time.monotonic()
            if self._since is None:
                self._since = self._failed_at = now
                self._away = 0.0
            # Excluded: giving up a server that was away for a moment, as a call of C code held us up in that moment.
            self._away += min(now - self._failed_at, ATTEMPT)
            self._failed_at, away = now, self._away
            hopeless = not self.met or isinstance(exc, redis.AuthenticationError) or not isinstance(exc, LOST)
            if hopeless or away >= self.patience:
                raise unreachable(self.address, exc) from exc
            tell = self._tell and not self._told and away >= SILENCE
            self._told = self._told or tell
        if tell:
            self._say(f"does not answer: {exc}\n  Going on as soon as it does; giving up after {self.patience:g} s.")
        time.sleep(PAUSE)

    def over(self) -> None:
        """After a connection was made."""
        if self.met and self._since is None:
            return
        with self._lock:
            since, self._since, self.met = self._since, None, True
            self.over_at = self.over_at if since is None else time.monotonic()
            told, self._told = self._told, False
        if told and since is not None:
            self._say(f"answers again, after {time.monotonic() - since:.1f} s.")

    def _say(self, text: str) -> None:
        if sys.stderr is not None:
            print(f"crosshost: Redis at {self.address} {text}", file=sys.stderr, flush=True)

    def give_up(self) -> None:
        """From now on nobody waits for the server, or is told of it: who needed it has ended."""
        self._tell, self.patience = False, 0.0

    def after_fork(self) -> None:
        """Give a forked child a lock that nobody holds."""
        self._lock = threading.RLock()


def unreachable(address: str, exc: Exception) -> BrokerUnreachable:
    """The error for a Redis that does not answer, or not to us."""
    if isinstance(exc, redis.AuthenticationError):
        reason = str(exc).rstrip(".")
        return BrokerUnreachable(
            f"Redis at {address} refused the user or password: {reason}.", "Correct CROSSHOST_BROKER_URL."
        )
    if refused := tls.refused(address, exc):
        return refused
    return BrokerUnreachable(
        f"Redis at {address} does not answer: {exc}",
        "Start it, correct CROSSHOST_BROKER_URL, or do without: unset CROSSHOST_BROKER_URL"
        if os.environ.get("CROSSHOST_BROKER_URL")
        else "It belongs to the fleet that this program started for itself, and is not started again: run the program again.",
    )
