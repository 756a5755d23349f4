"""Clocks: of one kernel's processes it is the same one; those of several are brought together over Redis's.

Each process on a cluster asks Redis for its time, some times, and keeps the answer that came back quickest: Redis read its
clock somewhere between question and answer, so half of that round trip is the error (Cristian 1989). Processes that share a
kernel share the best answer among them, so between them no error is left.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

SAMPLES = 8

Reading = tuple[int, int]
"""How far this clock is behind Redis's, and the round trip in which that was found, nanoseconds."""

now = time.monotonic_ns


def read(call: Callable[..., Any]) -> Reading:
    """Compare this process's clock with that of a server.

    Args:
        call: Runs a command of Redis.
    """
    best: Reading | None = None
    for _ in range(SAMPLES):
        asked = now()
        seconds, micros = (int(part) for part in call("TIME"))
        answered = now()
        trip = answered - asked
        if best is None or trip < best[1]:
            best = seconds * 1_000_000_000 + micros * 1_000 - (asked + answered) // 2, trip
    assert best is not None
    return best


def together(readings: Iterable[tuple[str, Reading | None]]) -> tuple[dict[str, int], int]:
    """What to add to the times of each kernel, and the error that is left between any two, nanoseconds.

    Args:
        readings: A kernel, and what one of its processes has read; None where nothing was read.
    """
    best: dict[str, Reading | None] = {}
    for kernel, reading in readings:
        known = best.setdefault(kernel, reading)
        if reading is not None and (known is None or reading[1] < known[1]):
            best[kernel] = reading
    if len(best) < 2:
        return dict.fromkeys(best, 0), 0
    errors = sorted((reading[1] // 2 for reading in best.values() if reading), reverse=True)
    return {kernel: reading[0] if reading else 0 for kernel, reading in best.items()}, sum(errors[:2])
