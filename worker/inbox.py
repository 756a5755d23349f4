"""Where a host hears of signals for its processes of one run: one list, one connection, however many processes.

On Redis: list ``commands:HOST/NONCE`` of a run; an element is the id of a process, a space, and the sealed number of a
signal, or nothing: then its parent has ended, or there is room for what it prints. An element stays in the list until it was
obeyed.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import redis

from lab.errors import LabError
from lab.store.link import Link
from lab.store.store import GRACE, SLICE, Store


class Inbox:
    """The list of one run on this host.

    Args:
        store: Redis.
        key: The list.
        obey: Called with the id of a process, and what it is to be sent.
    """

    def __init__(self, store: Store, key: str, obey: Callable[[str, bytes], None]) -> None:
        self.key = key
        self._store, self._obey = store, obey
        self._link: Link | None = None
        self._heard_at = 0.0

    @property
    def link(self) -> Link | None:
        """The connection, to select on; None if it broke."""
        return self._link

    @property
    def silent(self) -> bool:
        """Whether the connection has gone silent, so that no signal comes over it any more."""
        return self._link is not None and time.monotonic() - self._heard_at > SLICE + GRACE

    def listen(self) -> Link:
        """Open the connection, anew if there was one.

        Raises:
            LabError, OSError, redis.RedisError: There is none to be had now.
        """
        self.close()
        # Not blocked on at first: a Redis that has no memory left refuses that, and each beat of the host comes by here.
        while isinstance(element := self._store.call("LINDEX", self.key, 0), bytes):
            self._take(element)
        link = self._store.link()
        self._look(link)
        self._link, self._heard_at = link, time.monotonic()
        return link

    def _look(self, link: Link) -> None:
        """Have Redis answer when there is something. It is left in the list: the answer may be lost."""
        link.send([("BLMOVE", self.key, self.key, "LEFT", "LEFT", SLICE)])

    def read(self) -> bool:
        """Do what is asked for, if something is. Returns False if the connection broke."""
        assert self._link is not None
        try:
            element, self._heard_at = self._link.read(), time.monotonic()
            if isinstance(element, Exception):
                return False
            if element is not None:
                self._take(element)  # before the next look; excluded: a signal taken and not sent, as the look failed
            self._look(self._link)
        except (redis.RedisError, OSError, LabError):
            return False
        return True

    def _take(self, element: bytes) -> None:
        self._store.call("LREM", self.key, 1, element)
        process, _, blob = element.partition(b" ")
        self._obey(process.decode(errors="replace"), blob)

    def close(self) -> None:
        """Listen no more."""
        if self._link is not None:
            self._link.close()
            self._link = None
