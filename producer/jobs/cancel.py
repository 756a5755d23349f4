"""Ending a job before its end."""

from __future__ import annotations

import sys
import time

from lab.errors import JobFailed
from producer.jobs import fleet

PATIENCE = 5.0


def cancel(job_id: str) -> None:
    """Begin no more tasks of a job, and end those that run.

    Raises:
        JobFailed: It has ended already.
        NoSuchJob: There is none of this id.
    """
    app = fleet.connect()
    job = app.records.find(job_id)
    if job.ended:
        raise JobFailed(
            f"{job_id} is {job.state} already; there is nothing to cancel.", f"See: producer status {job_id}"
        )
    app.records.cancel(job_id)  # first: what this command does not live to revoke is not begun either
    ids = [name for name, task in job.tasks.items() if task.state != "SUCCESS"]
    with fleet.reached(app):
        app.control.revoke(ids, terminate=True, signal="SIGTERM")
    running = job.having("STARTED")
    deadline = time.monotonic() + PATIENCE
    while (left := app.records.find(job_id).having("STARTED")) and time.monotonic() < deadline:
        time.sleep(0.1)
    print(f"{job_id} is cancelled: {job.done} of {len(job.tasks)} tasks were done, {len(running)} were under way.")
    if left:
        print(f"Still under way after {PATIENCE:g} s, if their workers live: {', '.join(left)}", file=sys.stderr)
