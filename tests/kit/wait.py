"""Waiting for what has no event of its own: it is asked again and again, and not for ever."""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from typing import Any


def within(seconds: float, condition: Callable[[], Any], every: float = 0.02) -> bool:
    """Whether a condition comes true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(every)
    return True


def readable(descriptor: int, seconds: float) -> bool:
    """Whether there is something to read in time, or the end; of a descriptor of any number, as ``select`` is not."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(1000 * max(seconds, 0.0)))


def until(condition: Callable[[], Any], what: str, seconds: float = 30.0) -> float:
    """Wait for a condition that must come true in time; the seconds that it took."""
    begun = time.monotonic()
    assert within(seconds, condition), f"{what}: not within {seconds} s"
    return time.monotonic() - begun
