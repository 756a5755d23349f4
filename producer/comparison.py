"""What ``producer compare`` has measured, for its report."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import lab
from producer.machine import Machine
from producer.runs import Link, Run


@dataclass
class Comparison:
    """What ``producer compare`` has measured.

    Attributes:
        concepts: Names, in the order they ran.
        places: Names, in the order they ran.
        missing: Places that there are not here, each with the reason.
        runs: Every concept in every place, the places of a concept next to each other.
        link: What lies between this machine and the fleet; None without the cluster.
        machine: What it ran on.
        version: Version of the lab.
        started: When, UTC.
        seconds: How long all of it took.
        load_after: Load average at the end.
    """

    concepts: list[str]
    places: list[str]
    missing: dict[str, str] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)
    link: Link | None = None
    machine: Machine = field(default_factory=Machine.here)
    version: str = lab.__version__
    started: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    seconds: float = 0.0
    load_after: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether every claim of every program held."""
        return all(run.ok for run in self.runs)

    def to_json(self) -> dict[str, Any]:
        """The comparison as plain JSON types."""
        return {
            "version": self.version,
            "started": self.started,
            "seconds": self.seconds,
            "ok": self.ok,
            "machine": vars(self.machine),
            "load_after": self.load_after,
            "link": vars(self.link) if self.link else None,
            "concepts": self.concepts,
            "places": self.places,
            "missing": self.missing,
            "runs": [run.to_json() for run in self.runs],
        }
