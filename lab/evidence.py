"""What a concept brings back: who did the work, what it cost, and whether its claims held."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, order=True)
class Who:
    """One worker as the kernel knows it: host name, process id, thread id."""

    host: str
    pid: int
    thread: int

    @classmethod
    def here(cls) -> Who:
        """The thread that calls this. A host of a fleet is named by CROSSHOST_HOST, else by its host name."""
        host = os.environ.get("CROSSHOST_HOST") or socket.gethostname()
        return cls(host, os.getpid(), threading.get_native_id())

    def __str__(self) -> str:
        return f"{self.host}/{self.pid}/{self.thread}"


@dataclass(frozen=True)
class Check:
    """A claim of a concept and whether the run bore it out."""

    claim: str
    held: bool


@dataclass
class Result:
    """The evidence of one concept run in one place.

    Attributes:
        concept: Name of the concept.
        place: ``threads``, ``processes`` or ``cluster``.
        happened: One line: what this run showed, with its numbers.
        why: One line: why it is so in this place.
        who: Every distinct worker that took part, the parent not included.
        facts: Counts, ids and distributions by name; values are JSON.
        costs: Seconds for one operation, by name of the operation.
        checks: The claims, each held or not.
        seconds: Wall time of the whole program, from the making of this object to ``conclude``.
    """

    concept: str
    place: str
    happened: str = ""
    why: str = ""
    who: list[Who] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    costs: dict[str, float] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self._started = time.perf_counter()

    @property
    def ok(self) -> bool:
        """Whether every claim held, and there was one."""
        return bool(self.checks) and all(check.held for check in self.checks)

    def check(self, claim: str, held: bool) -> None:
        """Record a claim and whether it held."""
        self.checks.append(Check(claim, bool(held)))

    def conclude(self, happened: str, why: Mapping[str, str]) -> Result:
        """Say what happened and stop the clock.

        Args:
            happened: One line with the numbers of this run.
            why: One line for each place; the one of this place is kept, if there is one.
        """
        self.happened, self.why = happened, why.get(self.place, "")
        self.seconds = time.perf_counter() - self._started
        return self

    def to_json(self) -> dict[str, Any]:
        """The result as plain JSON types, with ``ok``."""
        return {**asdict(self), "ok": self.ok}
