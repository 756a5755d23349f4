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
from producer.jobs.commands import COMMANDS

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


class ScriptCommand(click.Command):
    """A command whose own errors have exit codes of their own, as the others are the script's."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Parse the command line."""
        with errors.apart():
            return super().make_context(*args, **kwargs)


@main.command(cls=ScriptCommand)
@click.argument("script", metavar="SCRIPT.py")
@click.option(
    "--on",
    "place",
    metavar="PLACE",
    default="cluster",
    callback=names.check_place,
    help=f"Where to run: {', '.join(PLACES)}. Default: cluster.",
)
@click.argument("args", metavar="[-- ARGS]...", nargs=-1)
def run(script: str, place: str, args: tuple[str, ...]) -> None:
    """Run a multiprocessing script of your own in a place, as it is.

    What follows -- is for the script. Its exit code is passed through; when it is the producer that fails, 100 is added to
    the codes below: 104 means that the broker is unreachable.
    """
    from producer import script as scripts

    with errors.apart():
        scripts.hand_over(script, place, list(args))


@main.command()
@json_flag
def workers(as_json: bool) -> None:
    """Show the hosts of a running fleet.

    The fleet is the one that CROSSHOST_BROKER_URL points at.
    """
    from producer import workers

    workers.show(as_json)


@main.command()
@json_flag
@click.option("--clear", is_flag=True, help="Forget them, once they are shown.")
def deadletters(as_json: bool, clear: bool) -> None:
    """List the messages that no worker will run, newest first, with the reason.

    The fleet is the one that CROSSHOST_BROKER_URL points at.
    """
    from producer import deadletters

    deadletters.show(as_json, clear)


@main.command()
@click.option("--hosts", type=click.IntRange(1, 1000), help="Number of hosts. [default: CROSSHOST_HOSTS, or 3]")
@click.option("--slots", type=click.IntRange(1, 1000), help="Processes per host. [default: CROSSHOST_SLOTS, or 4]")
@click.option("--job-slots", type=click.IntRange(0, 1000), default=2, show_default=True, help="Job chunks per host.")
@click.option("--durable", is_flag=True, help="Keep what Valkey holds in a file, and start again what dies.")
@json_flag
def fleet(hosts: int | None, slots: int | None, job_slots: int, durable: bool, as_json: bool) -> None:
    """Keep a fleet running here until Ctrl-C.

    Prints the settings that point the commands of another terminal at it.
    """
    from producer import fleet

    sys.exit(fleet.keep(hosts, slots, job_slots, durable, as_json))


@main.command("map")
@click.argument("function", metavar="MODULE:FUNCTION|SCRIPT.py:FUNCTION")
@click.argument("input", metavar="INPUT")
@click.option("-o", "--output", metavar="FILE", default="-", callback=names.check_folder, help="Default: stdout.")
@click.option("--on", "place", metavar="PLACE", default="processes", show_default=True, callback=names.check_place)
@click.option(
    "--format", type=click.Choice(["lines", "jsonl", "csv"]), help="Default: by the suffix of INPUT, else lines."
)
@click.option("--unordered", is_flag=True, help="Write each result as soon as it is there.")
@click.option("--index", is_flag=True, help='Write {"index": N, "result": ...}; N counts items from 0.')
@click.option("--workers", type=click.IntRange(1, 1000), help="Default: what the place can run at once.")
@click.option("--chunksize", type=click.IntRange(1, 100_000), help="Items sent at once. Default: about 50 ms of work.")
@click.option("--retries", type=click.IntRange(0, 100), default=0, show_default=True, help="Of a call that fails.")
@click.option("--timeout", type=click.FloatRange(0.001), metavar="SECONDS", help="For one item.")
@click.option(
    "--on-error",
    type=click.Choice(["stop", "skip", "collect"]),
    default="stop",
    show_default=True,
    help="At an item that fails: stop, or go on; collect writes what happened to a file.",
)
@click.option(
    "--errors", metavar="FILE", callback=names.check_folder, help="For collect. Default: OUTPUT.errors.jsonl."
)
@click.option("--resume", is_flag=True, help="Go on with an output that was broken off; begins it if there is none.")
@click.option("--new-function", is_flag=True, help="With --resume: the function's source may have changed.")
@click.option("--overwrite", is_flag=True, help="Begin anew, although the output was broken off.")
@click.option("--json", "as_json", is_flag=True, help="Write the summary as JSON to stdout; needs --output.")
@click.option("-q", "--quiet", is_flag=True, help="No progress and no summary on stderr.")
def map_(**options: Any) -> None:
    """Map a function over the lines, JSON lines or CSV rows of a file.

    INPUT is a file, or - for standard input. The function gets a line (str), the value of a line of JSON, or a row of CSV
    (dict); its results are written as lines of JSON.
    """
    from producer.mapping import command

    sys.exit(command.run(command.Options(**options)))


@main.command()
@click.argument("functions", metavar="[MODULE:FUNCTION]...", nargs=-1)
@on_places
@click.option("--input", metavar="FILE", help="Items for the functions: lines, JSON lines or CSV. Default: 0, 1, 2 ...")
@json_flag
def breakeven(functions: tuple[str, ...], places: list[str], input: str | None, as_json: bool) -> None:
    """Measure from which length of an item on workers win.

    Measures what calls, items, megabytes, locks and queues cost in each place, works out how long an item must be for 2, 4
    and 8 workers to be faster than this process alone, and tries it with the functions (a built-in one by default).
    """
    from producer.breakeven import command

    command.run(functions, places, input, as_json)


@main.command()
@click.option(
    "--kills", type=click.IntRange(0, 1000), default=20, show_default=True, help="Of hosts, slots, processes."
)
@click.option("--redis-restarts", type=click.IntRange(0, 1000), default=10, show_default=True, help="By SIGKILL.")
@click.option("--cuts", type=click.IntRange(0, 1000), default=5, show_default=True, help="Of all connections to Redis.")
@click.option("--items", type=click.IntRange(1, 1_000_000), default=4000, show_default=True, help="Calls.")
@click.option("--seconds", type=click.FloatRange(1), default=60.0, show_default=True, help="In which the blows fall.")
@click.option("--seed", type=int, help="Of an earlier run, to repeat its plan.")
@json_flag
def chaos(
    kills: int, redis_restarts: int, cuts: int, items: int, seconds: float, seed: int | None, as_json: bool
) -> None:
    """Break a fleet while it works, and see what is lost.

    Starts a fleet of its own and maps a function over a pool, while hosts, slots, processes and Redis are killed and
    connections are cut. Then compares what was accepted with what was done.
    """
    from producer.chaos import command

    sys.exit(command.run(kills, redis_restarts, cuts, items, seconds, seed, as_json))


for job_command in COMMANDS:
    main.add_command(job_command)
