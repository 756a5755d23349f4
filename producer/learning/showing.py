"""A lesson in plain text: lines in the order in which they are read, no colour, no column to be seen side by side."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from shutil import get_terminal_size
from textwrap import fill, indent

from producer.learning.comparing import Seen
from producer.learning.lesson import Lesson, Question, Step
from producer.learning.running import ENDS, IN_EVERY_ORDER, Printed

WIDTH = 100
CAPTURED = re.compile(r"(?ms)^```output (?P<program>\S+) (?P<place>\S+)\n(?P<text>.*?)^```$\n?")
"""A block of a text that quotes a run: the build fills it."""


def opening(lesson: Lesson) -> str:
    """What the lesson is about."""
    after = "".join(f"- {each}\n" for each in lesson.know)
    return f"{lesson.title}\n{lesson.minutes} minutes. After it you know:\n{after}\n{plain(lesson.text[''])}\n"


def program(step: Step) -> str:
    """A step's heading, and its program."""
    return f"\n{step.title}: {step.program.parent.name}/{step.program.name}\n\n{indent(step.source, '    ')}"


def live(text: str, said: Printed) -> str:
    """A text with what ``producer explore`` says now in place of what it said when the course was built."""
    return CAPTURED.sub(
        lambda found: found[0].replace(found["text"], said.stdout) if found["place"] == IN_EVERY_ORDER else found[0],
        text,
    )


def printed(by_place: Mapping[str, Printed]) -> str:
    """What a program printed in each place."""
    return "".join(_printed(place, each) for place, each in by_place.items())


def _printed(place: str, each: Printed) -> str:
    failure = each.failure()
    told = f"  {failure}\n" if failure else ""
    text = indent(each.stdout or "nothing\n", "    ")
    return f"\nOn {place} it printed, within {each.seconds:.1f} s:\n{text}{told}"


def seen(answers: Iterable[Seen]) -> str:
    """Each prediction beside what was printed, and the misconception that leads to it, once."""
    lines: list[str] = []
    for answer in answers:
        lines += _seen(answer, again=answer.belief in "".join(lines))
    return "\n".join(lines) + "\n"


def _seen(answer: Seen, again: bool) -> Iterable[str]:
    said = "you made no prediction" if answer.predicted is None else f"you said {answer.predicted}"
    came = {True: " You were right.", False: " You were not right.", None: ""}[answer.right]
    measured = f"it was {answer.measured}" if answer.measured is not None else "nothing was printed of it"
    yield f"\n{spoken(answer.question)}, on {answer.place}: {said}, {measured}.{came}"
    if answer.belief and not again:
        yield wrapped(f"Often believed by those who say so: {answer.belief[:1].lower()}{answer.belief[1:]}", "  ")
    if not answer.appeared:
        yield wrapped(
            f"The effect did not appear in this run: expected was {answer.expected}."
            " Run it again; where it is about time, when the machine has less to do.",
            "  ",
        )


def spoken(question: Question) -> str:
    """What is asked for, as it is said in a sentence."""
    return "How it ends" if question.label == ENDS else question.label


def wrapped(text: str, margin: str = "") -> str:
    """A paragraph in lines that a terminal holds."""
    width = min(WIDTH, get_terminal_size().columns)
    return fill(text, width, initial_indent=margin, subsequent_indent=margin, break_long_words=False,
                break_on_hyphens=False)  # fmt: skip


def plain(text: str) -> str:
    """Markdown for a terminal: it reads as it stands, but for the marks of code blocks, and lines of any length."""
    text = CAPTURED.sub(lambda found: _quoted(*found.group("program", "place", "text")), text)
    text = re.sub(r"(?ms)^```\w*\n(.*?)^```\n?", lambda found: indent(found[1], "    "), text)
    return "\n\n".join(
        block if block.startswith((" ", "|", "-")) else wrapped(block) for block in re.split("\n\n+", text.strip("\n"))
    )


def _quoted(name: str, place: str, text: str) -> str:
    where = "in every order" if place == IN_EVERY_ORDER else f"on {place}, when this course was built"
    return f"{name} {where}:\n\n{indent(text, '    ')}\n"


def listing(lessons: Iterable[tuple[Lesson, set[str]]]) -> str:
    """The lessons in a line each, with the steps that are done."""
    found = list(lessons)
    width = max(len(lesson.name) for lesson, _ in found)
    lines = [f"{lesson.name:{width}}  {lesson.minutes:>2} min  {_done(done)}{lesson.title}" for lesson, done in found]
    return "\n".join([*lines, "", 'To take one: producer learn NAME. By what you see: producer why "SYMPTOM"', ""])


def _done(done: set[str]) -> str:
    return "(done) " if "mend" in done else "(begun) " if done else ""
