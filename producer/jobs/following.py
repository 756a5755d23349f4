"""What following a job takes, of whatever kind: how often one looks, when nothing can come of it any more, and its errors."""

from __future__ import annotations

import time

from lab.errors import JobEnded, JobFailed
from lab.fleet.engine import PREFIX
from lab.jobs.app import QUEUES, JobApp
from lab.jobs.records import Job

PERIOD = 0.25
"""Seconds between two looks."""

NOBODY = "No host takes jobs now; it waits in the queue. Start one: worker --queues jobs,jobs.long"

PATIENCE = 5.0
"""Seconds that ``cancel`` waits for the end of what is under way."""

STILL = 10.0
"""Seconds without news after which it is asked whether anything of a job is still under way."""


class Watched:
    """Whether anything more can come of a job that has been silent for a while.

    Args:
        app: The fleet's app.
    """

    def __init__(self, app: JobApp) -> None:
        self._app = app
        self.heard()

    def heard(self) -> None:
        """There is news of it."""
        self._look_at, self._missed = time.monotonic() + STILL, False

    def look(self, job: Job) -> None:
        """Look, if it has been silent for long enough.

        Raises:
            JobFailed: Nothing will come of it, as its messages were deleted.
        """
        if job.sent and time.monotonic() >= self._look_at:
            before, self._missed = self._missed, _nothing_under_way(self._app)
            self._look_at = time.monotonic() + STILL / 5
            if before and self._missed:
                raise _lost(job)


def _nothing_under_way(app: JobApp) -> bool:
    """Whether no message of any job waits or is with a worker. What a task sends, it sends before its own is done with."""
    keys = [(PREFIX + queue, f"{PREFIX}{queue}:held") for queue in QUEUES]
    return not any(
        app.records.store.pipeline([ask for list_, held in keys for ask in (("LLEN", list_), ("HLEN", held))])
    )


def _lost(job: Job) -> JobFailed:
    return JobFailed(
        f"{job.record.id} is lost: {done_of(job)} tasks are done, and no message of a job is under way.",
        f"Somebody has deleted what was in {PREFIX}{QUEUES[0]} or its state, or Redis has lost it. Submit it again.",
    )


def failed(job: Job) -> JobFailed:
    """The error for a job that has no result."""
    if job.state == "cancelled":
        return JobFailed(
            f"{job.record.id} was cancelled, {done_of(job)} tasks done.", "To submit it again: producer submit"
        )
    name, task = next(iter(job.having("FAILURE").items()))
    return JobFailed(
        f"{job.record.id} failed: task {name}: {task.error}", f"All of it: producer status {job.record.id}"
    )


def stopped(app: JobApp, job_id: str) -> Job:
    """A job that was cancelled, when nothing of it is under way any more, or ``cancel`` has waited for long enough."""
    deadline = time.monotonic() + PATIENCE
    while (job := app.records.find(job_id)).having("STARTED") and time.monotonic() < deadline:
        time.sleep(0.1)
    if job.state == "done":  # it ended before it could be told
        raise ended_already(job)
    return job


def ended_already(job: Job) -> JobEnded:
    """The error for a job that was to be cancelled, and had ended."""
    see = "result" if job.state == "done" else "status"
    return JobEnded(
        f"{job.record.id} is {job.state} already; there is nothing to cancel.", f"See: producer {see} {job.record.id}"
    )


def done_of(job: Job) -> str:
    """How many of its tasks are done, of how many."""
    return f"{job.done}/{len(job.tasks)}"
