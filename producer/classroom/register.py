"""A class's folder: what ``class.json`` says; who is in it, and whose number is which.

Everything that is a student's own follows from the seed, the exercise and the student's name: so a folder can be made again,
and somebody who comes later gets one without a change to any other.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from producer import output
from producer.classroom.enrolled import BadCourse

FILE = "class.json"
FORM = "crosshost class"
STUDENTS = "students"
RESULTS = "results"
NUMBERS = range(100_000, 1_000_000)
"""Of these is a student's number in an exercise: who has the same one as another one has most likely copied."""
SEEDS = 1_000_000


@dataclass(frozen=True)
class Own:
    """What is a student's own in an exercise.

    Attributes:
        number: What the program prints first.
        seed: Of the sizes with which it is graded.
        example: Of the sizes that the question names.
    """

    number: int
    seed: int
    example: int


def own(seed: int, exercise: str, student: str) -> Own:
    """What is a student's own in an exercise."""
    chance = random.Random(f"{seed}/{exercise}/{student}")
    return Own(chance.choice(NUMBERS), chance.randrange(SEEDS), chance.randrange(SEEDS))


@dataclass
class Class:
    """A class.

    Attributes:
        folder: Where it lies.
        seed: What numbers are made of.
        lessons: To be taken.
        exercises: To be mended.
        due: When answers are due, with a time zone; None for never.
        students: By name, the digest of the manifest as it was given out.
    """

    folder: Path
    seed: int
    lessons: list[str]
    exercises: list[str]
    due: datetime | None = None
    students: dict[str, str] = field(default_factory=dict)

    def of(self, student: str) -> Path:
        """A student's folder."""
        return self.folder / STUDENTS / student

    def results(self, student: str, exercise: str) -> Path:
        """The folder of a student's results in an exercise."""
        return self.folder / RESULTS / student / exercise

    def numbers(self, exercise: str) -> dict[int, str]:
        """The students by their numbers in an exercise."""
        return {own(self.seed, exercise, student).number: student for student in self.students}

    def write(self) -> None:
        """Write it to its folder.

        Raises:
            OutputFailed: It cannot be written.
        """
        said = {
            FORM: 1, "seed": self.seed, "lessons": self.lessons, "exercises": self.exercises,
            "due": self.due.isoformat() if self.due else None, "students": self.students,
        }  # fmt: skip
        file = self.folder / FILE
        with output.written(str(file)):
            file.with_suffix(".new").write_text(json.dumps(said, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            file.with_suffix(".new").replace(file)


def read(folder: Path) -> Class:
    """The class in a folder.

    Raises:
        BadCourse: There is none, or it cannot be read.
    """
    file = folder / FILE
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
        return _of(folder, said)
    except FileNotFoundError as exc:
        raise BadCourse(
            f"There is no class in {str(folder)!r}: it has no {FILE}.",
            f"To make one: producer course new '{folder}' --exercises lost_update --students 20",
        ) from exc
    except OSError as exc:
        raise BadCourse(f"Cannot read {str(file)!r}: {exc.strerror or exc}.", f"ls -l '{file}'") from exc
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise BadCourse(
            f"{str(file)!r} is damaged: {exc}.",
            "Put it back from a copy; or make the class again, with the same --seed, students and exercises: "
            "the numbers will be the same.",
        ) from exc


def _of(folder: Path, said: dict[str, Any]) -> Class:
    if FORM not in said:
        raise ValueError(f"it has no {FORM!r}")
    return Class(
        folder, int(said["seed"]), list(map(str, said["lessons"])), list(map(str, said["exercises"])),
        datetime.fromisoformat(said["due"]) if said["due"] else None,
        {str(name): str(digest) for name, digest in said["students"].items()},
    )  # fmt: skip
