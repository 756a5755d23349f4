"""From a symptom to the lessons that explain it: by words, nearly the same words counting as the same."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache

from producer.learning.lesson import Lesson

LEAST = 0.32
"""Share of what was asked and of what is known that must agree, for a lesson to be named."""
MOST = 4
SAME = 0.82
"""Likeness of two words from which on they count as the same: ``hangs`` and ``hang``, ``deadlocks`` and ``deadlock``."""
EMPTY = (
    "a",
    "an",
    "the",
    "is",
    "are",
    "was",
    "it",
    "its",
    "my",
    "i",
    "in",
    "on",
    "of",
    "to",
    "and",
    "or",
    "but",
    "for",
    "me",
)
"""Words that say nothing of a symptom."""


@dataclass(frozen=True)
class Found:
    """A lesson, and why it was found.

    Attributes:
        lesson: The lesson.
        symptom: Its symptom that is nearest to what was asked.
        score: From 0 to 1.
    """

    lesson: Lesson
    symptom: str
    score: float


def find(asked: str, lessons: Iterable[Lesson]) -> list[Found]:
    """The lessons whose symptoms are near to what was asked, the nearest first; none when nothing is near."""
    known = [(lesson, symptom, words(symptom)) for lesson in lessons for symptom in (*lesson.symptoms, lesson.title)]
    common = Counter(word for _, _, theirs in known for word in set(theirs))
    weights = {word: math.log(1 + len(known) / count) for word, count in common.items()}
    best: dict[str, Found] = {}
    said = words(asked)
    weight = sum(
        max((weights[word] for word in weights if _same(word, other)), default=max(weights.values())) for other in said
    )
    for lesson, symptom, theirs in known:
        found = Found(lesson, symptom, _score(said, weight, theirs, weights))
        if found.score >= LEAST and (lesson.name not in best or best[lesson.name].score < found.score):
            best[lesson.name] = found
    return sorted(best.values(), key=lambda found: -found.score)[:MOST]


def words(text: str) -> list[str]:
    """The words that mean something; all numbers are the same word, as 497 is no other symptom than 491."""
    found = re.findall(r"[a-z_]+|\d+", text.lower().replace("'", ""))
    return [word if not word.isdigit() else "0" for word in found if word not in EMPTY]


def _score(asked: list[str], weight: float, theirs: list[str], weights: dict[str, float]) -> float:
    """How much of both sides is common to them (Dice), rare words counting more than frequent ones.

    Args:
        asked: The words that were asked.
        weight: Of all of these together.
        theirs: The words of a symptom.
        weights: Of each word that is known.
    """
    common = sum(weights[word] for word in theirs if any(_same(word, other) for other in asked))
    total = weight + sum(weights[word] for word in theirs)
    return 2 * common / total if total else 0.0


@cache
def _same(one: str, other: str) -> bool:
    return one == other or (min(len(one), len(other)) > 3 and SequenceMatcher(None, one, other).ratio() >= SAME)
