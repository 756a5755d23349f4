"""``montecarlo``: chunks, that is several calls of a task in one message; Celery runs them as ``celery.starmap``."""

from itertools import chain
from typing import Any

from celery import shared_task

from lab.jobs import montecarlo
from worker.jobs.task import JobTask


@shared_task(base=JobTask, name="jobs.montecarlo.throw")
def throw(seed: int, stream: int, darts: int) -> list[int]:
    """One stream."""
    return montecarlo.throw(seed, stream, darts)


@shared_task(base=JobTask, name="jobs.montecarlo.estimate")
def estimate(messages: list[list[list[int]]]) -> dict[str, Any]:
    """The result, from a list of streams for each message."""
    return montecarlo.estimate(list(chain.from_iterable(messages)))
