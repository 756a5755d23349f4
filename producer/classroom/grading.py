"""``producer course grade``: every answer of a class, each by itself; what is graded is kept, and a second run goes on."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab import __version__
from producer import output
from producer.classroom import cell, register, results, submitted
from producer.classroom.cell import Cell, Limits
from producer.classroom.enrolled import BadCourse
from producer.classroom.register import RESULTS, STUDENTS, Class
from producer.classroom.results import Result
from producer.classroom.submitted import Submitted
from producer.progress import Progress

FILES = ("start.py", "exercise.md", "grader.py")
"""Of an exercise, what grades it; the solution stays outside."""
RESULT, STAMP = "results.json", "graded.json"


@dataclass
class Graded:
    """An answer, graded.

    Attributes:
        student, exercise: Whose, and to what.
        result: The verdict.
        remarks: What whoever grades should look at.
        before: Whether it was graded by an earlier run.
    """

    student: str
    exercise: str
    result: Result
    remarks: list[str] = field(default_factory=list)
    before: bool = False


class Grading:
    """All answers of a class.

    Args:
        made: The class.
        limits: What each answer may use.
        anew: Whether to grade anew what was graded already.
        progress: Told what is graded.
    """

    def __init__(self, made: Class, limits: Limits, anew: bool, progress: Progress) -> None:
        self._made, self._limits, self._anew, self._progress = made, limits, anew, progress
        self._cells: set[Cell] = set()
        self._over = threading.Event()
        self._lock = threading.Lock()
        self.graded: dict[tuple[str, str], Graded] = {}

    def run(self, jobs: int) -> None:
        """Grade all of them, so many at a time.

        Raises:
            NoWalls: This system cannot keep an answer away from the others.
            KeyboardInterrupt: What was graded is kept.
        """
        todo = [(student, exercise) for student in self._made.students for exercise in self._made.exercises]
        with ThreadPoolExecutor(jobs, "crosshost-grade") as pool:
            try:
                waiting = [pool.submit(self._one, *each) for each in todo]
                self._collect(waiting)
            except BaseException:
                self._stop()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        self._progress.clear()

    def _collect(self, waiting: list[Future[Graded | None]]) -> None:
        for number, future in enumerate(as_completed(waiting), 1):
            one = future.result()
            if one is not None:
                self.graded[one.student, one.exercise] = one
                if not one.before:
                    self._progress.say(
                        f"{number} of {len(waiting)}: {one.student}, {one.exercise}: {one.result.status}"
                    )

    def _stop(self) -> None:
        with self._lock:  # a cell that is made after this look sees that it is over
            self._over.set()
            for each in self._cells:
                each.end()

    def _one(self, student: str, name: str) -> Graded | None:
        """Grade one answer, if it is not graded; None if it was ended meanwhile, and so has no verdict."""
        handed_in = submitted.answer(self._made, student, name)
        stamp = self._stamp(handed_in, student)
        kept = None if self._anew else _kept(self._made.results(student, name), stamp)
        result = kept or self._result(handed_in, student)
        if result is None:
            return None
        if kept is None:
            _keep(self._made.results(student, name), result, stamp)
        return Graded(student, name, result, handed_in.remarks, kept is not None)

    def _result(self, handed_in: Submitted, student: str) -> Result | None:
        if handed_in.wrong:
            return results.error(handed_in.wrong)
        if handed_in.as_given:
            return results.failed("handed in", "it is as it was given out")
        exercise = handed_in.exercise
        job = {
            "exercise": exercise.name,
            "files": {name: (exercise.folder / name).read_text(encoding="utf-8") for name in FILES},
            "number": exercise.number,
            "answer": handed_in.text,
            "seed": register.own(self._made.seed, exercise.name, student).seed,
        }
        result = Result(results.PASS)
        for orders in (True, False):
            told = self._within({**job, "orders": orders})
            if told is None:
                return None
            result = results.of(told, result.tests)
            if result.status != results.PASS:
                break
        return result

    def _within(self, job: dict[str, Any]) -> cell.Told | None:
        """What came out of a cell; None if it was ended as all are."""
        one = Cell(self._limits, self._made.folder.resolve())
        with self._lock:
            if self._over.is_set():
                return None
            self._cells.add(one)
        try:
            told = one.grade(job)
        finally:
            with self._lock:
                self._cells.discard(one)
        return None if self._over.is_set() else told

    def _stamp(self, handed_in: Submitted, student: str) -> str:
        """Of what a verdict depends on: with the same stamp it would be the same."""
        own = register.own(self._made.seed, handed_in.exercise.name, student)
        files = [(handed_in.exercise.folder / name).read_text(encoding="utf-8") for name in FILES]
        parts = [__version__, str(self._limits), str(own), handed_in.wrong, handed_in.text, *files]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _kept(folder: Path, stamp: str) -> Result | None:
    """What an earlier run has found; None if it has not come to this answer."""
    try:
        if json.loads((folder / STAMP).read_text(encoding="utf-8"))["stamp"] != stamp:
            return None
        return results.read(json.loads((folder / RESULT).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return None  # there is none, or it was broken off with the machine: graded anew


def _keep(folder: Path, result: Result, stamp: str) -> None:
    """Keep a verdict, and its stamp after it: a stamp without its verdict there never is."""
    with output.written(str(folder)):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / STAMP).unlink(missing_ok=True)
        for name, value in ((RESULT, result.to_json()), (STAMP, {"stamp": stamp})):
            new = folder / f"{name}.new"
            new.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            new.replace(folder / name)


@contextmanager
def alone(made: Class) -> Iterator[None]:
    """Keep others from grading the same class meanwhile.

    Raises:
        BadCourse: Somebody does.
    """
    import fcntl

    folder = made.folder / RESULTS
    with output.written(str(folder)):
        folder.mkdir(exist_ok=True)
        lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        os.close(lock)
        raise BadCourse(
            f"{made.folder} is being graded by another command.", "Wait for its end; what it has graded is kept."
        ) from exc
    try:
        yield
    finally:
        os.close(lock)


def strangers(made: Class) -> list[str]:
    """Folders among the students' that are nobody's in the class."""
    try:
        return sorted(path.name for path in (made.folder / STUDENTS).iterdir() if path.name not in made.students)
    except OSError:
        return []
