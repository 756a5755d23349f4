"""What a class has handed in, in words: a table, and below it what there is to be looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from producer.classroom.cell import Limits
from producer.classroom.grading import RESULT, Graded
from producer.classroom.register import Class
from producer.classroom.results import PASS
from producer.learning.showing import wrapped

SHOWN = {"pass": "pass", "fail": "FAIL", "error": "ERROR"}


@dataclass(frozen=True)
class Report:
    """All that came of it.

    Attributes:
        made: The class.
        limits: What each answer might use.
        graded: The answers, by student and exercise.
        manifests: By student, what is wrong with the manifest; empty if nothing is.
        lessons: By student and lesson, how many steps were predicted, of how many.
        strangers: Folders that are nobody's.
    """

    made: Class
    limits: Limits
    graded: Mapping[tuple[str, str], Graded]
    manifests: Mapping[str, str]
    lessons: Mapping[str, Mapping[str, tuple[int, int]]]
    strangers: list[str]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            "class": str(self.made.folder),
            "seed": self.made.seed,
            "due": self.made.due.isoformat() if self.made.due else None,
            "limits": vars(self.limits),
            "students": [self._student(name) for name in self.made.students],
            "strangers": self.strangers,
        }

    def _student(self, name: str) -> dict[str, Any]:
        return {
            "student": name,
            "manifest": self.manifests[name] or None,
            "passed": sum(one.result.status == PASS for one in self._of(name)),
            "exercises": [
                {
                    "exercise": one.exercise, "status": one.result.status, "why": one.result.why or None,
                    "remarks": one.remarks, "graded before": one.before,
                    "results": str(self.made.results(name, one.exercise) / RESULT),
                }
                for one in self._of(name)
            ],
            "lessons": [
                {"lesson": lesson, "steps predicted": done, "steps": steps}
                for lesson, (done, steps) in self.lessons[name].items()
            ],
        }  # fmt: skip

    def _of(self, student: str) -> list[Graded]:
        return [self.graded[student, exercise] for exercise in self.made.exercises]

    def text(self) -> str:
        """In plain text."""
        parts = [_table(self._rows())]
        told = [
            wrapped(f"{one.student}, {one.exercise}: {line}", "  ")
            for one in self.graded_in_order
            for line in one.result.why.splitlines()[:1]
        ]
        look = [
            *(f"{student}: {wrong}" for student, wrong in self.manifests.items() if wrong),
            *(f"{one.student}, {one.exercise}: {remark}" for one in self.graded_in_order for remark in one.remarks),
            *(f"{name!r} among the students' folders is of nobody in this class" for name in self.strangers),
        ]
        if told:
            parts.append("\nWhat went wrong first:\n" + "\n".join(told) + "\n")
        if look:
            parts.append("\nTo be looked at:\n" + "\n".join(wrapped(line, "  ") for line in look) + "\n")
        before = sum(one.before for one in self.graded.values())
        if before:
            parts.append(f"\n{before} of {len(self.graded)} had been graded before; --again grades them anew.\n")
        return "".join([*parts, self._end()])

    @property
    def graded_in_order(self) -> list[Graded]:
        """The answers, student by student."""
        return [one for student in self.made.students for one in self._of(student)]

    def _rows(self) -> list[list[str]]:
        heads = ["student", *self.made.exercises, *(["lessons"] if self.made.lessons else [])]
        rows = [heads]
        for student in self.made.students:
            whole = [done == steps for done, steps in self.lessons[student].values()]
            cells = [SHOWN[one.result.status] for one in self._of(student)]
            rows.append([student, *cells, *([f"{sum(whole)} of {len(whole)}"] if whole else [])])
        return rows

    def _end(self) -> str:
        return (
            f"\nEach verdict is in {self.made.folder}/results/STUDENT/EXERCISE/{RESULT}.\n"
            f"Each answer had, by itself: {self.limits}.\n"
            if self.made.exercises
            else ""
        )


def _table(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines) + "\n"
