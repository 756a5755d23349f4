"""What a job has found: as text, as JSON, or as pictures."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from lab import jobs
from lab.errors import NoSuchJob, NotReady
from lab.jobs.app import JobApp
from lab.jobs.records import Job
from producer import output
from producer.jobs import fleet, following, programs


def fetch(app: JobApp, job: Job) -> Any:
    """The result of a job.

    Raises:
        NotReady: It has not ended.
        JobFailed: It failed, or was cancelled.
        NoSuchJob: Its result has expired.
        WrongKey: A result in Redis was not written by a holder of the key.
    """
    if not job.ended:
        raise NotReady(
            f"{job.record.id} is {job.state}: {job.done} of {len(job.tasks)} tasks are done.",
            f"To wait for it: producer watch {job.record.id}",
        )
    if job.state != "done":
        raise following.failed(job)
    wanted = [job.record.id] if job.record.merged else job.record.tasks
    results: Any = app.backend
    with fleet.reached(app):
        found = [results.fetch(task_id) for task_id in wanted]
    if None in found:
        raise NoSuchJob(f"{job.record.id} is done, but its result has expired.", "Submit it again, or keep results longer"
                        f" than {app.settings.keep:g} s: CROSSHOST_KEEP, on the workers")  # fmt: skip
    return found[0] if job.record.merged else jobs.load(job.record.name).merge(found)


def show(app: JobApp, job_id: str, folder: str | None, as_json: bool) -> None:
    """Fetch the result of a job and write it."""
    job = app.records.find(job_id)
    write(job.record.name, job.record.arguments, fetch(app, job), folder, as_json)


def show_one(job_id: str, folder: str | None, as_json: bool) -> None:
    """Likewise, over the configured fleet; of a detached program, what it returned or how it ended."""
    app = fleet.connect()
    job = app.records.find(job_id)
    if programs.is_program(job):
        programs.show_result(app, job, as_json)
    else:
        show(app, job_id, folder, as_json)


def write(name: str, arguments: dict[str, Any], value: Any, folder: str | None, as_json: bool) -> None:
    """Write a result to stdout, and its pictures, if it has any, to a folder."""
    if as_json:
        output.write_json({"job": name, "arguments": arguments, "result": value})
    else:
        output.write("".join(f"{line}\n" for line in jobs.load(name).show(arguments, value)))
    if name != "mandelbrot":
        return
    if folder is None:
        print("To have the pictures, name a folder: --output .", file=sys.stderr)
        return
    from producer.jobs import pictures

    for kind, image in (("image", pictures.image(value)), ("workers", pictures.by_worker(value))):
        path = Path(folder) / f"mandelbrot-{kind}.png"
        with output.written(str(path)):
            image.save(path)
        print(path, file=sys.stderr)
