"""A prediction beside what was printed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from producer.learning.lesson import Question, Step, Value
from producer.learning.running import Printed

Predictions = Mapping[str, Mapping[str, Value | None]]
"""By label and place; None for who does not know."""


@dataclass(frozen=True)
class Seen:
    """One question in one place, answered.

    Attributes:
        question: What was asked.
        place: Where it ran.
        predicted: What was said before; None for nothing.
        measured: What was printed; None when there was no such line.
    """

    question: Question
    place: str
    predicted: Value | None
    measured: Value | None

    @property
    def expected(self) -> str:
        """What the course expects, in words."""
        return str(self.question.expected[self.place])

    @property
    def appeared(self) -> bool:
        """Whether the run shows what the lesson says."""
        return self.question.expected[self.place].holds(self.measured)

    @property
    def right(self) -> bool | None:
        """Whether the prediction came true: it is what was printed, or within the same band. None without one."""
        if self.predicted is None:
            return None
        return str(self.predicted) == str(self.measured) or (
            self.appeared and self.question.expected[self.place].holds(self.predicted)
        )

    @property
    def belief(self) -> str:
        """The misconception behind a prediction that did not come true, where it is a known one."""
        return self.question.belief(self.place, self.predicted) if self.right is False else ""

    def to_json(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            "label": self.question.label, "place": self.place, "predicted": self.predicted, "measured": self.measured,
            "expected": self.expected, "right": self.right, "appeared": self.appeared, "belief": self.belief,
        }  # fmt: skip


def compare(step: Step, predictions: Predictions, printed: Mapping[str, Printed]) -> list[Seen]:
    """Every question of a step, in every place in which it ran."""
    return [
        Seen(question, place, predictions[question.label][place], each.answers.get(question.label))
        for question in step.questions
        for place, each in printed.items()
    ]
