"""The commands for jobs."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from producer import names

SOFT_LIMIT = 300
IN_HOST = ("threads", "processes")

json_flag = click.option("--json", "as_json", is_flag=True, help="Write JSON, and nothing else, to stdout.")
FOLDER = click.Path(exists=True, file_okay=False, writable=True)
output_folder = click.option("--output", "folder", metavar="FOLDER", type=FOLDER, help="Where to put pictures.")


class Submit(names.Group):
    """A command for each job, made from what the job says of its parameters."""

    kind = "job"

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The jobs, in the order of their list."""
        from lab.jobs import JOBS

        return list(JOBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        """The command of a job, or of a function of one's own."""
        return _submit_function(cmd_name) if ":" in cmd_name else _submit_one(cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command by the first of the arguments: what has a colon is no job's name."""
        if ":" in args[0]:
            return args[0], self.get_command(ctx, args[0]), args[1:]
        return super().resolve_command(ctx, args)


@click.group(cls=Submit, subcommand_metavar="JOB|FILE:FUNCTION [OPTIONS]", no_args_is_help=True)
def submit() -> None:
    """Submit a job, or a function of a program of your own, and print its id.

    It goes on when this terminal is closed. What a job takes: producer submit JOB --help. A function is called with INPUT,
    which is JSON, or - for JSON on standard input; what it returns is its result: producer submit SCRIPT.py:FUNCTION INPUT
    """


restart_flag = click.option(
    "--restart", is_flag=True, help="If its host dies, begin it again: what it did is done twice."
)
HOW = (
    click.Option(["--on", "place"], type=click.Choice([*IN_HOST, "cluster"]), default="cluster", show_default=True,
                 help="cluster: submit it; else run it here, with a pool."),
    click.Option(["--workers"], type=names.Whole(1, 1000), help="Size of the pool here. [default: cores]"),
    click.Option(["--queue"], type=click.Choice(["short", "long"]), help="Queue to wait in. [default: the job's own]"),
    click.Option(["--soft-limit"], type=names.Whole(1, 86_400), default=SOFT_LIMIT, show_default=True,
                 help="Seconds for one chunk, which then fails; 5 s later its process is killed."),
    click.Option(["--wait"], is_flag=True, help="Follow it and write its result; starts a fleet if there is none."),
    click.Option(["--output"], metavar="FOLDER", type=FOLDER, help="Where to put pictures, with --wait or --on."),
    click.Option(["--json", "as_json"], is_flag=True, help="Write the result as JSON, with --wait or --on."),
)  # fmt: skip


def _submit_one(name: str) -> click.Command:
    from lab.jobs import load

    job = load(name)
    options: list[click.Parameter] = [_option(parameter) for parameter in job.parameters]
    return click.Command(name, params=[*options, *HOW], callback=partial(_submit, name), help=job.summary)


def _submit_function(typed: str) -> click.Command:
    @click.command(typed, help=f"Call {typed} on a host of the fleet; INPUT is JSON, or - for JSON on standard input.")
    @click.argument("given", metavar="[INPUT]", required=False)
    @restart_flag
    def call(given: str | None, restart: bool) -> None:
        from producer.jobs import detach

        detach.call(typed, given, restart)

    return call


def _submit(
    name: str, place: str, workers: int | None, queue: str | None, soft_limit: int, wait: bool, output: str | None,
    as_json: bool, **arguments: Any,
) -> None:  # fmt: skip
    from producer.jobs import submit

    if place in IN_HOST:
        submit.run_on_this_host(name, arguments, place, workers, output, as_json)
    elif wait:
        submit.submit_and_wait(name, arguments, queue, soft_limit, output, as_json)
    else:
        submit.submit(name, arguments, queue, soft_limit)


def _option(parameter: Any) -> click.Option:
    if hasattr(parameter, "low"):
        kind = names.Whole(parameter.low, parameter.high)
        return click.Option(
            [f"--{parameter.name}"], type=kind, default=parameter.default, show_default=True, help=parameter.help
        )
    folder = click.Path(exists=True, file_okay=False, readable=True)
    return click.Option([f"--{parameter.name}"], type=folder, required=True, help=parameter.help)


@click.command()
@json_flag
def jobs(as_json: bool) -> None:
    """List the jobs that the fleet knows."""
    from producer.jobs import watch

    watch.show_all(as_json)


@click.command()
@click.argument("job_id", metavar="ID")
@json_flag
def status(job_id: str, as_json: bool) -> None:
    """Show how far a job is, who works on it, and what failed."""
    from producer.jobs import watch

    watch.show(job_id, as_json)


@click.command()
@click.argument("job_id", metavar="ID")
def watch(job_id: str) -> None:
    """Follow a job to its end; of a program, write what it prints. Ctrl-C ends the watching, not the job."""
    from producer.jobs import watch

    watch.watch(job_id)


@click.command()
@click.argument("job_id", metavar="ID")
@output_folder
@json_flag
def result(job_id: str, folder: str | None, as_json: bool) -> None:
    """Print what a job has found, a function has returned, or how a program ended."""
    from producer.jobs import result

    result.show_one(job_id, folder, as_json)


@click.command()
@click.argument("job_id", metavar="ID")
def cancel(job_id: str) -> None:
    """End a job: what waits is not begun, what runs is terminated."""
    from producer.jobs import cancel

    cancel.cancel(job_id)


COMMANDS: tuple[click.Command, ...] = (submit, jobs, status, watch, result, cancel)
