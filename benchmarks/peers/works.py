"""The work, and how it is measured: the same for every library. Only what Python itself has is imported here."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from typing import Any, Protocol

WORKERS = 2
SECONDS = 4.0
"""About how long a row may take: with who is slow, fewer calls are made."""


class Peer(Protocol):
    """A library with its two workers running; ended by ``close``."""

    def map(self, function: Callable[[Any], Any], items: list[Any]) -> list[Any]:
        """Call a function on many items, as the library divides them."""

    def each(self, function: Callable[[Any], Any], items: list[Any]) -> list[Any]:
        """Call a function on each item by itself, all at once."""

    def queue(self, many: int) -> float:
        """Seconds that a process needs to get what another one puts into the library's queue, one by one."""

    def close(self) -> None:
        """End the workers."""


def noop(item: Any) -> Any:
    return item


def spin(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def nap(seconds: float) -> None:
    time.sleep(seconds)


def put(queue: Any, many: int) -> None:
    for item in range(many):
        queue.put(item)


def drained(queue: Any, many: int) -> float:
    """Seconds to get what is put, from the first item on."""
    queue.get()
    return took(lambda: [queue.get() for _ in range(many - 1)])


def took(work: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _fitting(work: Callable[[list[Any]], Any], most: int) -> list[Any]:
    """As many items as take no longer than a row may, by a try with few."""
    few = list(range(min(100, most)))
    pace = took(lambda: work(few)) / len(few)
    return list(range(max(len(few), min(most, int(SECONDS / pace)))))


def many_calls(peer: Peer) -> float:
    items = _fitting(lambda items: peer.map(noop, items), 20_000)
    return len(items) / took(lambda: peer.map(noop, items))


def separate_calls(peer: Peer) -> float:
    items = _fitting(lambda items: peer.each(noop, items), 2_000)
    return len(items) / took(lambda: peer.each(noop, items))


def one_call(peer: Peer) -> float:
    return statistics.median(took(lambda: peer.each(noop, [1])) for _ in range(50)) * 1e3


def cpu(peer: Peer) -> float:
    return 100 * (64 * 0.05 / WORKERS) / took(lambda: peer.each(spin, [0.05] * 64))


def sleep(peer: Peer) -> float:
    return 100 * (200 * 0.01 / WORKERS) / took(lambda: peer.each(nap, [0.01] * 200))


def megabytes(peer: Peer) -> float:
    items: list[Any] = [os.urandom(1_000_000) for _ in range(20)]
    return 2 * len(items) / took(lambda: peer.each(noop, items))


def messages(peer: Peer) -> float:
    pace = peer.queue(200) / 200
    many = max(200, min(10_000, int(SECONDS / pace)))
    return many / peer.queue(many)


ROWS: dict[str, tuple[str, Callable[[Peer], float]]] = {
    "map, no-ops": ("calls/s", many_calls),
    "separate calls": ("calls/s", separate_calls),
    "one call": ("ms", one_call),
    "64 x 50 ms of CPU": ("% of ideal", cpu),
    "200 x 10 ms asleep": ("% of ideal", sleep),
    "20 x 1 MB in and out": ("MB/s", megabytes),
    "queue": ("messages/s", messages),
}
