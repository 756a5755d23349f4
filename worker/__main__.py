"""Run one host of a fleet: ``worker --slots 4``, or ``worker --queues jobs,jobs.long`` for jobs."""

from __future__ import annotations

import os
import sys
from dataclasses import replace

import click

from lab.errors import BadSettings, BrokerUnreachable, LabError, NotTrusted
from lab.settings import Settings
from lab.store.store import Store
from worker.name import default_name

PROCESSES, JOB_QUEUES = "processes", ("jobs", "jobs.long")


def check_queues(_ctx: click.Context, _param: click.Parameter, text: str) -> list[str]:
    """The queues that were named: that of the processes, or some of the jobs'."""
    queues = [name.strip() for name in text.split(",")]
    if queues != [PROCESSES] and not set(queues) <= set(JOB_QUEUES):
        raise click.BadParameter(f"{text!r} is neither {PROCESSES} nor some of {', '.join(JOB_QUEUES)}.")
    return queues


@click.command()
@click.option("--slots", type=click.IntRange(1, 1000), help="Places to compute (CROSSHOST_SLOTS, default 4).")
@click.option("--name", help="Name of this host in reports (CROSSHOST_HOST, default the machine's host name).")
@click.option("--queues", default=PROCESSES, callback=check_queues, show_default=True,
              help="What to take: processes, or for a worker that does jobs: jobs,jobs.long, or one of them.")  # fmt: skip
@click.option("--loglevel", default="WARNING", show_default=True)
def main(slots: int | None, name: str | None, queues: list[str], loglevel: str) -> None:
    """Run a Celery worker that runs processes for whoever asks for them, or chunks of jobs.

    It reads CROSSHOST_BROKER_URL and CROSSHOST_AUTHKEY or CROSSHOST_AUTHKEY_FILE.
    """
    try:
        run(slots, name, queues, loglevel)
    except LabError as exc:
        click.echo(f"{exc.message}\n{exc.hint}", err=True)
        sys.exit(int(exc.exit_code))


def run(slots: int | None, name: str | None, queues: list[str], loglevel: str) -> None:
    """Start the worker; returns when it was told to stop.

    Raises:
        BadSettings: No broker, no key, or a variable that cannot be used.
        NotTrusted: The broker's certificate is refused.
    """
    settings = Settings.from_env()
    if not settings.broker_url:
        raise BadSettings(
            "A worker needs a broker: CROSSHOST_BROKER_URL is not set.",
            "Point it at a Redis, or let one command start everything: producer fleet",
        )
    host = name or settings.host or default_name(settings.broker_url)
    settings = replace(settings, slots=slots or settings.slots, host=host)
    settings.require_key()
    os.environ["CROSSHOST_HOST"] = settings.host  # what the processes that run here say they run on
    _check_certificate(settings)
    from worker import app, pool

    processes = queues == [PROCESSES]
    # forked here, as long as this process has one thread
    made = app.worker_app(settings, pool.Supervision(settings)) if processes else app.job_worker_app(settings)
    worker = made.Worker(  # what the command "celery worker" makes, without importing all of its commands
        hostname=f"{settings.host}@{'crosshost' if processes else 'jobs'}", concurrency=settings.slots, queues=queues,
        pool_cls="worker.pool:Processes" if processes else "prefork",
        without_gossip=True, without_mingle=True, without_heartbeat=True, task_events=True, loglevel=loglevel,
    )  # fmt: skip
    worker.start()


def _check_certificate(settings: Settings) -> None:
    """Refuse at once what Celery would try again for ever; a broker that is down it may wait for."""
    if not settings.broker_url.startswith("rediss://"):
        return
    try:
        Store(settings.broker_url).call("PING")
    except NotTrusted:
        raise
    except BrokerUnreachable:
        return


if __name__ == "__main__":
    main()
