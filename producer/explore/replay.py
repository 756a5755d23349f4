"""`producer replay`: the same order on a real place, as often as wanted, and whether it went as it did when explored."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.errors import ExitCode
from lab.explored.schedule import BadSchedule, Schedule
from lab.settings import Settings
from producer import output
from producer.explore.program import Program, digest
from producer.session import Session

PATIENCE = 180.0
"""Seconds for one run."""


@dataclass
class Went:
    """How one run went.

    Attributes:
        how: ``ended``, ``stuck``, ``diverged``, ``refused``, ``failed``.
        text: What it printed, or what went wrong.
        same: Whether it went as when it was explored.
    """

    how: str
    text: str
    same: bool


def replay(file: str, place: str, times: int, as_json: bool) -> ExitCode:
    """Force a schedule on a place.

    Args:
        file: The schedule.
        place: One of ``lab.PLACES``.
        times: How often.
        as_json: Whether the report is JSON.

    Raises:
        BadSchedule: It cannot be read, is stale, or cannot be forced.
    """
    schedule = Schedule.read(file)
    program = Program(schedule.program)
    schedule.check(program.root, digest)
    if schedule.unforced:
        raise BadSchedule(
            f"The turns of {schedule.unforced} can be explored, and not forced on a place.",
            f"To see its order: producer explore {schedule.program}",
        )
    nested = [worker for worker in schedule.workers if ":" in worker]
    if nested and place != "threads":
        raise BadSchedule(
            f"{nested[0]} is a child's child: its turns cannot be forced on {place}.",
            f"Force it on threads: producer replay {file} --on threads",
        )
    with _place(place) as variables:
        went = [_once(file, schedule, place, variables) for _ in range(times)]
    same = sum(one.same for one in went)
    if as_json:
        runs = [{"how": one.how, "text": one.text, "same": one.same} for one in went]
        output.write_json(
            {"file": file, "on": place, "steps": len(schedule.turns), "times": times, "same": same, "runs": runs}
        )
    else:
        _show(schedule, place, went)
    return ExitCode.OK if same == times else ExitCode.CHECK_FAILED


@contextmanager
def _place(place: str) -> Iterator[dict[str, str]]:
    """A fleet for all the runs, where one is needed and none is configured; the variables that point at it."""
    settings = Settings.from_env()
    if place != "cluster" or settings.broker_url:
        yield {}
        return
    from lab.fleet.embedded import EmbeddedFleet

    fleet = EmbeddedFleet(settings)
    try:
        reached = fleet.start()
        yield {"CROSSHOST_BROKER_URL": reached.broker_url, "CROSSHOST_AUTHKEY_FILE": fleet.authkey_file}
    finally:
        fleet.stop()


def _once(file: str, schedule: Schedule, place: str, variables: dict[str, str]) -> Went:
    with tempfile.TemporaryDirectory(prefix="crosshost-replay-") as folder:
        status = os.path.join(folder, "status.json")
        command = [sys.executable, "-P", "-m", "producer.explore.forced", os.path.abspath(file), place, status]
        with Session(command, {**os.environ, **variables}) as session:
            session.wait(PATIENCE)
        err = session.err + ("" if session.code is not None else f"not ended after {PATIENCE:.0f} s\n")
        told: dict[str, Any] = {"how": "failed", "text": ""}
        with suppress(OSError, ValueError):
            told = json.loads(Path(status).read_text(encoding="utf-8"))
    return _judged(schedule, told["how"], told["text"] or session.out, err, session.code)


def _judged(schedule: Schedule, how: str, out: str, err: str, code: int | None) -> Went:
    if "Diverged" in err or how == "diverged":
        return Went("diverged", _last(err), False)
    if how == "refused":
        return Went(how, out, False)
    if schedule.kind in ("deadlock", "endless"):
        return Went(how, "", how == "stuck")
    if schedule.kind in (
        "no progress",
        "too long",
    ):  # rounds that only the order keeps up: it may end once it is let go
        return Went(
            how, "all steps were taken; let go, it has ended" if how == "ended" else "", how in ("stuck", "ended")
        )
    if schedule.kind in ("claim", "raised") and schedule.program.endswith(".py"):
        name = schedule.text.partition(" in ")[0].partition(":")[0]
        return Went("raised", _last(err), name in err)
    if how == "failed" and code == 0:
        return Went("failed", _last(err), False)
    return Went(how, out.strip() or _last(err), _lines(out) == _lines(schedule.text))


def _last(text: str) -> str:
    return text.strip().rpartition("\n")[2]


def _lines(text: str) -> list[str]:
    """The lines of an output, whoever wrote them, in any order: only those of one process have one."""
    plain = []
    for line in text.strip().splitlines():
        worker, colon, rest = line.partition(": ")
        plain.append(rest if colon and worker.startswith("Process-") else line)
    return sorted(line for line in plain if line != "(prints nothing)")


def _show(schedule: Schedule, place: str, went: list[Went]) -> None:
    found = schedule.text if schedule.kind == "result" else f"{schedule.kind}: {schedule.text}"
    lines = [
        f"{os.path.basename(schedule.program)} on {place}, {output.counted(len(schedule.turns), 'step')}"
        " in the order that was saved.",
        f"Explored, it ended so: {found}",
    ]
    for one in went:
        text = {"stuck": "all steps were taken; now it does not end, and was ended"}.get(one.how, one.text or one.how)
        lines.append(f"  {'same' if one.same else 'OTHER'}  {text}")
    lines.append(f"The same {sum(one.same for one in went)} of {len(went)} times.")
    output.write("".join(f"{line}\n" for line in lines))
