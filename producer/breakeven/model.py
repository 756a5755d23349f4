"""The model: what a map takes on w workers, from what things cost.

    serial      T1(n)    = n t
    on workers  Tw(n, k) = S(w) + n (c + m / k + d b + t / P(w))

* ``n`` items of ``t`` seconds each, ``k`` of them to a message (a chunk), with ``b`` megabytes there and back;
* ``S(w)`` seconds to start w workers; 0 for a pool that is there already;
* ``c`` seconds for an item in a large chunk, ``m`` more for each message, ``d`` for a megabyte;
* ``P(w)`` how many times as fast w workers compute as one: what is left of w after the cores, the GIL and the neighbours.

For an item that computes for a part ``f`` of its time and waits for the rest, ``P`` is ``min(w, P_computing(w) / f)``: any
number of workers can wait at once. From these it follows that w workers win

* with one item to a message, if ``t > (c + m) P / (P - 1)``;
* with large chunks, if ``t > c P / (P - 1)``;
* with items of ``t`` seconds, if ``k > m / (t (1 - 1 / P) - c)``;
* against the start of the workers, if all items together take more than ``S P / (P - 1)`` (and somewhat more, for c and m);

and that they never do where ``P`` is not above 1 (``gain`` says when it counts as above).
The limits of all this are told in ``docs/breakeven.md``.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

NO_GAIN = 1.05
"""A speed-up that a noisy machine shows by chance."""


@dataclass(frozen=True)
class Spread:
    """Several measurements of one quantity.

    Attributes:
        median: The middle one.
        low: The one a quarter of the way up: a neighbour's load makes the lowest and the highest mean little.
        high: The one three quarters of the way up.
    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of some measurements."""
        if len(values) < 2:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)

    def map(self, f: float = 1.0, most: float = math.inf) -> Spread:
        """All three divided by ``f``, and at most ``most``."""
        return Spread(*(min(most, value / f) if f else most for value in (self.median, self.low, self.high)))


@dataclass(frozen=True)
class Costs:
    """What things cost in one place, in seconds.

    Attributes:
        place: Its name.
        call: One call to a worker that waits for it, and its answer.
        single: One of many items that do nothing, each a message.
        item: One of many items that do nothing, in large chunks.
        megabyte: A megabyte to a worker and back.
        lock: To take and to release a lock that nobody holds.
        queue: To put one of many messages into a queue and to get it.
        start: To start so many workers.
        power: How many times as fast so many workers compute as this process alone, as measured.
        cores: How many of them can compute at once: the cores of their machines, or 1 under a GIL that all share. A
            neighbour's load makes more workers look faster than that: they get more of what all fight for.
    """

    place: str
    call: Spread
    single: Spread
    item: Spread
    megabyte: Spread
    lock: Spread
    queue: Spread
    start: dict[int, Spread] = field(default_factory=dict)
    power: dict[int, Spread] = field(default_factory=dict)
    cores: float = math.inf

    @property
    def message(self) -> float:
        """What a message costs beyond the item in it."""
        return max(0.0, self.single.median - self.item.median)

    def overhead(self, chunk: int, megabytes: float = 0.0) -> float:
        """Seconds that an item costs beyond its own time."""
        return self.item.median + self.message / chunk + self.megabyte.median * megabytes

    def speed_up(self, workers: int, computing: float = 1.0) -> Spread:
        """``P`` of items that compute for this part of their time."""
        return self.power[workers].map(most=self.cores).map(computing, most=workers)


@dataclass(frozen=True)
class Work:
    """The items of a function.

    Attributes:
        items: How many.
        seconds: What one takes in this process.
        computing: The part of that in which it computes, from 0 to 1.
        megabytes: What goes there and back for one, pickled.
    """

    items: int
    seconds: Spread
    computing: float = 1.0
    megabytes: float = 0.0


def gain(power: Spread) -> float | None:
    """``P / (P - 1)``; None where the workers are no faster together than one, or not so in most of the measurements."""
    return power.median / (power.median - 1) if power.median >= NO_GAIN and power.low > 1 else None


def shortest_item(costs: Costs, workers: int, chunk: int | None, computing: float = 1.0) -> float | None:
    """Seconds that an item must take for the workers to win.

    Args:
        costs: Of the place.
        workers: How many.
        chunk: Items to a message; None for as many as it takes.
        computing: The part of its time in which the item computes.

    Returns:
        None if they never win.
    """
    factor = gain(costs.speed_up(workers, computing))
    overhead = costs.item.median if chunk is None else costs.overhead(chunk)
    return factor and overhead * factor


def smallest_chunk(costs: Costs, workers: int, seconds: float, computing: float = 1.0) -> int | None:
    """Items that a message must have for the workers to win, with items of so many seconds; None if they never win."""
    factor = gain(costs.speed_up(workers, computing))
    saved = seconds / factor - costs.item.median if factor else 0.0
    return max(1, math.ceil(costs.message / saved)) if saved > 0 else None


def least_work(costs: Costs, workers: int) -> float | None:
    """Seconds that all items together must take to pay for the start of the workers; None if nothing does."""
    factor = gain(costs.speed_up(workers))
    return factor and costs.start[workers].median * factor


def predict(costs: Costs, work: Work, workers: int, chunk: int) -> Spread:
    """How many times as fast as this process the workers, once started, do the work: by the spreads of ``P`` and ``t``."""
    power, seconds = costs.speed_up(workers, work.computing), work.seconds
    overhead = costs.overhead(chunk, work.megabytes)

    def ratio(t: float, p: float) -> float:
        return t / (overhead + t / p)

    return Spread(ratio(seconds.median, power.median), ratio(seconds.low, power.low), ratio(seconds.high, power.high))
