"""What a host has counted, all its processes together, and telling it (``lab.fleet.counts``)."""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Iterable
from typing import Any

from lab.fleet.counts import COUNTED, HOSTS_OWN, KEPT, PACKED, SIZE, add, by_name, read, told
from worker.archives import in_memory


class Counted:
    """The memory that one process counts in.

    Attributes:
        file: Its descriptor, for the process; closed once that has it.
    """

    def __init__(self) -> None:
        self.file = in_memory(bytes(SIZE))
        self._memory = mmap.mmap(self.file, SIZE)

    def sums(self) -> dict[str, list[int]]:
        """What it has counted until now."""
        return by_name(PACKED.unpack_from(self._memory))

    def given(self) -> None:
        """The process has its descriptor."""
        os.close(self.file)

    def close(self) -> None:
        """It counts no more."""
        self._memory.close()


class Counting:
    """The sums of a host.

    Args:
        store: Redis.
        host: The host's name.
        kind: Of the host.
    """

    def __init__(self, store: Any, host: str, kind: str = "") -> None:
        self._store, self._host, self._kind = store, host, kind
        self._ended = {name: [0] * size for name, size in (COUNTED | HOSTS_OWN).items()}
        self._began = False
        self._told: dict[str, list[int]] = {}
        self._told_at = 0.0

    def ended(self, counted: Counted) -> None:
        """Keep what a process has counted that has ended."""
        self._ended |= _sum(self._ended, counted.sums())

    def one(self, name: str) -> None:
        """Count something that happened here."""
        self._ended[name][0] += 1

    def took(self, name: str, seconds: float) -> None:
        """Count something that took so long here."""
        add(self._ended[name], 0, seconds)

    def tell(self, running: Iterable[Counted] = ()) -> None:
        """Tell the sums, if there is anything new.

        Raises:
            LabError, OSError: Redis is not there; the next time, it is told.
        """
        if not self._began:  # a host that was here before, or a supervisor that was killed, has counted to there
            before = read(self._store, [self._host], self._kind).get(self._host, {})
            self._ended, self._began = {**self._ended, **_sum(self._ended, before)}, True
        sums = self._ended
        for counted in running:
            sums = {**sums, **_sum(sums, counted.sums())}
        if sums != self._told or time.monotonic() > self._told_at + KEPT / 4000:
            # Excluded: a number that is less than it was, by what a process has written over what it had counted.
            most = {name: list(map(max, numbers, self._told.get(name, numbers))) for name, numbers in sums.items()}
            self._store.pipeline(told(self._host, self._kind, most))
            self._told, self._told_at = most, time.monotonic()


def _sum(sums: dict[str, list[int]], more: dict[str, list[int]]) -> dict[str, list[int]]:
    return {name: [a + b for a, b in zip(sums[name], numbers, strict=True)] for name, numbers in more.items()}
