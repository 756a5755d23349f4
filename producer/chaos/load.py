"""The work: calls of a pool that add to two counters, one plainly and one by number. Hosts import this module."""

from __future__ import annotations

import time
from typing import Any

_counters: tuple[Any, Any]


def use(plain: Any, once: Any) -> None:
    """Give a worker the counters that its calls add to."""
    global _counters
    _counters = plain, once


def work(call: tuple[int, float]) -> int:
    """Add to both counters, in the middle of a call of some seconds; returns the call's number."""
    number, seconds = call
    plain, once = _counters
    time.sleep(seconds / 2)
    plain.add(1)
    once.add_once(1, number)
    time.sleep(seconds / 2)  # who dies here has added, and has not said so
    return number
