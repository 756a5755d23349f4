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
        recovered: Seconds until all of those were answered; for Redis and connections, until any call was.
    """

    what: str
    at: float
    held: set[int] = field(default_factory=set)
    recovered: float | None = None


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

    def strike(self, blow: Blow) -> None:
        """Note a blow, just before it falls."""
        self._told(blow)
        with self._changed:
            self.blows.append(blow)

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
                self._answers[number] += 1
                for blow in self.blows:
                    if blow.recovered is None and not any(task in pending for task in blow.held):
                        blow.recovered = self.now() - blow.at
        self.seconds = self.now()

    def verdict(self, plain: int, once: int) -> dict[str, Any]:
        """The comparison, once everything has ended.

        Args:
            plain: What the counter says that was added to plainly.
            once: What the counter says that was added to by number.

        Returns:
            JSON types: accepted, done, lost, done twice ..., recovery in seconds, and ``ok``.
        """
        lost = sorted(set(range(self.accepted)) - set(self._answers))
        times = [blow.recovered for blow in self.blows if blow.recovered is not None]
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
            "not recovered": sum(blow.recovered is None for blow in self.blows),
            "recovery median": round(statistics.median(times), 3) if times else None,
            "recovery worst": round(max(times), 3) if times else None,
            "seconds": round(self.seconds, 1),
            "ok": not lost
            and not self.errors
            and once == self.accepted
            and max(self._answers.values(), default=1) == 1,
        }
