"""What the processes of a host count: calls, waits for locks, and how long they took; for whoever watches the fleet.

A process adds, and now and then copies the sums to memory that it shares with its host's supervisor (``worker.counting``),
which tells them with its beats, three times a lease, if they have changed. So to count a call takes no round trip.

On Redis: hash ``crosshost:counts:NAME`` of a host, ``crosshost:counts:jobs:NAME`` of one for jobs; a field for each of
``COUNTED`` and ``HOSTS_OWN``, whose value is numbers with commas between. It outlives the host for a day, so that one that is
started again goes on counting where it was.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
from bisect import bisect_left
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Protocol

BOUNDS = (0.0001, 0.0005, 0.0025, 0.01, 0.05, 0.25, 1.0, 5.0, 30.0, 120.0, 600.0)
"""Upper bounds of a histogram's buckets, seconds; one more bucket has what took longer."""

PARTS = len(BOUNDS) + 2
"""Numbers of a histogram: how many in each bucket, and the nanoseconds of all of them."""

CALLS, WAITS, ERRORS = "call_seconds", "lock_waited_seconds", "call_errors"
COUNTED = {CALLS: PARTS, WAITS: PARTS, ERRORS: 1}
"""What a process counts, and in how many numbers."""

REDELIVERED, CHUNKS = "redelivered", "job_chunk_seconds"
HOSTS_OWN = {REDELIVERED: 1, CHUNKS: PARTS}
"""What a host counts itself."""

KEPT = 24 * 3600 * 1000
"""Milliseconds for which Redis keeps what a host has counted that is heard no more."""

_CALLS, _WAITS, _ERRORS = 0, PARTS, 2 * PARTS
NUMBERS = 2 * PARTS + 1
PACKED = struct.Struct(f"={NUMBERS}Q")
SIZE = PACKED.size
"""Bytes of the memory that one process counts in."""


class Counter:
    """What this process counts."""

    _memory: Any

    def __init__(self) -> None:
        self._leave()
        os.register_at_fork(after_in_child=self._leave)

    def join(self, fd: int) -> None:
        """Count where the supervisor sees it, from now on: in a file of ``SIZE`` bytes."""
        self._memory = mmap.mmap(fd, SIZE)
        os.close(fd)

    def _leave(self) -> None:
        """In a forked child, which the supervisor knows nothing of. Excluded: its sums in the place of its parent's."""
        self._numbers, self._memory = [0] * NUMBERS, bytearray(SIZE)
        # One that a handler of a signal may take again. Excluded: two threads that do so.
        self._turn = threading.RLock()

    def call(self, seconds: float, well: bool) -> None:
        """A call of a pool or an executor has ended."""
        add(self._numbers, _CALLS, seconds)  # in one thread, the worker's
        if not well:
            self._numbers[_ERRORS] += 1

    def show(self) -> None:
        """Let the supervisor see what was counted: when answers are sent, so that what is lost with them is not counted."""
        PACKED.pack_into(self._memory, 0, *self._numbers)

    def waited(self, seconds: float) -> None:
        """A lock or a semaphore had to be waited for, and was taken or given up."""
        with self._turn:
            add(self._numbers, _WAITS, seconds)
            self.show()


def add(numbers: Any, at: int, seconds: float) -> None:
    """Count something that took so long in the histogram that begins there."""
    numbers[at + bisect_left(BOUNDS, seconds)] += 1
    numbers[at + PARTS - 1] += int(seconds * 1e9)


COUNTER = Counter()


def by_name(numbers: Sequence[int]) -> dict[str, list[int]]:
    """What a process has counted, by what it is."""
    return {
        CALLS: list(numbers[_CALLS:_WAITS]),
        WAITS: list(numbers[_WAITS:_ERRORS]),
        ERRORS: list(numbers[_ERRORS:NUMBERS]),
    }


class Redis(Protocol):
    """Whoever can ask Redis."""

    def pipeline(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Run commands in one round trip; their replies."""


def counts_key(host: str, kind: str = "") -> str:
    """Where a host's counts are."""
    return f"crosshost:counts:{kind}:{host}" if kind else f"crosshost:counts:{host}"


def read(store: Redis, hosts: Sequence[str], kind: str = "") -> dict[str, dict[str, list[int]]]:
    """What some hosts have counted, by host and name. What no host writes is left out."""
    replies = store.pipeline([("HGETALL", counts_key(host, kind)) for host in hosts]) if hosts else []
    return {host: found for host, flat in zip(hosts, replies, strict=True) if (found := _parsed(flat))}


def _parsed(flat: list[bytes]) -> dict[str, list[int]]:
    found = {}
    for name, text in zip(flat[::2], flat[1::2], strict=True):
        with suppress(ValueError):
            numbers = [int(part) for part in text.split(b",")]
            if len(numbers) == (COUNTED | HOSTS_OWN).get(name.decode(errors="replace")) and min(numbers) >= 0:
                found[name.decode()] = numbers
    return found


def told(host: str, kind: str, sums: dict[str, list[int]]) -> list[tuple[Any, ...]]:
    """The commands that tell what a host has counted: absolute numbers, so that to say them twice does no harm."""
    key = counts_key(host, kind)
    fields = [part for name, numbers in sums.items() for part in (name, ",".join(map(str, numbers)))]
    return [("HSET", key, *fields), ("PEXPIRE", key, KEPT)]
