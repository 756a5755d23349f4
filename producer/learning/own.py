"""A lesson with other numbers: ``own.toml`` beside it says which may be drawn, and where in its files they stand."""

from __future__ import annotations

import math
import random
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from producer.learning import lesson
from producer.learning.lesson import COURSE, BadLesson, Lesson, Question
from producer.learning.showing import CAPTURED

FILE = "own.toml"
OTHER = "a number of the course's, not of the student's"
"""Stands for a prediction that is no longer what it was, once it is put in the course's numbers."""


def files(name: str, chance: random.Random, course: Path = COURSE) -> dict[str, str]:
    """The files of a lesson, with numbers that were drawn; nothing if there is none to be drawn.

    Args:
        name: The lesson.
        chance: What draws them.
        course: Where the lessons lie.

    Raises:
        BadLesson: What is to be replaced does not stand there.
    """
    folder = course / name
    if not (folder / FILE).is_file():
        return {}
    table = tomllib.loads((folder / FILE).read_text(encoding="utf-8"))
    numbers = drawn(table, chance)
    found = {}
    for path in sorted(folder.iterdir()):
        if path.suffix in (".py", ".md", ".toml") and path.name != FILE:
            found[path.name] = _replaced(path, table["replace"].get(path.name, {}), numbers)
    found["lesson.md"] = _unquoted(found["lesson.md"])
    return found


def drawn(table: Mapping[str, Any], chance: random.Random) -> dict[str, int]:
    """The numbers: those that are drawn, and those that follow from them."""
    numbers = {name: chance.randint(*bounds) for name, bounds in table["draw"].items()}
    for name, how in table.get("derive", {}).items():
        factors = [factor if isinstance(factor, int) else numbers[factor] for factor in how["product"]]
        numbers[name] = math.prod(factors) + how.get("plus", 0)
    return numbers


def _replaced(path: Path, pairs: Mapping[str, str], numbers: Mapping[str, int]) -> str:
    text = path.read_text(encoding="utf-8")
    for find, put in pairs.items():
        if find not in text:
            raise BadLesson(f"{path}: there is no {find!r} in it, for which {FILE} has other numbers")
        text = text.replace(find, put.format(**numbers))
    return text


def _unquoted(text: str) -> str:
    """A text without what the programs printed when the course was built: theirs are other numbers now."""
    return CAPTURED.sub(lambda found: found[0] if found["place"] == "explored" else "", text)


def in_common(path: Path, name: str, first: Mapping[tuple[str, str, str], str]) -> dict[tuple[str, str, str], str]:
    """Predictions of somebody who had other numbers, in those of the course, so that all can be counted together.

    Args:
        path: The folder with that student's lessons.
        name: The lesson.
        first: Predictions by step, label and place.
    """
    try:
        theirs, ours = _questions(lesson.load(name, path)), _questions(lesson.load(name))
    except (BadLesson, OSError, ValueError, KeyError, TypeError):
        return dict(first)  # there is none, or somebody has changed it: as for those who had the course's numbers
    return {
        key: _in_common(theirs[key[:2]], ours[key[:2]], key[2], answer)
        if key[:2] in theirs and key[:2] in ours
        else answer
        for key, answer in first.items()
    }


def _questions(of: Lesson) -> dict[tuple[str, str], Question]:
    return {(step.name, question.label): question for step in of.steps for question in step.questions}


def _in_common(theirs: Question, ours: Question, place: str, answer: str) -> str:
    try:
        value = float(answer)
    except ValueError:
        return answer  # a word, or that they could not say
    if place not in theirs.expected or place not in ours.expected:
        return answer
    pairs = [(theirs.expected[place], ours.expected[place])]
    pairs += [(a.leads_to, b.leads_to) for a, b in zip(theirs.beliefs, ours.beliefs, strict=False) if place in b.places]
    for their, our in pairs:
        if their.holds(value):
            return answer if our.holds(value) else f"{our.high:g}"
    return OTHER if any(our.holds(value) for _, our in pairs) else answer
