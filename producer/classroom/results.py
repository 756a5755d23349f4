"""Verdicts, in the form of exercism's test runners: ``results.json``, version 2.

https://exercism.org/docs/building/tooling/test-runners/interface: a status of pass, fail or error, and for each test the
same, with a message and at most 500 characters of output. An error is what did not come to a verdict; its message says why.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from producer.classroom.cell import Told

VERSION = 2
OUTPUT, MESSAGE = 500, 2000
"""Characters, at most."""
PASS, FAIL, ERROR = "pass", "fail", "error"
CUT = " ... (cut)"


@dataclass(frozen=True)
class Test:
    """One test.

    Attributes:
        name: What was tried.
        status: ``pass``, ``fail`` or ``error``.
        message: What went wrong; None if nothing did.
        output: What is known of it besides.
    """

    name: str
    status: str
    message: str | None = None
    output: str | None = None


@dataclass(frozen=True)
class Result:
    """A verdict.

    Attributes:
        status: ``pass``, ``fail`` or ``error``.
        message: Why there is no verdict, if it is an error; else None.
        tests: In the order in which they were run; no further than to the first that failed.
    """

    status: str
    message: str | None = None
    tests: list[Test] = field(default_factory=list)

    @property
    def why(self) -> str:
        """What went wrong, and where; empty if nothing did."""
        if self.status == ERROR:
            return self.message or ""
        return next((f"{test.name}: {test.message}" for test in self.tests if test.status != PASS), "")

    def to_json(self) -> dict[str, Any]:
        """As ``results.json``."""
        return {"version": VERSION, **asdict(self)}


def read(said: dict[str, Any]) -> Result:
    """A verdict from a ``results.json``."""
    return Result(said["status"], said["message"], [Test(**test) for test in said["tests"]])


def error(why: str, tests: list[Test] | None = None) -> Result:
    """The result of what did not come to a verdict."""
    return Result(ERROR, cut(why, MESSAGE), tests or [])


def failed(name: str, why: str) -> Result:
    """The result of an answer of which it is known before it is run."""
    return Result(FAIL, None, [Test(name, FAIL, why)])


def of(told: Told, before: list[Test]) -> Result:
    """The result of what was told by a cell, whose word counts for nothing but this answer.

    Args:
        told: What was told.
        before: The tests of another cell, which were passed.
    """
    if told.verdict is None:
        return error(told.ended, before)
    try:
        return _of(told.verdict, before)
    except (KeyError, TypeError, AttributeError):  # an answer that knows the grader has told it
        return error("what was told of it is no verdict: read it", before)


def _of(said: dict[str, Any], before: list[Test]) -> Result:
    if said["kind"] == "syntax":
        return error(said["fault"])
    message = f"{said['fault']}\n{said['note']}".strip()
    tests = [
        Test(
            each["name"],
            PASS if each["passed"] else FAIL,
            None if each["passed"] else cut(message, MESSAGE),
            cut(each["output"], OUTPUT) or None,
        )
        for each in said["tests"]
    ]
    return Result(PASS if all(test.status == PASS for test in tests) else FAIL, None, before + tests)


def cut(text: str, most: int) -> str:
    """A text of so many characters, at most."""
    return text if len(text) <= most else text[: most - len(CUT)] + CUT
