"""Predictions: asked for at a terminal or a pipe, or read from a file that was filled in."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab.errors import ExitCode, LabError
from producer import output
from producer.learning.comparing import Predictions
from producer.learning.lesson import Lesson, Question, Step, Value
from producer.learning.running import ENDS, value
from producer.learning.showing import wrapped

UNKNOWN = "?"
SHORT = {"y": "yes", "n": "no"}


class NotAnswered(LabError, ValueError):
    """A question that nobody has answered, or not with one of its answers; nothing was run."""

    exit_code = ExitCode.USAGE


def form(lesson: Lesson, places: list[str]) -> dict[str, Any]:
    """The questions of a lesson, to be filled in: a null for each answer."""
    return {
        step.name: {
            question.label: {
                "ask": question.ask,
                "answer": list(question.choices) or "a number",
                **{place: None for place in places if place in step.places},
            }
            for question in step.questions
        }
        for step in lesson.steps
    }


def read(path: str, lesson: Lesson, places: list[str]) -> dict[str, Predictions]:
    """Predictions for all steps, from a form; an answer in place of a question's table holds for all places.

    Raises:
        NotAnswered: The file cannot be read, or an answer is missing or none of the choices.
    """
    how = f"To get a form to fill in: producer learn {lesson.name} --questions > answers.json"
    try:
        filled = json.loads(sys.stdin.read() if path == "-" else Path(path).read_text())
    except (OSError, ValueError) as exc:
        raise NotAnswered(f"Cannot read answers from {path!r}: {exc}.", how) from exc
    return {step.name: _of_step(step, filled, places, how) for step in lesson.steps}


def _of_step(step: Step, filled: Any, places: list[str], how: str) -> Predictions:
    found: dict[str, dict[str, Value | None]] = {}
    for question in step.questions:
        for place in (place for place in places if place in step.places):
            try:
                answer = filled[step.name][question.label]
                answer = answer[place] if isinstance(answer, dict) else answer
            except (KeyError, TypeError) as exc:
                raise NotAnswered(
                    f"There is no answer for {step.name!r}, {question.label!r}, {place!r}; null says that you do not know.",
                    how,
                ) from exc
            try:
                found.setdefault(question.label, {})[place] = None if answer is None else understood(question, answer)
            except ValueError as exc:
                raise NotAnswered(f"{question.label!r} on {place}: {exc}.", how) from exc
    return found


def understood(question: Question, typed: Any) -> Value:
    """An answer as a value; ``y`` and ``n`` are yes and no.

    Raises:
        ValueError: It is none of the choices, or no number; the message says what would be.
    """
    if question.choices:
        said = str(typed).strip().lower()
        same = [choice for choice in question.choices if choice.lower() in (said, SHORT.get(said))]
        if not same:
            raise ValueError(f"{typed!r} is none of: {', '.join(question.choices)}")
        return same[0]
    answer = value(typed) if isinstance(typed, str) else typed
    if isinstance(answer, bool) or not isinstance(answer, (int, float)):
        raise ValueError(f"{typed!r} is no number")
    return answer


def ask(step: Step, places: list[str], line: Callable[[str], str]) -> Predictions:
    """Ask for each place in turn, until there is an answer.

    Args:
        step: Whose questions.
        places: Where it will run.
        line: Gives what was typed after a prompt.

    Raises:
        NotAnswered: The input has ended.
    """
    found: dict[str, dict[str, Value | None]] = {}
    for question in step.questions:
        what = f"one of: {', '.join(question.choices)}" if question.choices else "a number"
        heading = "How does it end?" if question.label == ENDS else f"What is printed after {question.label!r}?"
        output.write(f"\n{heading}\n{wrapped(question.ask)}\n({what}; {UNKNOWN} if you cannot say)\n")
        found[question.label] = {place: _one(question, place, line) for place in places}
    return found


def _one(question: Question, place: str, line: Callable[[str], str]) -> Value | None:
    while True:
        typed = line(f"  on {place}: ").strip()
        if typed == UNKNOWN:
            return None
        try:
            return understood(question, typed)
        except ValueError as exc:
            output.write(f"  {exc}\n")


def line(prompt: str) -> str:
    """A line of standard input, be it a terminal's or not.

    Raises:
        NotAnswered: There is none any more.
    """
    output.write(prompt)
    typed = sys.stdin.readline()
    if not typed:
        raise NotAnswered(
            "The input ended before the question was answered; its program was not run.",
            "Answer at a terminal, or from a file: producer learn --help",
        )
    if not sys.stdin.isatty():
        output.write(typed if typed.endswith("\n") else typed + "\n")  # a terminal has shown it already
    return typed
