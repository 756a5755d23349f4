"""The commands for exercises."""

from __future__ import annotations

import sys

import click

from lab import PLACES
from producer import names

places = click.option(
    "--on",
    "places",
    metavar="PLACE",
    multiple=True,
    callback=names.check_places,
    help=f"Where it is run as well: {', '.join(PLACES)}. May be given more than once. Default: all of them.",
)
which = click.option(
    "--exercise",
    "name",
    metavar="NAME",
    callback=names.check_exercise,
    help="Whose answer FILE is. Default: by its name.",
)
seed = click.option("--seed", type=int, help="For sizes and for orders that are drawn. Default: another one each time.")
limit = click.option(
    "--limit",
    type=names.Whole(100, 1_000_000),
    default=300,
    show_default=True,
    help="Orders that are run, at most, with one size.",
)
json_flag = click.option("--json", "as_json", is_flag=True, help="Write JSON, and nothing else, to stdout.")


@click.group("exercise", cls=names.Group)
def exercise() -> None:
    """Mend a file, and have it graded in every order of its steps and in three places.

    Begin with: producer exercise list
    """


@exercise.command("list")
@json_flag
def list_(as_json: bool) -> None:
    """List the exercises, and which of them you have passed."""
    from producer.exercise import command

    command.show(as_json)


@exercise.command()
@click.argument("name", metavar="NAME", callback=names.check_exercise)
@click.option(
    "--into", metavar="FOLDER", default=".", type=click.Path(exists=True, file_okay=False), help="Default: here."
)
@click.option("--force", is_flag=True, help="Write over the file of that name.")
def start(name: str, into: str, force: bool) -> None:
    """Get the file to mend, NAME.py, and read what is to be done."""
    from producer.exercise import command

    command.start(name, into, force)


@exercise.command()
@click.argument("file", metavar="FILE|NAME")
@which
@places
@seed
@limit
@json_flag
@click.option("--said", metavar="FILE", default="", hidden=True, help="Made when the verdict has been told.")
def check(
    file: str, name: str | None, places: list[str], seed: int | None, limit: int, as_json: bool, said: str
) -> None:
    """Check an answer: every order of its steps first, then each place.

    Ends with 0 if it passed and with 1 if it is not right yet; then the first thing that went wrong is named, drawn in
    FILE's .picture.html, and its order saved in .order.json, for: producer replay
    """
    from producer.exercise import command

    check = command.checked(said) if said else command.check_apart
    sys.exit(check(file, name, places, seed, limit, as_json))


@exercise.command()
@click.argument("name", metavar="NAME", callback=names.check_exercise)
@click.argument("number", metavar="[1|2|3]", required=False, type=names.Whole(1, 3))
def hint(name: str, number: int | None) -> None:
    """Show a hint; without a number, the next one."""
    from producer.exercise import command

    command.hint(name, number)


@exercise.command()
@click.argument("name", metavar="NAME", callback=names.check_exercise)
def solution(name: str) -> None:
    """Show one solution, and why it is one."""
    from producer.exercise import command

    command.solution(name)


@exercise.command()
@click.argument("file", metavar="FILE|NAME")
@which
@places
@seed
@limit
def watch(file: str, name: str | None, places: list[str], seed: int | None, limit: int) -> None:
    """Check an answer again whenever it is saved, until Ctrl-C."""
    from producer.exercise import command

    command.watch(file, name, places, seed, limit)
