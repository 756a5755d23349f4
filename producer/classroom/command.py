"""``producer course grade``."""

from __future__ import annotations

import sys
from pathlib import Path

from lab.errors import ExitCode
from producer import output
from producer.classroom import cell, grading, register, submitted
from producer.classroom.cell import Limits
from producer.classroom.grading import Grading
from producer.classroom.showing import Report
from producer.progress import Progress


def grade(folder: str, limits: Limits, jobs: int, anew: bool, as_json: bool) -> int:
    """Grade what a class has handed in, and say what came of it.

    Args:
        folder: The class's.
        limits: What each answer may use.
        jobs: Answers that are graded at a time.
        anew: Whether to grade anew what was graded before.
        as_json: Whether to write JSON, and nothing else, to stdout.

    Returns:
        0, whatever the verdicts are.

    Raises:
        BadCourse: There is no class, or another command grades it.
        NoWalls: This system cannot keep an answer away from the others.
    """
    made = register.read(Path(folder))
    if not sys.platform.startswith("linux"):
        raise cell.no_walls(f"it is {sys.platform}")
    at_work = Grading(made, limits, anew, Progress(None if as_json else sys.stderr))
    with grading.alone(made):
        try:
            at_work.run(jobs)
        except KeyboardInterrupt:
            done, all_ = len(at_work.graded), len(made.students) * len(made.exercises)
            print(f"\nStopped: {done} of {all_} are graded, and kept. The same command goes on.", file=sys.stderr)
            raise
    lessons = {
        student: {name: submitted.predicted(made, student, name) for name in made.lessons} for student in made.students
    }
    manifests = {student: submitted.manifest(made, student) for student in made.students}
    report = Report(made, limits, at_work.graded, manifests, lessons, grading.strangers(made))
    if as_json:
        output.write_json(report.to_json())
    else:
        output.write(report.text())
    return ExitCode.OK
