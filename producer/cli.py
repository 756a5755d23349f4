"""The commands. Each one checks its arguments here and leaves the work to a module of its own.

Those modules are imported inside the commands, so that ``--help`` and ``concepts`` answer at once.
"""

from __future__ import annotations

import sys
from typing import Any

import click

from lab import PLACES, __version__
from lab.errors import ExitCode
from producer import errors, names

EXIT_CODES = "Exit codes: " + ", ".join(f"{code.value} {errors.spoken(code)}" for code in ExitCode) + "."


class LabGroup(click.Group):
    """A group whose commands end in words and an exit code instead of a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, with the lab's own errors and interruptions explained."""
        with errors.explained():
            return super().invoke(ctx)


def show_version(ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:
    """Print the version and end, when asked to."""
    if wanted:
        click.echo(f"producer {__version__}")
        ctx.exit()


on_places = click.option(
    "--on",
    "places",
    metavar="PLACE",
    multiple=True,
    callback=names.check_places,
    help=f"Where to run: {', '.join(PLACES)}. May be given more than once. Default: all of them.",
)
add_rtt = click.option(
    "--rtt",
    metavar="TIME",
    default="",
    callback=names.check_rtt,
    help="Add a network round trip between the cluster's hosts and Redis, such as 500us, 2ms or 20ms.",
)
json_flag = click.option("--json", "as_json", is_flag=True, help="Write JSON, and nothing else, to stdout.")


@click.group(cls=LabGroup, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=show_version, help="Show the version."
)
def main() -> None:
    """One concurrency lab, three places to run it: threads, processes, and a cluster of Celery workers."""


@main.command()
@json_flag
def concepts(as_json: bool) -> None:
    """List the concepts, in the order of the course."""
    from producer import catalogue

    catalogue.show(as_json)


@main.command()
@click.argument("concepts", metavar="NAME...", nargs=-1, required=True, callback=names.check_concepts)
@on_places
@add_rtt
@json_flag
def demo(concepts: list[str], places: list[str], rtt: float, as_json: bool) -> None:
    """Run concepts by name and show all that happens.

    What their children print appears as they print it.
    """
    from producer import demo

    errors.finish(demo.demo(concepts, names.apart(places, rtt), as_json, rtt))


@main.command()
@click.argument("concepts", metavar="[CONCEPT]...", nargs=-1, callback=names.check_concepts)
@on_places
@add_rtt
@click.option(
    "--json",
    "json_file",
    metavar="FILE",
    type=click.Path(dir_okay=False, writable=True, allow_dash=True),
    callback=names.check_folder,
    help="Write the evidence to FILE as JSON; with '-' to stdout, in place of the report.",
)
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
def compare(concepts: list[str], places: list[str], rtt: float, json_file: str | None, quiet: bool) -> None:
    """Measure all concepts in all places, side by side.

    Ends with 0 only if every claim of every program held.
    """
    from producer import compare

    errors.finish(compare.compare(concepts, names.apart(places, rtt), json_file, quiet, rtt))


@main.command()
@json_flag
def workers(as_json: bool) -> None:
    """Show the hosts of a running fleet.

    The fleet is the one that CROSSHOST_BROKER_URL points at.
    """
    from producer import workers

    workers.show(as_json)


@main.command()
@click.option("--hosts", type=click.IntRange(1, 1000), help="Number of hosts. [default: CROSSHOST_HOSTS, or 3]")
@click.option("--slots", type=click.IntRange(1, 1000), help="Processes per host. [default: CROSSHOST_SLOTS, or 4]")
@json_flag
def fleet(hosts: int | None, slots: int | None, as_json: bool) -> None:
    """Keep a fleet running here until Ctrl-C.

    Prints the settings that point the commands of another terminal at it.
    """
    from producer import fleet

    sys.exit(fleet.keep(hosts, slots, as_json))
