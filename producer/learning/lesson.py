"""A lesson as it lies in ``course/NAME``: ``lesson.md`` (the text), ``answers.toml`` (what to ask and expect), programs."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from lab import PLACES

COURSE = Path(__file__).parents[2] / "course"
"""Where the lessons lie, beside the packages, in a clone as in an installation."""
STEPS = {"run": "Run it", "break": "Break it", "mend": "Mend it"}
FENCE = "+++\n"
LONGEST = 25
"""Lines of a program that one could have typed."""

Value = float | str
"""What a program prints in answer to a question: a number, or a word of a choice."""


class BadLesson(ValueError):
    """A lesson's files do not say what a lesson must say."""


@dataclass(frozen=True)
class Expected:
    """What a value may be: one of some words, or a number within a band.

    Attributes:
        low: Least number; equal to ``high`` where only one is right.
        high: Largest number.
        words: The words; empty for a number.
    """

    low: float = 0.0
    high: float = 0.0
    words: tuple[str, ...] = ()

    @classmethod
    def of(cls, value: Any) -> Expected:
        """Read ``500``, ``[50, 499]``, ``"yes"`` or ``["yes", "no"]``.

        Raises:
            BadLesson: It is none of these.
        """
        match value:
            case bool():
                raise BadLesson(f"{value!r} is neither a number nor a word: write 'yes' or 'no'")
            case int() | float():
                return cls(value, value)
            case str():
                return cls(words=(value,))
            case [int() | float() as low, int() | float() as high] if low <= high:
                return cls(low, high)
            case [*words] if words and all(isinstance(word, str) for word in words):
                return cls(words=tuple(words))
        raise BadLesson(f"{value!r} is neither a number, a band, a word nor some words")

    def holds(self, value: Value | None) -> bool:
        """Whether a value is such a one."""
        if self.words:
            return value is not None and str(value) in self.words
        return isinstance(value, (int, float)) and self.low <= value <= self.high

    def __str__(self) -> str:
        if self.words:
            return " or ".join(self.words)
        return f"{self.low:g}" if self.low == self.high else f"{self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Belief:
    """A misconception, by the prediction that it leads to.

    Attributes:
        leads_to: The predictions of whoever holds it.
        places: Where it leads to them.
        says: What is believed, and what is so instead.
    """

    leads_to: Expected
    places: tuple[str, ...]
    says: str


@dataclass(frozen=True)
class Question:
    """What a program prints after a label, to be predicted for each place.

    Attributes:
        label: What stands before the colon of the line that answers it.
        ask: The question.
        choices: The words to choose from; empty when a number is asked for.
        expected: By place, what the run must print for its effect to have appeared.
        beliefs: The misconceptions that lead to other predictions.
    """

    label: str
    ask: str
    choices: tuple[str, ...]
    expected: Mapping[str, Expected]
    beliefs: tuple[Belief, ...]

    def belief(self, place: str, predicted: Value | None) -> str:
        """What whoever predicts this seems to believe, if that is known."""
        fits = (each.says for each in self.beliefs if place in each.places and each.leads_to.holds(predicted))
        return next(fits, "")


@dataclass(frozen=True)
class Step:
    """One program of a lesson.

    Attributes:
        name: One of ``STEPS``.
        program: Path of the program.
        places: Where it can run.
        timed: Whether its numbers are times, which a busy machine can spoil.
        questions: What is asked before it runs.
        explored: Path of a smaller program, of which every order is shown after it; None for none.
    """

    name: str
    program: Path
    places: tuple[str, ...]
    timed: bool
    questions: tuple[Question, ...]
    explored: Path | None = None

    @property
    def title(self) -> str:
        """The step as a heading."""
        return STEPS[self.name]

    @property
    def source(self) -> str:
        """The program's text."""
        return self.program.read_text()


