"""All concepts in all places, one after the other, and the evidence of it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lab
from producer import output, report
from producer.capture import STDERR, STDOUT, Capture
from producer.machine import Machine, load
from producer.progress import Progress
from producer.runs import Link, Run, opened, run_captured


@dataclass
class Comparison:
    """What ``producer compare`` has measured.

    Attributes:
        concepts: Names, in the order they ran.
        places: Names, in the order they ran.
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
            "runs": [run.to_json() for run in self.runs],
        }


def compare(concepts: list[str], places: list[str], json_file: str | None, quiet: bool, rtt: float = 0.0) -> list[Run]:
    """Measure, then write the report to stdout and the evidence to a file, or the evidence alone to stdout.

    Args:
        concepts: Names of the concepts.
        places: Names of the places.
        json_file: Path for the evidence; ``-`` is stdout, None is nowhere.
        quiet: No progress.
        rtt: Seconds of network to add between the fleet and Redis.

    Returns:
        The runs, for the exit code.
    """
    with Capture(STDOUT, STDERR) as capture:
        progress = Progress(None if quiet else capture.real[STDERR])
        try:
            comparison = measure(concepts, places, capture, progress, rtt)
        finally:
            progress.clear()
    if json_file == "-":
        output.write_json(comparison.to_json())
        return comparison.runs
    output.write_rich(report.comparison(comparison))
    if json_file:
        with Path(json_file).open("w", encoding="utf-8") as file:
            output.write_json(comparison.to_json(), file)
    return comparison.runs


def measure(
    concepts: list[str], places: list[str], capture: Capture, progress: Progress, rtt: float = 0.0
) -> Comparison:
    """Run every concept in every place.

    The places of one concept run next to each other, so that a machine whose speed drifts treats them alike.

    Raises:
        LabError: There is no fleet to connect to; found out before anything runs.
    """
    found = Comparison(concepts, places)
    began = time.perf_counter()
    with opened(places, progress, rtt) as contexts:
        if "cluster" in contexts:
            found.link = Link.measure(contexts["cluster"], rtt)
        for concept in concepts:
            for ctx in contexts.values():
                progress.say(f"[{len(found.runs) + 1}/{len(concepts) * len(places)}] {concept} on {ctx.place}")
                found.runs.append(run_captured(concept, ctx, capture))
    found.seconds, found.load_after = time.perf_counter() - began, load()
    return found
