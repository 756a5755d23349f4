"""Where jobs have got to: a list, one in full, and one followed to its end.

The state is asked for again and again, not waited for over pub/sub: a subscriber that Redis drops for a moment misses
what it waits for, and then waits for ever although the result is there.
"""

from __future__ import annotations

import sys
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

from lab.errors import BrokerUnreachable
from lab.jobs.app import JobApp
from lab.jobs.records import Job
from producer import output
from producer.jobs import fleet, programs
from producer.jobs.following import NOBODY, PERIOD, Watched, done_of, failed
from producer.progress import Progress

if TYPE_CHECKING:
    from rich.console import RenderableType


def show_all(as_json: bool) -> None:
    """Write the known jobs to stdout, oldest first."""
    app = fleet.connect()
    found = [app.records.find(job_id) for job_id in app.records.ids()]
    if as_json:
        output.write_json([summary(job) for job in found])
        return
    if not found:
        print("No job is known. To submit one: producer submit --help", file=sys.stderr)
        return
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for _ in range(4):
        table.add_column(no_wrap=True)
    table.add_column()
    table.add_row("ID", "STATE", "DONE", "SUBMITTED", "ARGUMENTS", style="bold")
    for job in found:
        table.add_row(job.record.id, job.state, done_of(job), _when(job), _words(job.record.arguments))
    output.write_rich([table])


def show(job_id: str, as_json: bool) -> None:
    """Write one job in full to stdout."""
    app = fleet.connect()
    job = app.records.find(job_id)
    if as_json:
        output.write_json({**summary(job), "tasks": {name: vars(task) for name, task in job.tasks.items()}})
        return
    lines = _report(job, takers=len(fleet.hosts(app)))
    if programs.is_program(job):
        lines += programs.report(app, job)
    output.write_rich(lines)


def follow(app: JobApp, job_id: str, stays: bool = True) -> Job:
    """Show a job's progress on stderr until it ends.

    Args:
        app: The fleet's app.
        job_id: The job.
        stays: Whether the job goes on when this command is interrupted.

    Raises:
        JobFailed: It failed, was cancelled, or nothing will come of it any more as its messages were deleted.
        KeyboardInterrupt: Ctrl-C, which ends the watching and not the job.
    """
    progress, watched = Progress(sys.stderr), Watched(app)
    said = ""
    try:
        while not (job := app.records.find(job_id)).ended:
            if (line := _line(app, job)) != said:
                said = line
                watched.heard()
                progress.say(line)
            watched.look(job)
            time.sleep(PERIOD)
    except KeyboardInterrupt:
        progress.clear()
        goes_on = f"{job_id} goes on. To follow it again: producer watch {job_id}"
        print(goes_on if stays else f"{job_id} ends with the fleet of this command.", file=sys.stderr)
        raise
    except BrokerUnreachable as exc:
        raise BrokerUnreachable(
            exc.message,
            f"The job is not affected if Redis keeps its data. When Redis is back: producer watch {job_id}",
        ) from exc
    finally:
        progress.clear()
    if job.state == "done":
        print(f"{job_id}: done, by {_crew(job)}", file=sys.stderr)
        return job
    raise failed(job)


def watch(job_id: str) -> None:
    """Follow a job to its end, and say how to get its result."""
    app = fleet.connect()
    job = app.records.find(job_id)
    if programs.is_program(job):
        programs.follow(app, job)
    else:
        follow(app, job_id)
    print(f"To see what it found: producer result {job_id}", file=sys.stderr)


def summary(job: Job) -> dict[str, Any]:
    """A job as plain JSON types, without its single tasks."""
    record = job.record
    return {
        "id": record.id, "name": record.name, "arguments": record.arguments, "submitted": record.submitted,
        "state": job.state, "done": job.done, "total": len(job.tasks), "workers": list(job.workers),
    }  # fmt: skip


def _report(job: Job, takers: int) -> list[RenderableType]:
    lines = [f"{job.record.id}: {job.state}, {done_of(job)} tasks done"]
    lines.append(f"submitted {_when(job)}, {_words(job.record.arguments)}")
    if job.workers:
        lines.append(f"by {_crew(job)}: {' '.join(job.workers)}")
    if not job.sent:
        lines.append("Not all of it was sent: the command that submitted it ended before. Cancel it and submit again.")
    if not takers and not job.ended:
        lines.append(NOBODY)
    for words, states in (("now", ("STARTED",)), ("to be tried again", ("RETRY",)), ("failed", ("FAILURE",))):
        lines += [f"  {name} {words} {task.who} {task.error}".rstrip() for name, task in job.having(*states).items()]
    return [*lines]


def _line(app: JobApp, job: Job) -> str:
    words = f"{job.record.id}: {job.state}, {done_of(job)} tasks done, {len(job.having('STARTED'))} under way"
    if retried := len(job.having("RETRY")):
        words += f", {retried} to be tried again"
    if job.state == "queued" and not fleet.hosts(app):
        words += "; no host takes jobs: worker --queues jobs,jobs.long"
    return words


def _when(job: Job) -> str:
    return datetime.fromtimestamp(job.record.submitted).astimezone().isoformat(" ", "seconds")


def _words(arguments: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in arguments.items())


def _crew(job: Job) -> str:
    hosts = {who.partition("/")[0] for who in job.workers}
    return f"{len(job.workers)} worker processes on {len(hosts)} hosts"
