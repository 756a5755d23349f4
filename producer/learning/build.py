"""The course, built (``python -m producer.learning.build``): its programs run, what they print is quoted, the pages written.

Every program of the lessons runs in all its places, and what it prints is checked against what the lesson expects, as
often as ``--times`` says. Then each quoted output in ``lesson.md`` is what the last run printed, and the pages are made of
that. A lesson of which an effect did not appear is left as it was, and the command ends with 1.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from lab import PLACES
from lab.errors import ExitCode
from producer import errors, interrupt, names, output
from producer.learning import lesson as lessons
from producer.learning import site
from producer.learning.comparing import compare
from producer.learning.lesson import COURSE, Lesson, Step, load
from producer.learning.running import IN_EVERY_ORDER, Printed, Room, explore, room
from producer.learning.showing import CAPTURED
from producer.progress import Progress

Captured = dict[tuple[str, str], Printed]
"""What was printed, by the program's file name and the place."""
TRIES = 3
"""How often a program about time may try, as a busy machine can spoil it."""


def capture(lesson: Lesson, where: Room, times: int, progress: Progress) -> tuple[Captured, list[str]]:
    """Run all programs of a lesson.

    Returns:
        What the last run of each printed, and what did not appear, a line each.
    """
    captured: Captured = {}
    missing: list[str] = []
    for step in lesson.steps:
        for place in step.places:
            for number in range(1, times + 1):
                progress.say(f"{lesson.name}/{step.program.name} on {place}, {number} of {times} ...")
                captured[step.program.name, place], wrong = _tried(step, place, where)
                missing += wrong
        if step.explored is not None:
            captured[step.explored.name, IN_EVERY_ORDER] = explore(step.explored)
    progress.clear()
    return captured, missing


def _tried(step: Step, place: str, where: Room) -> tuple[Printed, list[str]]:
    tries = TRIES if step.timed else 1
    while True:
        printed = where.run(step.program, place)
        wrong = list(_not_appeared(step, place, printed))
        tries -= 1
        if not wrong or not tries:
            return printed, wrong


def _not_appeared(step: Step, place: str, printed: Printed) -> Iterator[str]:
    nothing = {question.label: dict.fromkeys(step.places) for question in step.questions}
    for seen in compare(step, nothing, {place: printed}):
        if not seen.appeared:
            yield (
                f"{step.program.parent.name}/{step.program.name} on {place}: {seen.question.label!r} was {seen.measured!r},"
                f" expected {seen.expected}. {printed.failure()}".rstrip()
            )


def quote(page: str, captured: Captured) -> str:
    """A lesson's page, each of its quoted outputs what was captured."""
    return CAPTURED.sub(
        lambda found: "```output {} {}\n{}```\n".format(
            found["program"], found["place"], captured[found["program"], found["place"]].stdout
        ),
        page,
    )


def build(chosen: list[str], course: Path, into: Path, times: int, progress: Progress) -> list[str]:
    """Run, quote, and write the pages.

    Args:
        chosen: The lessons to run; the pages are of all lessons.
        course: Where they lie.
        into: Where the pages go.
        times: How often each program is run.
        progress: Told what takes long.

    Returns:
        What did not appear, a line each; the text of such a lesson is left as it was.
    """
    missing: list[str] = []
    with room(list(PLACES), progress) as where:
        for name in chosen:
            captured, wrong = capture(load(name, course), where, times, progress)
            missing += wrong
            if not wrong:
                page = course / name / "lesson.md"
                page.write_text(quote(page.read_text(), captured))
    site.write([load(name, course) for name in lessons.names(course)], course, into)
    return missing


@click.command()
@click.argument("chosen", metavar="[LESSON]...", nargs=-1)
@click.option(
    "--into", type=click.Path(file_okay=False, path_type=Path), default=Path("dist/course"), show_default=True
)
@click.option("--course", type=click.Path(exists=True, file_okay=False, path_type=Path), default=COURSE)
@click.option("--times", type=names.Whole(1, 1000), default=1, show_default=True, help="Runs of each program.")
@click.option("--pages-only", is_flag=True, help="Run nothing; quote what was captured before.")
def main(chosen: tuple[str, ...], into: Path, course: Path, times: int, pages_only: bool) -> None:
    """Run the lessons' programs, quote what they print, and write the pages."""
    known = lessons.names(course)
    if unknown := set(chosen) - set(known):
        raise click.UsageError(f"there is no lesson {', '.join(sorted(unknown))}")
    with errors.explained():
        if pages_only:
            site.write([load(name, course) for name in known], course, into)
            missing = []
        else:
            missing = build(list(chosen) or known, course, into, times, Progress(sys.stderr))
        output.write("".join(f"{line}\n" for line in [*missing, into / "index.html"]))
        sys.exit(ExitCode.CHECK_FAILED if missing else ExitCode.OK)


if __name__ == "__main__":
    interrupt.listen()
    main(prog_name="python -m producer.learning.build")
