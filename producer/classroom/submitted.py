"""What a student has handed in, read without trusting it: no link is followed, no pipe waited for, nothing large read."""

from __future__ import annotations

import ast
import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from lab.errors import LabError
from producer.classroom import making, register
from producer.classroom.enrolled import KEPT, MANIFEST
from producer.classroom.register import Class
from producer.exercise.exercise import Exercise, load
from producer.learning import lesson as lessons

LARGEST = 200_000
"""Bytes of an answer, at most: they are programs of some twenty lines."""
LARGEST_KEPT = 5_000_000
"""Bytes that are read of what is kept of a lesson."""
NUMBER = re.compile(r"(?<!\w)\d{6}(?!\w)")
GRADER = ("producer", "lab", "gc", "ctypes", "inspect", "importlib", "_ctypes")
"""Modules that no answer needs, and one may that reaches for what judges it."""
FRAMES = (
    "_getframe",
    "f_back",
    "tb_frame",
    "modules",
    "get_objects",
    "settrace",
    "setprofile",
    "__traceback__",
    "__globals__",
)
"""Names by which it may."""


class NotHandedIn(LabError):
    """There is no such file, or none that can be read as an answer."""


@dataclass(frozen=True)
class Submitted:
    """An answer.

    Attributes:
        exercise: Whose answer it is, with the student's number.
        text: The answer; empty if there is none.
        wrong: Why it is no answer; empty if it is one.
        remarks: What whoever grades should look at.
    """

    exercise: Exercise
    text: str = ""
    wrong: str = ""
    remarks: list[str] = field(default_factory=list)

    @property
    def as_given(self) -> bool:
        """Whether nothing was done to the file, but for comments and layout."""
        if self.text == self.exercise.beginning:
            return True
        with suppress(SyntaxError, ValueError, RecursionError, MemoryError):
            return ast.dump(ast.parse(self.text)) == ast.dump(ast.parse(self.exercise.beginning))
        return False


def answer(made: Class, student: str, name: str) -> Submitted:
    """A student's answer to an exercise."""
    exercise = load(name, number=register.own(made.seed, name, student).number)
    try:
        data, at = read(made.of(student), f"{name}.py", LARGEST)
    except NotHandedIn as exc:
        return Submitted(exercise, wrong=f"missing: {exc.message}")
    late = [_late(at, made.due)] if made.due and at > made.due else []
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        return Submitted(exercise, wrong=f"unreadable: it is no text in UTF-8 ({exc.reason})", remarks=late)
    if not text.strip():
        return Submitted(exercise, wrong="empty: there is nothing in the file", remarks=late)
    return Submitted(exercise, text, remarks=[*late, *_of_others(made, student, name, text), *_reaching(text)])


def read(folder: Path, name: str, most: int) -> tuple[bytes, datetime]:
    """A file in a student's folder, and when it was written last.

    Raises:
        NotHandedIn: It is not there, is no file, or is too large.
    """
    try:
        inside = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as exc:
        raise NotHandedIn(f"there is no folder {folder.name!r}" if isinstance(exc, FileNotFoundError) else
                          f"{folder.name!r} is no folder that can be read") from exc  # fmt: skip
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=inside)
    except OSError as exc:
        raise NotHandedIn(f"there is no {name}" if isinstance(exc, FileNotFoundError) else
                          f"{name} is no file that can be read; a link is none") from exc  # fmt: skip
    finally:
        os.close(inside)
    with open(fd, "rb") as file:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise NotHandedIn(f"{name} is no file")
        if found.st_size > most:
            raise NotHandedIn(f"{name} has {found.st_size:,} bytes, where {most:,} are read")
        return file.read(most), datetime.fromtimestamp(found.st_mtime, UTC)


def _late(at: datetime, due: datetime) -> str:
    return f"late: written {at.astimezone(due.tzinfo):%Y-%m-%d %H:%M}, due {due:%Y-%m-%d %H:%M}"


def _of_others(made: Class, student: str, name: str, text: str) -> Iterator[str]:
    """Numbers in an answer, or in a comment in it, that are another student's."""
    whose = made.numbers(name)
    for at, line in enumerate(text.splitlines(), 1):
        for number in NUMBER.findall(line):
            if (other := whose.get(int(number), student)) != student:
                yield f"line {at} has {number}, which is the number of {other}"


def _reaching(text: str) -> Iterator[str]:
    """Where an answer uses what one may reach the grader by."""
    with suppress(SyntaxError, ValueError, RecursionError, MemoryError):
        for node in ast.walk(ast.parse(text)):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names if alias.name.partition(".")[0] in GRADER]
            elif isinstance(node, ast.ImportFrom):
                names = [str(node.module)] if str(node.module).partition(".")[0] in GRADER else []
            elif isinstance(node, ast.Attribute) and node.attr in FRAMES:
                names = [node.attr]
            elif isinstance(node, ast.Name) and node.id in ("exec", "eval", "__import__", "compile"):
                names = [node.id]
            line = getattr(node, "lineno", 0)
            yield from (f"line {line} uses {each}, which no answer needs: read it" for each in names)


def manifest(made: Class, student: str) -> str:
    """What is wrong with a student's manifest; empty if it is as it was given out. It is graded by the class's register."""
    try:
        data, _ = read(made.of(student), MANIFEST, LARGEST)
    except NotHandedIn as exc:
        return exc.message
    if making.digest(data) == made.students[student]:
        return ""
    return f"{MANIFEST} was changed; the numbers that were given out count"


def predicted(made: Class, student: str, name: str) -> tuple[int, int]:
    """How many of a lesson's steps a student has predicted something of, and how many there are."""
    steps = {step.name for step in lessons.load(name).steps}
    found = set()
    with suppress(NotHandedIn):
        data, _ = read(made.of(student) / KEPT, f"{name}.jsonl", LARGEST_KEPT)
        for line in data.decode(errors="replace").splitlines():
            with suppress(ValueError, TypeError, AttributeError, RecursionError):
                entry = json.loads(line)
                found |= {entry["step"]} & steps if "predicted" in entry else set()
    return len(found), len(steps)
