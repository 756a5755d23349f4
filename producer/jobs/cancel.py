"""Ending a job before its end."""

from __future__ import annotations

import sys

from producer.jobs import fleet, following, programs


def cancel(job_id: str) -> None:
    """Begin no more tasks of a job, and end those that run; a job that was cancelled before stays so.

    Raises:
        JobEnded: It has ended already, or did just now.
        NoSuchJob: There is none of this id.
    """
    app = fleet.connect()
    job = app.records.find(job_id)
    if job.state == "cancelled":
        print(f"{job_id} was cancelled before: {job.done} of {len(job.tasks)} tasks were done.")
        return
    if job.ended:
        raise following.ended_already(job)
    if programs.is_program(job):
        programs.cancel(app, job)
        return
    app.records.cancel(job_id)  # first: what this command does not live to revoke is not begun either
    ids = [name for name, task in job.tasks.items() if task.state != "SUCCESS"]
    with fleet.reached(app):
        app.control.revoke(ids, terminate=True, signal="SIGTERM")
    running = job.having("STARTED")
    job = following.stopped(app, job_id)
    print(f"{job_id} is cancelled: {job.done} of {len(job.tasks)} tasks were done, {len(running)} were under way.")
    if left := job.having("STARTED"):
        print(
            f"Still under way after {following.PATIENCE:g} s, if their workers live: {', '.join(left)}", file=sys.stderr
        )
