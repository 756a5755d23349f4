"""How many items make a chunk: as many as take a worker about a twentieth of a second."""

from __future__ import annotations

TARGET = 0.05
"""Seconds that a chunk should take. What a chunk costs by itself, some tenths of a millisecond, is then below 1 %; and what
is lost with a worker, or uneven at the end, is below what a person notices."""

MOST = 10_000
GROWTH = 4


class Pace:
    """The size of the next chunk, by the measured time of an item.

    Args:
        fixed: A size that stays; None to adapt.
    """

    def __init__(self, fixed: int | None) -> None:
        self._fixed = fixed
        self._seconds = 0.0  # moving average of what an item takes
        self.size = fixed or 1

    def learn(self, items: int, seconds: float) -> None:
        """Take note of a finished chunk. The size grows step by step: the first items may not be like the others."""
        each = seconds / items
        self._seconds = 0.8 * self._seconds + 0.2 * each if self._seconds else each
        if self._fixed is None:
            wanted = int(TARGET / self._seconds) if self._seconds else MOST
            self.size = max(1, min(wanted, self.size * GROWTH, MOST))
