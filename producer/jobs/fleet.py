"""The fleet that jobs are sent to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kombu.exceptions import OperationalError
from redis import RedisError

from lab.cluster.context import check_alike
from lab.errors import NoWorkers
from lab.fleet.hosts import JOBS, HostInfo, list_hosts
from lab.jobs.app import JobApp, make_job_app
from lab.settings import Settings
from lab.store.outage import unreachable

WITHOUT = (
    "or wait for the job with a fleet for the time of the command:\n"
    "  producer submit JOB --wait\n"
    "or do without a fleet:\n"
    "  producer submit JOB --on processes"
)


def connect(settings: Settings | None = None, without: str = WITHOUT) -> JobApp:
    """The app for the configured fleet, whose key and version are this program's if any host takes jobs.

    Args:
        settings: Where it is; from the environment when None.
        without: What can be done without one.

    Raises:
        NoWorkers: No broker is configured.
        LabError: Redis cannot be reached, or its hosts have another key or version.
    """
    settings = settings or Settings.from_env()
    if not settings.broker_url:
        raise NoWorkers(
            "No fleet is running that this terminal knows of: CROSSHOST_BROKER_URL is empty.",
            "A job outlives the command that submits it, and so must its fleet. Either start one in another terminal,\n"
            "and run here the export lines that it prints:\n"
            "  producer fleet\n"
            f"or in containers: docker compose up; {without}",
        )
    app = make_job_app(settings)
    check_alike(hosts(app), settings)
    return app


@contextmanager
def reached(app: JobApp) -> Iterator[None]:
    """Turn what Celery raises when it cannot reach Redis into the lab's own error."""
    try:
        yield
    except (OperationalError, RedisError) as exc:
        raise unreachable(app.records.store.address, exc) from exc


def hosts(app: JobApp) -> list[HostInfo]:
    """The live hosts that take jobs."""
    return list_hosts(app.records.store, JOBS)
