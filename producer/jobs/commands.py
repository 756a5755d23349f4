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


class Submit(click.Group):
    """A command for each job, made from what the job says of its parameters."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The jobs, in the order of their list."""
        from lab.jobs import JOBS

        return list(JOBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        """The command of a job.

        Raises:
            BadName: There is no such job; the nearest is named.
        """
        names.check_job(cmd_name)
        return _submit_one(cmd_name)


@click.group(cls=Submit, subcommand_metavar="JOB [OPTIONS]", no_args_is_help=True)
def submit() -> None:
    """Submit a job, and print its id.

    The job goes on when this terminal is closed. What a job takes: producer submit JOB --help
    """


HOW = (
    click.Option(["--on", "place"], type=click.Choice([*IN_HOST, "cluster"]), default="cluster", show_default=True,
                 help="cluster: submit it; else run it here, with a pool."),
    click.Option(["--workers"], type=click.IntRange(1, 1000), help="Size of the pool here. [default: cores]"),
    click.Option(["--queue"], type=click.Choice(["short", "long"]), help="Queue to wait in. [default: the job's own]"),
    click.Option(["--soft-limit"], type=click.IntRange(1, 86_400), default=SOFT_LIMIT, show_default=True,
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
        kind = click.IntRange(parameter.low, parameter.high)
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
    """Follow a job to its end. Ctrl-C ends the watching, not the job."""
    from producer.jobs import watch

    watch.watch(job_id)


@click.command()
@click.argument("job_id", metavar="ID")
@output_folder
@json_flag
def result(job_id: str, folder: str | None, as_json: bool) -> None:
    """Print what a job has found."""
    from producer.jobs import result

    result.show_one(job_id, folder, as_json)


@click.command()
@click.argument("job_id", metavar="ID")
def cancel(job_id: str) -> None:
    """End a job: what waits is not begun, what runs is terminated."""
    from producer.jobs import cancel

    cancel.cancel(job_id)


COMMANDS: tuple[click.Command, ...] = (submit, jobs, status, watch, result, cancel)
