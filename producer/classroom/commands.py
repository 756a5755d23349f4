"""The commands for those who teach."""

from __future__ import annotations

import sys
from datetime import datetime

import click

from producer import names
from producer.exercise.commands import json_flag

LIMITS = {"seconds": 120.0, "memory": 1024, "processes": 64}
"""What an answer may use, unless told otherwise."""


@click.group(cls=names.Group)
def course() -> None:
    """Give a class exercises with numbers of their own, grade them, collect predictions (docs/teaching.md)."""


@course.command()
@click.argument("folder", metavar="DIR")
@click.option("--lessons", metavar="NAME,...", multiple=True, callback=names.check_lessons, help="To be taken.")
@click.option("--exercises", metavar="NAME,...", multiple=True, callback=names.check_exercises, help="To be mended.")
@click.option("--students", metavar="N|FILE", required=True, help="How many; or a file with a name in each line.")
@click.option("--seed", type=names.Whole(0), help="What their numbers are made of. Default: another one each time.")
@click.option(
    "--due", metavar="TIME", callback=names.check_time, help="As 2027-01-31T18:00; later answers are marked late."
)
def new(
    folder: str, lessons: list[str], exercises: list[str], students: str, seed: int | None, due: datetime | None
) -> None:
    """Make a class: in DIR, a folder for each student, whose numbers are that student's own.

    Typed again with more students, adds their folders and leaves the others as they are.
    """
    from producer.classroom import making

    sys.exit(making.new(folder, lessons, exercises, students, seed, due))


@course.command()
@click.argument("folder", metavar="DIR")
@click.option(
    "--seconds", type=names.Seconds(1), default=LIMITS["seconds"], show_default=True, help="Twice for each answer."
)
@click.option(
    "--memory", type=names.Whole(256, 1_000_000), default=LIMITS["memory"], show_default=True, help="Megabytes."
)
@click.option(
    "--processes",
    type=names.Whole(16, 10_000),
    default=LIMITS["processes"],
    show_default=True,
    help="And threads, at once.",
)
@click.option(
    "--jobs", type=names.Whole(1, 64), default=1, show_default=True, help="Answers that are graded at a time."
)
@click.option("--again", is_flag=True, help="Grade anew what was graded before.")
@json_flag
def grade(folder: str, seconds: float, memory: int, processes: int, jobs: int, again: bool, as_json: bool) -> None:
    """Grade what a class has handed in, each answer by itself, behind walls and within limits.

    DIR is what course new has made. Ends with 0 when all is graded, whatever the verdicts are. What is graded is kept: after
    Ctrl-C, or when answers come later, the same command goes on.
    """
    from producer.classroom import command
    from producer.classroom.cell import Limits

    sys.exit(command.grade(folder, Limits(seconds, memory, processes), jobs, again, as_json))


@course.command()
@click.argument("folders", metavar="DIR...", nargs=-1, required=True)
@click.option("--html", metavar="FILE.html", default="", callback=names.check_folder, help="Write a page as well.")
@json_flag
def predictions(folders: tuple[str, ...], html: str, as_json: bool) -> None:
    """Collect what a class has predicted in lessons into one picture.

    DIR has a folder for each student, with what is kept of their lessons (NAME.jsonl). The first prediction counts.
    """
    from producer.learning import collecting

    sys.exit(collecting.show(list(folders), html, as_json))
