"""What applies to a fleet, and what a run comes to."""

from __future__ import annotations

import fnmatch
import tomllib
from dataclasses import dataclass
from pathlib import Path

from conformance.judge import Outcome

HERE = Path(__file__).parent
AREAS = {
    "Manager": ("WithManager*", "TestSyncManagerTypes", "TestManagerExceptions"),
    "Process": ("*TestProcess", "*TestSubclassingProcess", "TestStdinBadfiledescriptor", "TestStartMethod", "*TestPollEintr",
                "TestFlags", "TestNoForkBomb", "TestForkAwareThreadLock", "*TestAtExit"),
    "Pipe, Connection": ("*TestConnection", "*TestListener", "*TestListenerClient", "*TestPoll", "*TestPicklingConnections",
                         "TestWait", "TestTimeouts", "TestIgnoreEINTR", "TestInvalidHandle", "TestInvalidFamily", "OtherTest",
                         "ChallengeResponseTest", "TestCloseFds"),
    "Queue": ("*TestQueue", "TestSimpleQueue"),
    "Lock, Event, Barrier": ("*TestLock", "*TestSemaphore", "*TestCondition", "*TestEvent", "*TestBarrier"),
    "Value, Array": ("*TestValue", "*TestArray", "*TestSharedCTypes"),
    "Pool": ("*TestPool", "*TestPoolWorkerErrors", "*TestPoolWorkerLifetime", "TestPoolNotLeakOnFailure", "TestInitializers"),
    "other": ("*",),
}  # fmt: skip
"""Patterns of class names for each area of the suite; the first that matches counts."""


@dataclass(frozen=True)
class Exclusion:
    """Tests that cannot judge a context whose processes run on several hosts.

    Attributes:
        name: What ``docs/differences.md`` calls it.
        reason: Why they cannot.
        tests: Patterns of ``Class.test``.
    """

    name: str
    reason: str
    tests: tuple[str, ...]


def area_of(kind: str) -> str:
    """The area of a class of tests."""
    return next(area for area, patterns in AREAS.items() if any(fnmatch.fnmatchcase(kind, p) for p in patterns))


def exclusions() -> list[Exclusion]:
    """All of them."""
    entries = tomllib.loads((HERE / "exclusions.toml").read_text())["exclude"]
    return [Exclusion(**{**entry, "tests": tuple(entry["tests"])}) for entry in entries]


def exclusion_of(test: str, known: list[Exclusion]) -> Exclusion | None:
    """Why a test does not apply, None if it does."""
    return next((entry for entry in known if any(fnmatch.fnmatchcase(test, p) for p in entry.tests)), None)


def ratchet() -> list[str]:
    """The tests that must pass on the cluster."""
    return (HERE / "cluster.txt").read_text().split()


def table(results: dict[str, dict[str, Outcome]]) -> str:
    """Passed of applicable, by area and place.

    Args:
        results: For each place, ``Class.test`` and its outcome.
    """
    rows = [["area", *results]]
    for area in [*AREAS, "all"]:
        cells = [_cell(results[place], area) for place in results]
        if any(cells):
            rows.append([area, *cells])
    rows.append(["seconds", *(f"{sum(o.seconds for o in found.values()):.0f}" for found in results.values())])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows
    )


def _cell(found: dict[str, Outcome], area: str) -> str:
    judged = [o for test, o in found.items() if o.status != "skip" and area in ("all", area_of(test.partition(".")[0]))]
    return f"{sum(o.passed for o in judged)} of {len(judged)}" if judged else ""