@dataclass(frozen=True)
class Lesson:
    """A lesson.

    Attributes:
        folder: Where it lies; its name is the lesson's.
        title: What it is about.
        minutes: How long it takes.
        know: What one knows after it.
        symptoms: What people say who need it.
        sources: Where the confusion was reported, or described.
        steps: Run, break, mend.
        text: By heading, Markdown; before the first heading it is ``""``.
    """

    folder: Path
    title: str
    minutes: int
    know: tuple[str, ...]
    symptoms: tuple[str, ...]
    sources: tuple[str, ...]
    steps: tuple[Step, ...]
    text: Mapping[str, str] = field(repr=False)

    @property
    def name(self) -> str:
        """The name by which it is called."""
        return self.folder.name

    @cached_property
    def places(self) -> tuple[str, ...]:
        """Where any of its programs can run."""
        return tuple(place for place in PLACES if any(place in step.places for step in self.steps))


def names(course: Path = COURSE) -> list[str]:
    """The lessons there are, in the order of the course."""
    return list(tomllib.loads((course / "order.toml").read_text())["lessons"])


def load(name: str, course: Path = COURSE) -> Lesson:
    """Read a lesson.

    Raises:
        BadLesson: A file of it lacks something or says it wrongly; the message names the file.
    """
    folder = course / name
    front, text = split((folder / "lesson.md").read_text())
    try:
        head = tomllib.loads(front)
        answers = tomllib.loads((folder / "answers.toml").read_text())
        steps = tuple(_step(folder, table) for table in answers["step"])
        if [step.name for step in steps] != list(STEPS):
            raise BadLesson(f"its steps are not {', '.join(STEPS)}")
        missing = [heading for heading in ("Explain", *list(STEPS.values())[1:]) if not sections(text).get(heading)]
        if missing:
            raise BadLesson(f"its text has no section {', '.join(missing)}")
        return Lesson(
            folder, head["title"], head["minutes"], tuple(head["know"]), tuple(head["symptoms"]),
            tuple(head.get("sources", ())), steps, sections(text),
        )  # fmt: skip
    except KeyError as exc:
        raise BadLesson(f"{folder}: there is no {exc}") from exc
    except (BadLesson, tomllib.TOMLDecodeError) as exc:
        raise BadLesson(f"{folder}: {exc}") from exc


def split(page: str) -> tuple[str, str]:
    """The front matter of a page and its text.

    Raises:
        BadLesson: It has no front matter.
    """
    before, _, rest = page.partition(FENCE)
    front, fence, text = rest.partition(FENCE)
    if before or not fence:
        raise BadLesson("its lesson.md does not begin with front matter between two lines of +++")
    return front, text


def sections(text: str) -> dict[str, str]:
    """A text by its headings of the second level."""
    found, heading = {"": ""}, ""
    for line in text.splitlines(keepends=True):
        if line.startswith("## "):
            heading = line.removeprefix("## ").strip()
            found[heading] = ""
        else:
            found[heading] += line
    return {heading: body.strip() for heading, body in found.items()}


def _step(folder: Path, table: Mapping[str, Any]) -> Step:
    program = folder / table["program"]
    if not program.is_file():
        raise BadLesson(f"there is no program {program.name}")
    places = tuple(table.get("places", PLACES))
    questions = tuple(_question(each, places) for each in table["question"])
    explored = folder / table["explored"] if "explored" in table else None
    if explored is not None and not explored.is_file():
        raise BadLesson(f"there is no program {explored.name}")
    return Step(table["name"], program, places, table.get("timed", False), questions, explored)


def _question(table: Mapping[str, Any], places: tuple[str, ...]) -> Question:
    holds = table["holds"]
    by_place = holds if isinstance(holds, dict) else dict.fromkeys(places, holds)
    if set(by_place) != set(places):
        raise BadLesson(f"what holds of {table['label']!r} is not said for exactly {', '.join(places)}")
    expected = {place: Expected.of(by_place[place]) for place in places}
    choices = tuple(table.get("choices", ()))
    if any(not set(each.words) <= set(choices) or bool(each.words) != bool(choices) for each in expected.values()):
        raise BadLesson(f"what holds of {table['label']!r} is none of its choices")
    beliefs = tuple(
        Belief(Expected.of(each["leads_to"]), tuple(each.get("places", places)), " ".join(each["says"].split()))
        for each in table.get("belief", ())
    )
    return Question(table["label"], table["ask"], choices, expected, beliefs)
