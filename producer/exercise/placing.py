"""An answer, graded where it really runs: what it prints, and by the history in its trace, who has done how much."""

from __future__ import annotations

import os
import re
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lab.trace import file as traces
from lab.trace.events import Trace
from producer.exercise.claims import Fault, Note
from producer.exercise.exercise import Args, Exercise
from producer.exercise.exploring import note, wrong_output
from producer.exercise.history import History
from producer.html import page
from producer.learning.running import Printed, Room

LIMIT = 90.0
"""Seconds for one run, with the start of its interpreter and of its processes."""


@dataclass
class Placed:
    """An answer, run once in a place.

    Attributes:
        place: Where.
        args: Its arguments.
        seconds: How long it took.
        ops: How many operations its trace has.
        fault: What went wrong; None if nothing did.
        note: What is said of such an answer.
    """

    place: str
    args: Args
    seconds: float
    ops: int = 0
    fault: Fault | None = None
    note: Note | None = None


def run(
    exercise: Exercise,
    file: Path,
    place: str,
    args: Args,
    where: Room,
    limit: float = LIMIT,
    picture: str = "",
) -> Placed:
    """Run an answer in a place, traced, and grade it.

    Args:
        exercise: Whose answer it is.
        file: The answer.
        place: One of the exercise's places.
        args: What it finds in ``sys.argv[1:]``.
        where: The places.
        limit: Seconds after which it is ended.
        picture: File for what happened, written if something went wrong and there is a trace of it; empty for none.
    """
    source = file.read_text(encoding="utf-8-sig")
    with tempfile.TemporaryDirectory(prefix="crosshost-exercise-") as folder:
        path = os.path.join(folder, "trace.json")
        printed = where.run(file, place, args, path, limit)
        # without one it was ended, or has not imported multiprocessing, so that nothing could be recorded
        trace = traces.read(path) if os.path.exists(path) else Trace()
    history = History.traced(trace, source)
    placed = Placed(place, args, printed.seconds, len(history.ops))
    placed.fault = _fault(exercise, file, history, printed, placed)
    if placed.fault is not None:
        if printed.code == 0:
            placed.note = note(exercise, history, placed.fault)
        if picture and trace.events:
            with suppress(OSError):  # what went wrong is worth more than its picture
                page.write(picture, trace)
    return placed


def _fault(exercise: Exercise, file: Path, history: History, printed: Printed, placed: Placed) -> Fault | None:
    if printed.code is None:
        return Fault("no end", f"on {placed.place} it had not ended after {printed.limit:g} seconds, and was ended")
    if printed.code:
        return _failed(printed, file)
    claimed = next(iter(exercise.grader.claims(history, placed.args)), None)
    return claimed or wrong_output(exercise, placed.args, printed.stdout, history.source)


def _failed(printed: Printed, file: Path) -> Fault:
    """An exception that nobody caught: its last line, and the last line of the answer in it."""
    lines = [int(line) for line in re.findall(rf'{re.escape(file.name)}", line (\d+)', printed.stderr)]
    raised = [
        line for line in printed.stderr.splitlines() if re.match(r"\w[\w.]*(Error|Exception|Interrupt|Lost)\b", line)
    ]
    said = raised[-1] if raised else printed.failure()
    return Fault("raised", said, lines[-1] if lines else 0)
