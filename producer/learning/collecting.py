"""``producer course predictions``: what a class has predicted, collected into one picture.

Each prediction is one that was kept before its program ran (``producer.learning.keeping``). Of somebody who took a lesson
twice the first one counts: the second time one knows.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from lab.errors import ExitCode
from producer import output
from producer.classroom.enrolled import LESSONS
from producer.html.svg import el
from producer.learning import lesson as lessons
from producer.learning import own
from producer.learning.asking import UNKNOWN
from producer.learning.lesson import Lesson, Question, Step, Value
from producer.learning.showing import spoken, wrapped
from producer.learning.site import PAGE
from producer.names import BadName

WIDTH = 30
"""Characters of the longest bar."""


@dataclass(frozen=True)
class Answered:
    """One question in one place, as a class has answered it.

    Attributes:
        lesson, step, question, place: Which.
        answers: How many predicted what; ``?`` for who could not say.
    """

    lesson: Lesson
    step: Step
    question: Question
    place: str
    answers: Counter[str]

    @property
    def most(self) -> list[tuple[str, int]]:
        """The answers, the most frequent first."""
        return sorted(self.answers.items(), key=lambda each: (-each[1], each[0]))

    def right(self, answer: str) -> bool:
        """Whether an answer is what the course expects."""
        return self.question.expected[self.place].holds(_value(answer))

    def belief(self, answer: str) -> str:
        """What those who answer so seem to believe, if that is known."""
        return "" if self.right(answer) else self.question.belief(self.place, _value(answer))

    def to_json(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            "lesson": self.lesson.name, "step": self.step.name, "label": self.question.label, "place": self.place,
            "expected": str(self.question.expected[self.place]),
            "answers": [{"answer": answer, "number": number, "right": self.right(answer), "belief": self.belief(answer)}
                        for answer, number in self.most],
        }  # fmt: skip


def _value(answer: str) -> Value | None:
    if answer == UNKNOWN:
        return None
    try:
        return float(answer)
    except ValueError:
        return answer


def collect(folders: Iterable[Path]) -> tuple[list[Answered], int]:
    """What was predicted in the folders of a class.

    Args:
        folders: Each is one student's, or has one in it for each student.

    Returns:
        The questions that somebody has answered, in the order of the course; and how many students there are.

    Raises:
        BadName: There are no predictions in them.
    """
    files = sorted({path for folder in folders for path in folder.rglob("*.jsonl") if path.stem in lessons.names()})
    if not files:
        raise BadName(
            f"There are no predictions in {', '.join(map(str, folders))}.",
            "Students find theirs in ~/.local/state/crosshost/learn: one folder for each, with its NAME.jsonl in it.",
        )
    by_lesson: dict[str, list[dict[tuple[str, str, str], str]]] = {}
    for path in files:
        first = own.in_common(path.parent.parent / LESSONS, path.stem, _first(path))
        by_lesson.setdefault(path.stem, []).append(first)
    answered = [
        each for name in lessons.names() if name in by_lesson for each in _of(lessons.load(name), by_lesson[name])
    ]
    return answered, len({path.parent for path in files})


def _first(path: Path) -> dict[tuple[str, str, str], str]:
    """The first prediction of each question: step, label, place."""
    found: dict[tuple[str, str, str], str] = {}
    for line in path.read_text(errors="replace").splitlines():
        try:
            entry = json.loads(line)
            for label, places in entry.get("predicted", {}).items():
                for place, answer in places.items():
                    found.setdefault((entry["step"], label, place), UNKNOWN if answer is None else str(answer))
        except (ValueError, AttributeError, KeyError, TypeError):
            continue  # a line that was broken off, or is none of ours
    return found


def _of(lesson: Lesson, students: list[dict[tuple[str, str, str], str]]) -> Iterator[Answered]:
    for step in lesson.steps:
        for question in step.questions:
            for place in step.places:
                key = step.name, question.label, place
                if answers := Counter(student[key] for student in students if key in student):
                    yield Answered(lesson, step, question, place, answers)


def show(folders: list[str], html: str, as_json: bool) -> int:
    """Write what a class has predicted: as text, as JSON, as a page.

    Raises:
        BadName: There are no predictions.
        OutputFailed: The page cannot be written.
    """
    for folder in folders:
        if not Path(folder).is_dir():
            raise BadName(f"There is no folder {folder!r}.", "Name the folder in which each student has one.")
    answered, students = collect([Path(folder) for folder in folders])
    if html:
        with output.written(html):
            Path(html).write_text(page(answered, students), encoding="utf-8")
    if as_json:
        output.write_json({"students": students, "questions": [each.to_json() for each in answered]})
    else:
        output.write(text(answered, students) + (f"\nWritten to {html}.\n" if html else ""))
    return ExitCode.OK


def text(answered: list[Answered], students: int) -> str:
    """The picture in characters: a bar for each answer, and what it tells."""
    parts = [f"Predictions of {students} {'student' if students == 1 else 'students'}\n"]
    for each in answered:
        top = max(each.answers.values())
        parts.append(
            f"\n{each.lesson.name}, {each.step.name}, on {each.place}: {spoken(each.question)}\n  {each.question.ask}\n"
        )
        width = max(len(answer) for answer in each.answers)
        for answer, number in each.most:
            mark = "right" if each.right(answer) else ""
            bar = "#" * max(1, round(WIDTH * number / top))
            parts.append(f"  {answer:>{width}}  {bar} {number} {mark}".rstrip() + "\n")
            if belief := each.belief(answer):
                said = f"often believed: {belief[:1].lower()}{belief[1:]}"
                parts.append(wrapped(said, " " * (width + 4)) + "\n")
    return "".join(parts)


def page(answered: list[Answered], students: int) -> str:
    """The picture as a page that needs nothing but a browser."""
    style = (lessons.COURSE / "style.css").read_text()
    body = [
        el("h1", "Predictions"),
        el("p", f"Of {students} students, before anything ran. The right answer has a tick."),
    ]
    for each in answered:
        top = max(each.answers.values())
        rows = []
        for answer, number in each.most:
            bar = el("svg", el("rect", width=round(300 * number / top), height=14, fill="currentColor"), width=300, height=14,
                     role="img", aria_label=f"{number} of {each.answers.total()}")  # fmt: skip
            tick = "✓ right" if each.right(answer) else ""
            cells = [el("th", escape(answer), scope="row"), el("td", bar), el("td", str(number)), el("td", tick),
                     el("td", escape(each.belief(answer)))]  # fmt: skip
            rows.append(el("tr", cells))
        heading = f"{each.lesson.title}: {each.step.title.lower()}, on {each.place}"
        body += [
            el("h2", escape(heading)),
            el("p", f"{escape(spoken(each.question))}: {escape(each.question.ask)}"),
            el("table", rows),
        ]
    return PAGE.format(title="Predictions", style=style, nav="", body="\n".join(body) + "\n")
