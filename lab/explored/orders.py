"""What came before what in a run: which pairs of steps could have changed places, and how many orders are the same run.

The model is Mazurkiewicz's: two runs are the same if one becomes the other by swapping neighbours that are independent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from math import factorial, prod

from lab.explored.operation import Operation, Step, Touch

MOST_STATES = 20_000
"""Beyond so many cuts of a run its orders are not counted."""


@dataclass
class _Past:
    """What a worker has done, and what it knows of what others have done."""

    number: int
    clock: list[int] = field(default_factory=list)
    steps: int = 0


class History:
    """The steps of a run with their order.

    Args:
        trace: The steps.
    """

    def __init__(self, trace: list[Step]) -> None:
        self.trace = trace
        self._past: dict[str, _Past] = {}
        self._by_object: dict[str, list[tuple[int, Touch]]] = {}
        self._ends: list[int] = []
        self.clocks: list[list[int]] = []
        self.position: list[int] = []
        self.before: list[list[int]] = []
        """Of each step, what its worker knew before it."""
        self._found: list[set[int]] = []
        """Of each step, the earlier ones that it conflicts with."""
        for index, step in enumerate(trace):
            self._add(index, step)

    def past(self, worker: str) -> _Past:
        """What is known of a worker."""
        if worker not in self._past:
            self._past[worker] = _Past(len(self._past))
        return self._past[worker]

    def _add(self, index: int, step: Step) -> None:
        me = self.past(step.worker)
        self.before.append(list(me.clock))
        clock = list(me.clock)
        if step.expired:  # nobody else could go on: all that happened came before
            for other in self.clocks:
                _join(clock, other)
        self._found.append(self.conflicting(step.worker, step.touches, step.victim))
        for earlier in self._found[index]:
            _join(clock, self.clocks[earlier])
        if step.kind == "join" and step.child and not step.expired:
            _join(clock, self.past(step.child).clock)
        me.steps += 1
        _reach(clock, me.number, me.steps)
        me.clock = clock
        self.clocks.append(list(clock))
        self.position.append(me.steps)
        for touch in step.touches:
            self._by_object.setdefault(touch.key, []).append((index, touch))
        if step.victim:
            self._ends.append(index)
        if step.kind == "start" and step.child:
            self.past(step.child).clock = list(clock)

    def conflicting(self, worker: str, touches: Iterable[Touch], victim: str = "") -> set[int]:
        """The steps so far of other workers that depend on an operation."""
        found = set()
        for touch in touches:
            for index, other in self._by_object.get(touch.key, ()):
                if touch.meets(other) and self.trace[index].worker != worker:
                    found.add(index)
        if victim:
            found |= {index for index in range(len(self.clocks)) if self.trace[index].worker == victim}
        found |= {index for index in self._ends if self.trace[index].victim == worker}
        return found

    def knew(self, clock: list[int], index: int) -> bool:
        """Whether a step came before all that has a clock."""
        number = self.past(self.trace[index].worker).number
        return len(clock) > number and clock[number] >= self.position[index]

    def races(self, pending: dict[str, Operation]) -> Iterator[tuple[int, str, list[int]]]:
        """Pairs that could have changed places.

        Args:
            pending: What workers were about to do at the end.

        Yields:
            The earlier step; the worker of the later one; what that worker knew before it.
        """
        for index, step in enumerate(self.trace):
            yield from self._unknown(self._found[index], step.worker, self.before[index])
        for worker, op in pending.items():
            yield from self._unknown(self.conflicting(worker, op.touches, op.victim), worker, self.past(worker).clock)

    def _unknown(self, found: set[int], worker: str, clock: list[int]) -> Iterator[tuple[int, str, list[int]]]:
        for earlier in found:
            if not self.knew(clock, earlier):
                yield earlier, worker, clock

    def orders(self, most: int = MOST_STATES) -> int | None:
        """In how many orders of its choices this same run could have gone; None when there are more cuts to count."""
        rows: dict[str, list[list[int]]] = {}
        chosen = [index for index, step in enumerate(self.trace) if step.choice is not None]
        names = list(dict.fromkeys(self.trace[index].worker for index in chosen))
        done: dict[str, list[int]] = {name: [] for name in names}
        for index in chosen:
            needs = []
            for name in names:
                number = self.past(name).number
                known = self.clocks[index][number] if len(self.clocks[index]) > number else 0
                needs.append(sum(position <= known for position in done[name]))
            rows.setdefault(self.trace[index].worker, []).append(needs)
            done[self.trace[index].worker].append(self.position[index])
        lengths = [len(rows[name]) for name in names]
        if prod(length + 1 for length in lengths) > most:
            return None

        @cache
        def ways(cut: tuple[int, ...]) -> int:
            if not any(cut):
                return 1
            total = 0
            for at in range(len(names)):
                if cut[at] and self._last_may_go(cut, at, rows, names):
                    total += ways((*cut[:at], cut[at] - 1, *cut[at + 1 :]))
            return total

        # no recursion deeper than Python has: cuts are counted from the small ones up
        order: list[tuple[int, ...]] = [()]
        for length in lengths:
            order = [(*cut, n) for cut in order for n in range(length + 1)]
        for cut in sorted(order, key=sum):
            ways(cut)
        return ways(tuple(lengths))

    def _last_may_go(self, cut: tuple[int, ...], at: int, rows: dict[str, list[list[int]]], names: list[str]) -> bool:
        """Whether within a cut the last step of one worker may be the last of all: no other one in the cut needs it."""
        return all(
            other == at or not cut[other] or rows[name][cut[other] - 1][at] < cut[at]
            for other, name in enumerate(names)
        )


def _join(clock: list[int], other: list[int]) -> None:
    clock.extend([0] * (len(other) - len(clock)))
    for number, value in enumerate(other):
        if value > clock[number]:
            clock[number] = value


def _reach(clock: list[int], number: int, value: int) -> None:
    clock.extend([0] * (number + 1 - len(clock)))
    clock[number] = value


def interleavings(trace: list[Step]) -> int:
    """In how many orders the choices of a run could be put if nothing had to come before anything else."""
    counts: dict[str, int] = {}
    for step in trace:
        if step.choice is not None:
            counts[step.worker] = counts.get(step.worker, 0) + 1
    return factorial(sum(counts.values())) // prod(factorial(count) for count in counts.values())
