"""The ledger: every call that was accepted, and what became of it, as Jepsen compares a history with a state."""

from __future__ import annotations

import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Blow:
    """Something that was broken on purpose.

    Attributes:
        what: host, supervisor, forker, process, redis or connections.
        at: Seconds since the beginning.
        held: Calls that its victims had begun or taken.
    """

    what: str
    at: float
    held: set[int] = field(default_factory=set)


class Ledger:
    """What was asked for and what came back.

    Args:
        accepted: Number of calls, which are numbered from 0.
        told: Hears of each blow.
    """

    def __init__(self, accepted: int, told: Callable[[Blow], None] = lambda blow: None) -> None:
        self.accepted, self._told = accepted, told
        self.blows: list[Blow] = []
        self.errors: list[str] = []
        self._answers: Counter[int] = Counter()
        self._answered_at: list[float] = []
        self._over: dict[int, float] = {}  # of the calls that were hit: when they were answered
        self._struck: dict[str, Blow] = {}  # by worker
        self._begun = time.monotonic()
        self._changed = threading.Condition()
        self.seconds = 0.0

    def now(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._begun

    @property
    def done(self) -> int:
        """Calls that were answered."""
        return len(self._answers)

    def strike(self, what: str, victims: dict[str, set[int]] | None = None) -> None:
        """Note a blow, just before it falls.

        Args:
            what: What is broken.
            victims: The calls that its victims hold, by worker. One that an earlier blow has hit is dead, though the pool
                may not know it yet, and no victim of this one.
        """
        with self._changed:
            blow = Blow(what, self.now())
            for worker, held in (victims or {}).items():
                if self._struck.setdefault(worker, blow) is blow:
                    blow.held |= held
            self.blows.append(blow)
        self._told(blow)

    def left(self, worker: str, held: set[int]) -> None:
        """Note what a dead worker has left, as it is put back.

        Excluded: missing a call that it took between the look of who struck it and its death.
        """
        with self._changed:
            if worker in self._struck:
                self._struck[worker].held |= held

    def keep(self, answers: Iterator[int], pending: Any) -> None:
        """Note answers until there are no more; runs in a thread of its own.

        Args:
            answers: The numbers of calls, as they are answered.
            pending: The numbers of the pool's tasks that have no answer yet.
        """
        while True:
            try:
                number = next(answers)
            except StopIteration:
                break
            except Exception as exc:  # noqa: BLE001 - whatever a call ends with is an entry
                self.errors.append(f"{type(exc).__name__}: {exc}".splitlines()[0])
                continue
            with self._changed:
                now = self.now()
                self._answers[number] += 1
                self._answered_at.append(now)
                for task in set[int]().union(*(blow.held for blow in self.blows)) - self._over.keys():
                    if task not in pending:
                        self._over[task] = now
        self.seconds = self.now()

    def recovered(self, blow: Blow) -> float | None:
        """Seconds until all calls that its victims held were answered; for Redis and connections, until any call was.

        A call that was put back, taken elsewhere, and hit there by another blow, counts for that one from then on. So this is
        what one blow costs; what several cost that met the same call, ``hit_again`` tells.
        """
        if not blow.held:
            ends: list[float | None] = [next((at for at in self._answered_at if at > blow.at), None)]
        else:
            ends = [self._end(task, blow) for task in blow.held]
        known = [end for end in ends if end is not None]
        return max(known) - blow.at if len(known) == len(ends) else None

    def _end(self, task: int, blow: Blow) -> float | None:
        later = [other.at for other in self.blows[self.blows.index(blow) + 1 :] if task in other.held]
        return min([*later, *([self._over[task]] if task in self._over else [])], default=None)

    def hit_again(self) -> list[float]:
        """Of each call that several blows met, the seconds from the first one until it was answered."""
        first: dict[int, float] = {}
        again = set[int]()
        for blow in self.blows:
            again |= blow.held & first.keys()
            first = dict.fromkeys(blow.held, blow.at) | first
        return [self._over[task] - first[task] for task in again if task in self._over]

    def verdict(self, plain: int, once: int) -> dict[str, Any]:
        """The comparison, once everything has ended.

        Args:
            plain: What the counter says that was added to plainly.
            once: What the counter says that was added to by number.

        Returns:
            JSON types: accepted, done, lost, done twice ..., recovery in seconds, and ``ok``.
        """
        lost = sorted(set(range(self.accepted)) - set(self._answers))
        each = [(blow, self.recovered(blow)) for blow in self.blows]
        times = [seconds for _, seconds in each if seconds is not None]
        again = self.hit_again()
        return {
            "accepted": self.accepted,
            "done": self.done,
            "lost": len(lost),
            "first lost": lost[:10],
            "errors": self.errors[:10],
            "answered twice": sum(count > 1 for count in self._answers.values()),
            "done twice": plain - self.accepted,
            "counted plainly": plain,
            "counted by number": once,
            "blows": dict(Counter(blow.what for blow in self.blows)),
            "each blow": [
                {
                    "what": blow.what,
                    "at": round(blow.at, 3),
                    "held": len(blow.held),
                    "recovery": seconds and round(seconds, 3),
                }
                for blow, seconds in each
            ],
            "not recovered": len(each) - len(times),
            "recovery median": round(statistics.median(times), 3) if times else None,
            "recovery worst": round(max(times), 3) if times else None,
            "hit again": len(again),
            "hit again worst": round(max(again), 3) if again else None,
            "seconds": round(self.seconds, 1),
            "ok": not lost
            and not self.errors
            and once == self.accepted
            and max(self._answers.values(), default=1) == 1,
        }
