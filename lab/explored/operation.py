"""Operations: what a worker is about to do to what is shared, and which two of them may not change places."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Place = tuple[str, int]
"""A line of source: file and number."""


class Touch(NamedTuple):
    """What an operation touches: an object by its key, a part of it (None: all), and whether it writes."""

    key: str
    part: int | None
    writes: bool

    def meets(self, other: Touch) -> bool:
        """Whether one of two touches of the same object writes what the other touches."""
        return (self.writes or other.writes) and (self.part is None or other.part is None or self.part == other.part)


@dataclass(slots=True)
class Operation:
    """One indivisible step of a worker.

    Attributes:
        kind: Its name, such as ``acquire``.
        touches: What it reads and writes. Two operations are independent if neither writes what the other touches.
        act: Does it, when its turn has come.
        ready: Whether it can be done now; None if always.
        timeout: Virtual seconds after which it is given up, None if never.
        expire: What it returns or raises when given up.
        local: Whether it is independent of whatever others may do meanwhile, so that it is done as soon as it is ready and is
            no choice: to start, to join, to sleep.
        victim: Key of the worker that it ends, if it does.
        note: What it says of its result, for the picture.
        waits_for: In words what it waits for, when it is not ready.
        where: The line of the program.
    """

    kind: str
    act: Callable[[], Any]
    touches: tuple[Touch, ...] = ()
    ready: Callable[[], bool] | None = None
    timeout: float | None = None
    expire: Callable[[], Any] | None = None
    local: bool = False
    victim: str = ""
    note: Callable[[Any], str] | None = None
    waits_for: Callable[[], str] | None = None
    where: Place = ("", 0)

    def is_ready(self) -> bool:
        """Whether it can be done now."""
        return self.ready is None or self.ready()


@dataclass(slots=True)
class Step:
    """An operation that was done.

    Attributes:
        worker: Key of the worker.
        kind, touches, victim, where: The operation's.
        label: Name of the first object that it touches.
        choice: How many choices came before it; None if it was done without one.
        expired: Whether it was given up.
        child: The worker that it started or joined.
        note: What it says of its result.
        state: The objects that it touched, afterwards, by label; only in a run that is to be shown.
        result: What it returned, where that is a truth value or a number.
        raised: The class of what it raised.
        item: What it took out of a queue or a pipe, if that is a truth value or a number.
    """

    worker: str
    kind: str
    touches: tuple[Touch, ...]
    where: Place
    label: str = ""
    choice: int | None = None
    expired: bool = False
    victim: str = ""
    child: str = ""
    note: str = ""
    state: dict[str, str] = field(default_factory=dict)
    result: bool | int | float | None = None
    raised: str = ""
    item: bool | int | float | None = None


def conflict(one: Iterable[Touch], other: Iterable[Touch]) -> bool:
    """Whether one of them writes what the other touches."""
    return any(a.key == b.key and a.meets(b) for a in one for b in other)


def dependent(worker: str, one: Operation, another_worker: str, other: Operation) -> bool:
    """Whether the order of two operations of different workers can make a difference."""
    return one.victim == another_worker or other.victim == worker or conflict(one.touches, other.touches)


def lost(steps: Iterable[tuple[str, str, Any]]) -> Iterator[tuple[int, int, int]]:
    """Where somebody writes what he read before another one wrote it.

    Args:
        steps: Of each, who does what to what.

    Yields:
        The numbers, from 0, of the read, of the last write of all before, and of the write that destroys it.
    """
    read: dict[tuple[str, Any], int] = {}
    written: dict[Any, tuple[int, str]] = {}
    for at, (worker, does, thing) in enumerate(steps):
        if does == "read":
            read[worker, thing] = at
        elif does == "write":
            since, last = read.pop((worker, thing), None), written.get(thing)
            if since is not None and last is not None and since < last[0] and last[1] != worker:
                yield since, last[0], at
            written[thing] = at, worker
