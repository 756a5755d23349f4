"""Which host takes the next process: one with a free slot; when there is none, the one with the fewest for its slots.

A message lies in one list, and a host with a free slot takes it as soon as it comes. A host whose slots are all taken waits
at the list without taking, like any idle host (``onloan.transport``), and when something lies there, it compares: is a slot
free elsewhere, or has another host fewer processes for its slots? Then it leaves the message to that one, for a moment. So
processes are spread evenly whatever their number, and nobody decides for others.

On Redis: fields ``slots``, ``running`` and ``lacks`` of ``crosshost:host:NAME``, which each host writes of itself.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty
from typing import Any

import redis
from kombu.transport import TRANSPORT_ALIASES

from lab.errors import BrokerUnreachable
from lab.fleet.hosts import host_key, hosts_key
from lab.settings import Settings
from lab.store.store import Store
from onloan import transport
from worker.room import lacking

ALIAS = "placed"
TRANSPORT_ALIASES[ALIAS] = f"{__name__}:Transport"

MOMENT = 0.01
"""Seconds for which a message is left to another host before this one compares again."""

PATIENCE = 1.0
"""Seconds after which it takes the message all the same: the other may be frozen."""

LOOK = 0.5
"""Seconds between two looks at the memory, if no process has come or gone."""


class Placement:
    """What one host knows of its load, and says of it.

    Args:
        settings: The host's settings.

    Attributes:
        running: Tells how many processes are here.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.running: Callable[[], int] = lambda: 0
        self._store = Store(settings.broker_url)  # without patience, as it speaks in the worker's own loop
        self._key = host_key(settings.host)
        self._our_turn = False
        self._ask_at = self._wakes_at = 0.0
        self._left_since = 0.0
        self._lacks, self._looked_at, self._looked_with = "", 0.0, 0

    def load(self) -> dict[str, Any]:
        """The fields that the other hosts, and programs that find no room, read."""
        return {"running": self.running(), "lacks": self._lacks}

    def changed(self) -> None:
        """Processes were taken, or have ended: tell the others."""
        fields = [part for pair in self.load().items() for part in pair]
        lease = int(self._settings.lease * 1000)
        with suppress(BrokerUnreachable, redis.ResponseError):  # the next announcement has it
            self._store.pipeline([("HSET", self._key, *fields), ("PEXPIRE", self._key, lease)])

    @property
    def free(self) -> bool:
        """Whether a slot is free."""
        return self.running() < self._settings.slots

    def may_ask(self) -> bool:
        """Whether to look for a message at all, now."""
        return time.monotonic() >= self._ask_at and self._has_room()

    def look_again(self, loop: Any) -> None:
        """There is no room: have the loop, which nothing else may wake, look again in a while.

        Args:
            loop: The worker's event loop, None as long as there is none.
        """
        if loop is not None and self._lacks and (now := time.monotonic()) >= self._wakes_at:
            self._wakes_at = now + LOOK
            loop.call_later(LOOK, lambda: None)

    def may_take(self) -> bool:
        """Whether to take one, if there is one; else this host only waits for one to come."""
        return self.free or self._our_turn

    def waited(self, loop: Any) -> None:
        """Something may lie there, and all slots here are taken: whose turn is it?

        Args:
            loop: The worker's event loop.
        """
        if self.free:
            return
        now = time.monotonic()
        self._our_turn = self._is_least() or 0 < self._left_since < now - PATIENCE
        if self._our_turn:
            self._left_since = 0.0
            return
        self._left_since = self._left_since or now
        self._ask_at = now + MOMENT
        loop.call_later(MOMENT, lambda: None)  # it looks again

    def took(self) -> None:
        """Our turn is over, whether something lay there or not."""
        self._our_turn, self._left_since = False, 0.0

    def _is_least(self) -> bool:
        mine = self.running() / self._settings.slots
        with suppress(BrokerUnreachable, redis.ResponseError):  # the latter if somebody has laid something else there
            names = [name.decode(errors="replace") for name in self._store.call("SMEMBERS", hosts_key())]
            loads = self._store.pipeline([("HMGET", host_key(name), "slots", "running", "lacks") for name in names])
            return all(_share(slots, running) >= mine for slots, running, lacks in loads if not lacks)
        return True

    def _has_room(self) -> bool:
        running, now = self.running(), time.monotonic()
        if now >= self._looked_at + LOOK or running != self._looked_with:
            before, self._looked_at, self._looked_with = self._lacks, now, running
            self._lacks = lacking(running, self._settings.most_processes)
            if self._lacks != before:
                self.changed()
        return not self._lacks


def _share(slots: Any, running: Any) -> float:
    """How many processes a host runs for each of its slots; no end of them where what it announced is no number."""
    try:
        return int(running) / int(slots)
    except (TypeError, ValueError, ZeroDivisionError):
        return math.inf


class QoS(transport.QoS):
    """Asks for messages only while there is room for another process."""

    def can_consume(self) -> bool:
        """Whether to ask for a message now."""
        placement = self.channel.placement
        if placement is None or not self.channel._lends() or placement.may_ask():
            return True
        placement.look_again(self.channel.connection.loop)
        return False


class Channel(transport.Channel):
    """Takes a message when it is this host's turn.

    Attributes (transport options):
        placement: The host's.
    """

    QoS = QoS
    placement: Placement | None = None
    from_transport_options = (*transport.Channel.from_transport_options, "placement")

    def _brpop_start(self, timeout: float | None = None) -> None:
        if self.placement is not None and self._lends():
            self._look_next = self._look_next or not self.placement.may_take()
        super()._brpop_start(timeout)

    def _brpop_read(self, **options: Any) -> Any:
        lends, asked = self._lends(), self._asked
        try:
            return super()._brpop_read(**options)
        except Empty:
            if self.placement is not None and lends and asked is None:
                self.placement.waited(self.connection.loop)
            raise
        finally:
            if self.placement is not None and lends and asked is not None:
                self.placement.took()


class Transport(transport.Transport):
    """``onloan``'s, with a say of the host in what it takes."""

    Channel = Channel
    loop: Any = None

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Take part in a worker's event loop; kombu's ``get_event_loop`` knows that only until the first reconnect."""
        self.loop = loop
        super().register_with_event_loop(connection, loop)
