"""An exercise, in ``exercises/NAME``: ``exercise.md``, ``start.py``, ``solution.py``, ``wrong``, ``right``, ``grader.py``."""

from __future__ import annotations

import ast
import random
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from lab import PLACES
from producer.exercise.claims import NOT_READ, Fault, Note
from producer.exercise.history import History
from producer.learning.lesson import BadLesson, sections, split

EXERCISES = Path(__file__).parents[2] / "exercises"
"""Where the exercises lie, beside the packages, in a clone as in an installation."""
HINTS = ("Hint 1", "Hint 2", "Hint 3")
Args = tuple[str, ...]
"""What the program finds in ``sys.argv[1:]``."""


@dataclass(frozen=True)
class Grader:
    """What is claimed of an exercise.

    Attributes:
        small: By a generator of chance, the arguments with which it is explored, one tuple for each time.
        large: By that and a place, the arguments there.
        expected: By arguments, what must be printed.
        claims: By a history and arguments, what went wrong in it.
        notes: On usual wrong answers; the first that fits is told.
    """

    small: Callable[[random.Random], list[Args]]
    large: Callable[[random.Random, str], Args]
    expected: Callable[[Args], str]
    claims: Callable[[History, Args], Iterable[Fault]]
    notes: tuple[Note, ...]


@dataclass(frozen=True)
class Exercise:
    """An exercise.

    Attributes:
        folder: Where it lies; its name is the exercise's.
        title: What it is about.
        minutes: How long it takes.
        places: Where it runs.
        keeps: Names of the functions that stay as they are; ``main`` stands for what is under ``__main__``.
        text: By heading, Markdown: Task, the hints, Explanation.
        number: What the program is to print first, where each student has a number (``producer course``); None for nothing.
    """

    folder: Path
    title: str
    minutes: int
    places: tuple[str, ...]
    keeps: tuple[str, ...]
    text: Mapping[str, str] = field(repr=False)
    number: int | None = None

    @property
    def name(self) -> str:
        """The name by which it is called."""
        return self.folder.name

    @property
    def start(self) -> Path:
        """The file to mend."""
        return self.folder / "start.py"

    @cached_property
    def beginning(self) -> str:
        """The text of the file to mend, with the number in what it prints."""
        return numbered(self.start.read_text(encoding="utf-8"), self.number)

    @property
    def solution(self) -> Path:
        """One that is mended."""
        return self.folder / "solution.py"

    @property
    def wrong(self) -> list[Path]:
        """The usual wrong answers."""
        return sorted((self.folder / "wrong").glob("*.py"))

    @property
    def right(self) -> list[Path]:
        """Unusual answers that are right all the same."""
        return sorted((self.folder / "right").glob("*.py"))

    @cached_property
    def grader(self) -> Grader:
        """What is claimed of it."""
        path = self.folder / "grader.py"
        spec = spec_from_file_location(f"grader_of_{self.name}", path)
        assert spec is not None
        assert spec.loader is not None
        module: Any = module_from_spec(spec)
        spec.loader.exec_module(module)
        first = "" if self.number is None else f"{self.number} "
        return Grader(
            module.small,
            module.large,
            lambda args: first + module.expected(args),
            module.claims,
            (*module.NOTES, *COMMON),
        )

    def changed(self, source: str) -> Fault | None:
        """A function that was to stay as it is, and did not.

        Raises:
            SyntaxError, ValueError: It is not Python.
        """
        before, now = _parts(self.beginning), _parts(source)
        for name in self.keeps:
            if name not in now:
                return Fault("changed", f"{name} is gone, which was to stay as it is", 1)
            if ast.dump(now[name]) != ast.dump(before[name]):
                return Fault("changed", f"{_spoken(name)} was to stay as it is: mend the other part", now[name].lineno)
        return None


def numbered(source: str, number: int | None) -> str:
    """A program whose last ``print`` prints a number before everything else."""
    if number is None:
        return source
    prints = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call) and _prints(node)]
    name = max(prints, key=lambda node: node.lineno).func
    assert name.end_lineno is not None
    assert name.end_col_offset is not None
    lines = source.splitlines(keepends=True)
    line = lines[name.end_lineno - 1].encode()  # columns are counted in bytes
    at = name.end_col_offset + 1
    lines[name.end_lineno - 1] = (line[:at] + f"{number}, ".encode() + line[at:]).decode()
    return "".join(lines)


def _prints(call: ast.Call) -> bool:
    return getattr(call.func, "id", "") == "print"


def _spoken(name: str) -> str:
    return "what is under __main__" if name == "main" else f"{name}()"


def _parts(source: str) -> dict[str, Any]:
    """The functions and classes of a program, and what is under ``__main__``, by name; comments and layout do not count."""
    found: dict[str, Any] = {}
    for node in ast.parse(source).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found[node.name] = node
        elif isinstance(node, ast.If) and "__main__" in ast.dump(node.test):
            found["main"] = node
    return found


COMMON = (
    Note(
        "at the top of the file",
        lambda history, fault: fault.name == "at the top",
        "Each process that starts runs the file again, and so makes one of its own, which nobody else ever uses. Make it"
        " under __main__ and hand it over with args=.",
    ),
    Note(
        "acquired or not",
        lambda history, fault: fault.name == "not looked",
        "acquire() with a time, or without waiting, returns False when it has not got the lock. The program goes on without"
        " it: look at what acquire() returned.",
    ),
    Note(
        "nobody started",
        lambda history, fault: fault.name == "not started",
        "The result alone is not the exercise. What counts is what the processes do with what they share, and here none does"
        " anything: leave the work in, and mend how it is done.",
    ),
    Note(
        "no work",
        lambda history, fault: fault.name in ("no work", "main does it"),
        "The work must be done by the processes that are started for it. With the work left out there is nothing to go wrong,"
        " and nothing is mended.",
    ),
    Note(
        "less work",
        lambda history, fault: fault.name == "less work",
        "Some of the work is left out, or done in fewer steps than it was given in: each process does all of its own, step"
        " by step, and it is the steps that are to be mended.",
    ),
    Note(
        "a constant",
        lambda history, fault: fault.name in ("constant", NOT_READ),
        "What is printed was never read from what the processes share, so it is right for one size at most.",
    ),
)
"""Notes on answers that are wrong in every exercise."""


def names(folder: Path = EXERCISES) -> list[str]:
    """The exercises there are, in their order."""
    return list(tomllib.loads((folder / "order.toml").read_text())["exercises"])


def load(name: str, folder: Path = EXERCISES, number: int | None = None) -> Exercise:
    """Read an exercise.

    Args:
        name: Its name.
        folder: Where the exercises lie.
        number: What its program is to print first; None for nothing.

    Raises:
        BadLesson: A file of it lacks something; the message names it.
    """
    front, text = split((folder / name / "exercise.md").read_text())
    head = tomllib.loads(front)
    by_heading = sections(text)
    missing = [heading for heading in ("Task", *HINTS, "Explanation") if not by_heading.get(heading)]
    if missing:
        raise BadLesson(f"{folder / name}: its text has no section {', '.join(missing)}")
    return Exercise(
        folder / name, head["title"], head["minutes"], tuple(head.get("places", PLACES)), tuple(head.get("keeps", ())),
        by_heading, number,
    )  # fmt: skip
