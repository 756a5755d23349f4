"""``flaky``: retries with backoff, time limits, and a chain, in which each task gets what the one before it gave."""

from __future__ import annotations

import time
from typing import Any

from celery import shared_task
from celery.exceptions import SoftTimeLimitExceeded

from lab.jobs import flaky
from worker.jobs.task import JobTask


@shared_task(
    base=JobTask,
    name="jobs.flaky.attempt",
    bind=True,
    autoretry_for=(flaky.Flaky,),  # and for no other: what cannot get better is not tried again
    max_retries=flaky.MOST_FAILURES,
    retry_backoff=True,  # after 1, 2, 4, 8 s, so that a peer in trouble is not hammered
    retry_jitter=False,  # (with many clients leave it on: each then waits a random part of that, and they spread)
)
def attempt(self: Any, failures: int, seconds: int, stubborn: int) -> int:
    """One try."""
    begun = time.monotonic()
    try:
        return flaky.attempt(self.request.retries, failures, seconds)
    except SoftTimeLimitExceeded:  # raised here, in the middle: the last chance to put things in order
        if not stubborn:
            raise
        time.sleep(max(0.0, seconds - (time.monotonic() - begun)))  # the hard limit kills the process
        return int(self.request.retries) + 1


@shared_task(base=JobTask, name="jobs.flaky.report")
def report(tries: int) -> dict[str, int]:
    """The second link."""
    return flaky.report(tries)
