"""A student's folder: what its manifest says, ``course.json``; commands that are typed in it, or below it, heed that.

In such a folder ``producer exercise`` has the student's number in each file to mend, and what is kept of lessons and
exercises lies in the folder itself, so that it comes back with it. Whoever grades takes no number from a manifest.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.errors import ExitCode, LabError

MANIFEST = "course.json"
KEPT = "kept"
"""The folder of what is kept of lessons and exercises."""
LESSONS = "lessons"
"""The folder of lessons with numbers of the student's own."""
FORM = "crosshost course"
"""The key by which a manifest is known, whatever other programs call course.json; its value is the form's version."""


class BadCourse(LabError, ValueError):
    """A folder of a course, or of a class, that is not as it should be."""

    exit_code = ExitCode.USAGE


@dataclass(frozen=True)
class Enrolled:
    """What a manifest says.

    Attributes:
        folder: The student's.
        student: The name.
        lessons: To be taken.
        numbers: By exercise, the number that is this student's own.
    """

    folder: Path
    student: str
    lessons: tuple[str, ...]
    numbers: dict[str, int]

    @property
    def kept(self) -> Path:
        """Where predictions, hints and what was passed are kept."""
        return self.folder / KEPT

    def course(self, lesson: str) -> Path | None:
        """Where a lesson lies that has the student's own numbers; None if it has none."""
        return self.folder / LESSONS if (self.folder / LESSONS / lesson).is_dir() else None

    def to_json(self) -> dict[str, Any]:
        """As the manifest has it."""
        return {FORM: 1, "student": self.student, "lessons": self.lessons, "numbers": self.numbers}


def find(start: Path | None = None) -> Enrolled | None:
    """What the manifest of a folder says, or the nearest above it; None if there is none.

    Args:
        start: The folder; the current one by default.

    Raises:
        BadCourse: It cannot be read.
    """
    here = (start or Path()).absolute()
    for folder in (here, *here.parents):
        file = folder / MANIFEST
        with suppress(PermissionError):  # a folder above that is another one's
            if file.is_file() and (read := _read(file)) is not None:
                return read
    return None


def _read(file: Path) -> Enrolled | None:
    damaged = BadCourse(f"{file} is damaged.", "Put the one back that came with the folder, or ask who teaches for it.")
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
    except OSError as exc:
        raise BadCourse(f"Cannot read {file}: {exc.strerror or exc}.", f"ls -l '{file}'") from exc
    except ValueError as exc:
        raise damaged from exc
    if not isinstance(said, dict) or FORM not in said:
        return None
    try:
        numbers = {str(name): int(number) for name, number in said["numbers"].items()}
        return Enrolled(file.parent, str(said["student"]), tuple(map(str, said["lessons"])), numbers)
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise damaged from exc
