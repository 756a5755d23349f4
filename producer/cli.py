"""The commands. Each one checks its arguments here and leaves the work to a module of its own.

Those modules are imported inside the commands, so that ``--help`` and ``concepts`` answer at once.
"""

from __future__ import annotations

import sys
from typing import Any

import click

from lab import MORE_PLACES, PLACES, __version__
from producer import errors, names
from producer.classroom.commands import course
from producer.exercise.commands import exercise
from producer.jobs.commands import COMMANDS, restart_flag
from producer.trace.commands import TRACE_COMMANDS

SHELL_LINES = """\b
bash, in ~/.bashrc:                eval "$(producer completion bash)"
zsh, in ~/.zshrc, after compinit:  eval "$(producer completion zsh)"
fish, once:                        producer completion fish > ~/.config/fish/completions/producer.fish"""
EXIT_CODES = f"\b\nExit codes:\n{errors.table()}"


class LabGroup(names.Group):
    """A group whose commands end in words and an exit code instead of a traceback."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Parse what stands before the command's name."""
        with errors.ending():
            return super().make_context(*args, **kwargs)

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
on_more_places = click.option(
    "--on",
    "places",
    metavar="PLACE",
    multiple=True,
    callback=names.check_more_places,
    help=f"Where to run: {', '.join([*PLACES, *MORE_PLACES])}. May be given more than once. Default: all that there are.",
)
other_python = click.option(
    "--python",
    metavar="PATH",
    default="",
    help="The Python of free-threaded: one without the GIL. Default: python3.14t or the like, if it is on the PATH.",
)
add_rtt = click.option(
    "--rtt",
    metavar="TIME",
    default="",
    callback=names.check_rtt,
    help="Add a network round trip between the cluster's hosts and Redis, such as 500us, 2ms or 20ms.",
)
trace_file = click.option(
    "--trace",
    metavar="FILE",
    default="",
    callback=names.check_folder,
    help="Write a trace to FILE: what was done with every primitive, by whom and when (docs/trace.md).",
)
report_file = click.option(
    "--report",
    metavar="FILE.html",
    default="",
    callback=names.check_folder,
    help="Write a report to FILE.html: one page, to be opened without a network.",
)
with_files = click.option(
    "--with",
    "with_it",
    metavar="FILE|DIR",
    multiple=True,
    help="Send data along: hosts find it under the same path. May be given more than once.",
)
packages_file = click.option(
    "--packages",
    metavar="FILE",
    default="",
    help="Have the hosts install these packages first, locked by version and hash, and find them (producer sync).",
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
@on_more_places
@other_python
@add_rtt
@trace_file
@report_file
@json_flag
def demo(
    concepts: list[str], places: list[str], python: str, rtt: float, trace: str, report: str, as_json: bool
) -> None:
    """Run concepts by name and show all that happens.

    What their children print appears as they print it. With --trace or --report no costs are shown: tracing would be among
    them.
    """
    from producer import demo
    from producer.places import found
    from producer.recording import Recording

    where = found(places, python, traced=bool(trace or report))
    names.apart(where.names, rtt)
    errors.finish(demo.demo(concepts, where, as_json, rtt, Recording(trace, report)))


@main.command()
@click.argument("concepts", metavar="[CONCEPT]...", nargs=-1, callback=names.check_concepts)
@on_more_places
@other_python
@add_rtt
@click.option(
    "--json",
    "json_file",
    metavar="FILE",
    callback=names.check_folder,
    help="Write the evidence to FILE as JSON; with '-' to stdout, in place of the report.",
)
@trace_file
@report_file
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
@click.option(
    "--once",
    "once_file",
    metavar="FILE",
    type=click.Path(dir_okay=False, writable=True),
    callback=names.check_folder,
    help="Not again on this host, as FILE tells: for a container that is started again.",
)
def compare(
    concepts: list[str],
    places: list[str],
    python: str,
    rtt: float,
    json_file: str | None,
    trace: str,
    report: str,
    quiet: bool,
    once_file: str | None,
) -> None:
    """Measure all concepts in all places, side by side.

    Ends with 0 only if every claim of every program held. With --trace or --report everything runs once more, traced:
    what is measured is measured without.
    """
    from producer import compare, once
    from producer.places import found
    from producer.recording import Recording

    if once_file and (code := once.code_of_before(once_file)) is not None:
        click.echo("This host has compared before. To compare again: docker compose run --rm producer compare")
        sys.exit(code)
    where = found(places, python, traced=bool(trace or report))
    names.apart(where.names, rtt)
    runs = compare.compare(concepts, where, json_file, quiet, rtt, Recording(trace, report))
    if once_file:
        once.note(once_file, runs)
    errors.finish(runs)


class ScriptCommand(click.Command):
    """A command whose own errors have exit codes of their own, as the others are the script's."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Parse the command line."""
        with errors.ending(errors.OWN_CODES):
            return super().make_context(*args, **kwargs)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the options up to the script's first own argument; from there on all is the script's."""
        return super().parse_args(ctx, args if ctx.resilient_parsing else names.apart_from_script(args))


@main.command(cls=ScriptCommand)
@click.argument("script", metavar="SCRIPT.py|-m MODULE|-")
@click.option(
    "--on",
    "place",
    metavar="PLACE",
    default="cluster",
    callback=names.check_place,
    help=f"Where to run: {', '.join(PLACES)}. Default: cluster.",
)
@with_files
@packages_file
@trace_file
@report_file
@click.option(
    "--detach", is_flag=True, help="Leave it, and its data, to a host of the fleet, and print its id: producer watch ID"
)
@restart_flag
@click.argument("args", metavar="[ARGS]...", nargs=-1)
def run(
    script: str,
    place: str,
    with_it: tuple[str, ...],
    packages: str,
    trace: str,
    report: str,
    detach: bool,
    restart: bool,
    args: tuple[str, ...],
) -> None:
    """Run a multiprocessing script of your own in a place, as it is; a module by its name, or what standard input says.

    ARGS are the script's, as after python SCRIPT.py; put -- before them if the first one is --on, --with, --packages,
    --trace or --report. Its exit code is passed through; when it is the producer that fails, 100 is added to the codes that
    producer --help lists: 104 means that the broker is unreachable.
    """
    from producer import script as scripts

    with errors.ending(errors.OWN_CODES):
        if detach:
            scripts.detach(script, place, list(args), bool(trace or report), with_it, packages, restart)
            return
        if restart:
            raise errors.BadUsage(
                "--restart is for a program that runs on without you.", "Add --detach before its name."
            )
        scripts.hand_over(script, place, list(args), trace, report, with_it, packages)


@main.command()
@click.argument("program", metavar="SCRIPT.py|CONCEPT")
@click.argument("args", metavar="[ARGS]...", nargs=-1)
@click.option("--bound", type=names.Whole(0, 1000), help="Only orders with at most so many preemptions.")
@click.option("--seed", type=int, default=0, show_default=True, help="For the orders drawn when there are too many.")
@click.option("--limit", type=names.Whole(1, 10_000_000), default=2000, show_default=True, help="Runs, at most.")
@click.option("--steps", type=names.Whole(1, 100_000), default=5000, show_default=True, help="Of one run, at most.")
@click.option("--save", metavar="FILE", callback=names.check_folder, help="Write the order that is shown, as JSON.")
@report_file
@click.option("--play", is_flag=True, help="Choose whose step is next yourself.")
@json_flag
def explore(
    program: str,
    args: tuple[str, ...],
    bound: int | None,
    seed: int,
    limit: int,
    steps: int,
    save: str | None,
    report: str,
    play: bool,
    as_json: bool,
) -> None:
    """Try every order of a program's steps, and count what comes of them.

    Its processes run one at a time, in virtual time. Says how many interleavings end in which result, fail, raise, deadlock
    or never progress, and shows the shortest bad one. Ends with 1 if there is one. ARGS are the script's, after --.
    """
    from producer.explore import command

    if play and report:
        raise click.UsageError("--report shows what was explored, and --play explores nothing: leave out one of them.")
    if play:
        from producer.explore import play as played

        sys.exit(played.play(program, args, steps, save))
    sys.exit(command.explore(program, args, bound, seed, limit, steps, save, as_json, report))


@main.command()
@click.argument("file", metavar="FILE")
@click.option("--on", "place", metavar="PLACE", default="processes", show_default=True, callback=names.check_place)
@click.option("--times", type=names.Whole(1, 1000), default=1, show_default=True, help="How often.")
@json_flag
def replay(file: str, place: str, times: int, as_json: bool) -> None:
    """Force an order that explore --save has written on a real place.

    Each operation waits for its turn. Ends with 1 if the program did not go as it went when it was explored.
    """
    from producer.explore import replay as replayed

    sys.exit(replayed.replay(file, place, times, as_json))


@main.command()
@click.argument("lesson", metavar="[NAME]", required=False, callback=names.check_lesson)
@on_places
@add_rtt
@click.option("--questions", is_flag=True, help="Write the questions as JSON, to be filled in for --answers.")
@click.option("--answers", metavar="FILE", help="Predictions, in place of being asked; - for standard input.")
@json_flag
def learn(
    lesson: str | None, places: list[str], rtt: float, questions: bool, answers: str | None, as_json: bool
) -> None:
    """Take a lesson: predict, run, see; without NAME, list them.

    Predictions are kept on disk before anything runs. Ends with 0 if the lesson's effects appeared, whatever was predicted.
    """
    from producer.learning import command

    if lesson is None:
        command.show(as_json)
    elif questions and answers:
        raise click.UsageError(
            "--questions writes a form to be filled in, and --answers reads one that was. Give one of them."
        )
    elif questions:
        command.questions(lesson, places)
    else:
        sys.exit(command.learn(lesson, names.apart(places, rtt), answers, as_json, rtt))


@main.command()
@click.argument("symptom", nargs=-1, required=True)
@json_flag
def why(symptom: tuple[str, ...], as_json: bool) -> None:
    """Find the lesson for a symptom, such as "map never returns"."""
    from producer.learning import command

    sys.exit(command.why(" ".join(symptom), as_json))


@main.command()
@click.argument("script", metavar="SCRIPT.py")
@click.argument("args", metavar="[ARGS]...", nargs=-1)
@click.option(
    "--on",
    "place",
    metavar="PLACE",
    default="processes",
    show_default=True,
    callback=names.check_place,
    help=f"Where to run it: {', '.join(PLACES)}.",
)
@click.option(
    "--limit",
    type=names.Seconds(1),
    metavar="SECONDS",
    default=20.0,
    show_default=True,
    help="Then it is ended, with all its processes.",
)
@click.option("--read-only", is_flag=True, help="Read it, and do not run it.")
@json_flag
def diagnose(script: str, args: tuple[str, ...], place: str, limit: float, read_only: bool, as_json: bool) -> None:
    """Read and run a script, and name its confusions, with the line and the lesson.

    Ends with 0 if there is none and the script ended well, else with 1. What is a guess says "may". ARGS are the script's,
    after --.
    """
    from producer.diagnose import command

    sys.exit(command.diagnose(script, list(args), place, limit, not read_only, as_json))


@main.command()
@json_flag
def workers(as_json: bool) -> None:
    """Show the hosts of a running fleet.

    The fleet is the one that CROSSHOST_BROKER_URL points at.
    """
    from producer import workers

    workers.show(as_json)


@main.command()
@click.argument("file", metavar="REQUIREMENTS.txt")
@json_flag
def sync(file: str, as_json: bool) -> None:
    """Have each host of a running fleet install a locked set of packages, in an environment of its own.

    Each is named by its version and its hashes, as uv pip compile --generate-hashes writes them. A program finds them with
    producer run --packages REQUIREMENTS.txt. Hosts take packages where CROSSHOST_PACKAGES names a folder for them.
    """
    from producer import sync as synced

    synced.show(file, as_json)


@main.command()
@click.argument("script", metavar="[SCRIPT.py]", required=False, default="")
@json_flag
@click.option("-q", "--quiet", is_flag=True, help="Only what is wrong or worth knowing.")
def doctor(script: str, as_json: bool, quiet: bool) -> None:
    """Look for what is wrong here, with what to type: machine, settings, Docker, Redis, hosts.

    Ends with 1 if something is wrong. Changes nothing. With SCRIPT.py, what it imports is compared with what the hosts have.
    The fleet is the one that CROSSHOST_BROKER_URL points at; without one, the rest is looked at.
    """
    from producer.doctor import command

    sys.exit(command.examine(script, as_json, quiet))


@main.command()
@json_flag
def locks(as_json: bool) -> None:
    """Show who holds which lock and who waits for it, and name a deadlock.

    Ends with 1 if there is a deadlock. The fleet is the one that CROSSHOST_BROKER_URL points at.
    """
    from producer.watching import locks

    sys.exit(locks.show(as_json))


@main.command()
@click.argument("process", metavar="PROCESS")
@json_flag
def stack(process: str, as_json: bool) -> None:
    """Show where a process is now, line by line, on whatever host.

    PROCESS is its id or the beginning of it, its name, or HOST/PID, as in: producer top --once
    """
    from producer.watching import stack

    stack.show(process, as_json)


@main.command()
@click.option("--once", is_flag=True, help="Look once, and end.")
@json_flag
@click.option("--every", type=names.Seconds(0.2), default=1.0, show_default=True, help="Seconds between two looks.")
def top(once: bool, as_json: bool, every: float) -> None:
    """Watch a fleet: its hosts and processes, what each does, pools, queues and locks.

    With --json, a line of JSON for each look. The fleet is the one that CROSSHOST_BROKER_URL points at.
    """
    from producer.watching import top

    top.watch(once, as_json, every)


@main.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8765, show_default=True, help="0 for a free one.")
@click.option(
    "--address",
    default="127.0.0.1",
    show_default=True,
    help="For a container, whose port is published on the loopback.",
)
@click.option("--faults", is_flag=True, help="Let whoever watches kill and freeze processes and cut connections.")
@click.option("--browser/--no-browser", default=True, show_default=True, help="Open a browser.")
def page(port: int, address: str, faults: bool, browser: bool) -> None:
    """Serve a page that shows a fleet as it goes on, on this machine alone.

    The fleet is the one that CROSSHOST_BROKER_URL points at.
    """
    from producer.watching.page import command

    command.show(address, port, faults, browser)


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
@click.option("--hosts", type=names.Whole(1, 1000), help="Number of hosts. [default: CROSSHOST_HOSTS, or 3]")
@click.option(
    "--slots", type=names.Whole(1, 1000), help="Places to compute, per host. [default: CROSSHOST_SLOTS, or 4]"
)
@click.option("--job-slots", type=names.Whole(0, 1000), default=2, show_default=True, help="Job chunks per host.")
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
@click.option("--workers", type=names.Whole(1, 1000), help="Default: what the place can run at once.")
@click.option("--chunksize", type=names.Whole(1, 100_000), help="Items sent at once. Default: about 50 ms of work.")
@click.option("--retries", type=names.Whole(0, 100), default=0, show_default=True, help="Of a call that fails.")
@click.option("--timeout", type=names.Seconds(0.001), metavar="SECONDS", help="For one item.")
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
@with_files
@trace_file
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
    "--kills", type=names.Whole(0, 1000), default=20, show_default=True, help="Of hosts, their parts, processes."
)
@click.option("--redis-restarts", type=names.Whole(0, 1000), default=10, show_default=True, help="By SIGKILL.")
@click.option("--cuts", type=names.Whole(0, 1000), default=5, show_default=True, help="Of all connections to Redis.")
@click.option("--items", type=names.Whole(1, 1_000_000), default=4000, show_default=True, help="Calls.")
@click.option("--seconds", type=names.Seconds(1), default=60.0, show_default=True, help="In which the blows fall.")
@click.option("--seed", type=int, help="Of an earlier run, to repeat its plan.")
@trace_file
@report_file
@json_flag
def chaos(
    kills: int,
    redis_restarts: int,
    cuts: int,
    items: int,
    seconds: float,
    seed: int | None,
    trace: str,
    report: str,
    as_json: bool,
) -> None:
    """Break a fleet while it works, and see what is lost.

    Starts a fleet of its own and maps a function over a pool, while hosts, their parts, processes and Redis are killed and
    connections are cut. Then compares what was accepted with what was done.
    """
    from producer.chaos import command
    from producer.recording import Recording

    recording = Recording(trace, report)
    sys.exit(command.run(kills, redis_restarts, cuts, items, seconds, seed, as_json, recording))


@main.command(epilog=SHELL_LINES)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Write what has a shell complete commands, options, names and files."""
    from producer import completion, output

    output.write(completion.script(shell, main))


for added in (*COMMANDS, *TRACE_COMMANDS, exercise, course):
    main.add_command(added)
