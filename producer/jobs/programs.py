"""Detached programs from any terminal: what they print, how they end, and ending them."""

from __future__ import annotations

import codecs
import json
import sys
import time
from typing import NoReturn

from lab.errors import BrokerUnreachable, JobFailed, NotReady
from lab.jobs.app import JobApp
from lab.jobs.programs import NAME, STDERR, STDOUT, Printed, Programs
from lab.jobs.records import Job
from producer import output
from producer.jobs import fleet, following


def is_program(job: Job) -> bool:
    """Whether a job is a detached program."""
    return job.record.name == NAME


def follow(app: JobApp, job: Job) -> None:
    """Write what a program prints to stdout and stderr, from the beginning, until it ends.

    Raises:
        JobFailed: It failed, was cancelled, or nothing will come of it any more.
        KeyboardInterrupt: Ctrl-C, which ends the watching and not the program.
    """
    job_id, programs, shown, told = job.record.id, Programs(app.records), _Shown(), ""
    watched = following.Watched(app)
    try:
        while True:
            job = app.records.find(job_id)
            while (printed := programs.read(job_id, shown.following)).pieces or printed.missing:
                shown.show(printed)
                watched.heard()
            if job.ended:
                break
            if (line := _waiting(app, job)) != told:
                told = line
                if line:
                    print(f"{job_id}: {line}", file=sys.stderr)
            watched.look(job)
            time.sleep(following.PERIOD)
    except KeyboardInterrupt:
        print(f"{job_id} goes on. To follow it again: producer watch {job_id}", file=sys.stderr)
        raise
    except BrokerUnreachable as exc:
        raise BrokerUnreachable(
            exc.message, f"The program is not watched any more. When Redis is back: producer watch {job_id}"
        ) from exc
    shown.end()
    if job.state != "done":
        _fail(app, job, traceback_too=False)
    print(f"{job_id}: done, exit code 0", file=sys.stderr)


class _Shown:
    """What of a program's output was written, and what comes next."""

    def __init__(self) -> None:
        self.following = 0
        decoder = codecs.getincrementaldecoder("utf-8")
        self._decoders = {STDOUT: decoder("replace"), STDERR: decoder("replace")}

    def show(self, printed: Printed) -> None:
        if printed.missing:
            missing = (
                f"crosshost: what it printed before this is not all kept; {printed.missing:,} bytes in all are gone\n"
            )
            output.write(missing, sys.stderr)
        for stream, data in printed.pieces:
            output.write(self._decoders[stream].decode(data), sys.stderr if stream == STDERR else sys.stdout)
        self.following = printed.following

    def end(self) -> None:
        for stream, decoder in self._decoders.items():
            output.write(decoder.decode(b"", final=True), sys.stderr if stream == STDERR else sys.stdout)


def _waiting(app: JobApp, job: Job) -> str:
    """Why a program prints nothing now, if that is known."""
    hosts = {host.name for host in fleet.hosts(app)}
    if job.state == "queued":
        return "queued, until a slot for jobs is free" if hosts else f"queued; {following.NOBODY}"
    running = next(iter(job.having("STARTED").values()), None)
    host = running.who.partition("/")[0] if running else ""
    if host and host not in hosts:
        return f"host {host} does not answer; what becomes of the program is told when another host hears of it"
    return ""


def show_result(app: JobApp, job: Job, as_json: bool) -> None:
    """Write what a program has found: what its function returned, or its exit code.

    Raises:
        NotReady: It has not ended.
        JobFailed: It failed, with its traceback, or was cancelled.
    """
    job_id, record = job.record.id, job.record
    if not job.ended:
        raise NotReady(f"{job_id} is {job.state}.", f"To follow it: producer watch {job_id}")
    end = Programs(app.records).end(job_id)
    if as_json and end is not None and job.state != "cancelled":
        said = {"job": NAME, "arguments": record.arguments, "exit_code": end.exit_code, "host": end.host,
                "result": json.loads(end.result) if end.result is not None else None}  # fmt: skip
        output.write_json(said | ({} if end.well else {"error": end.error, "traceback": end.traceback}))
    if end is None or job.state != "done":
        _fail(app, job)
    if not as_json:
        output.write(f"{end.result if end.result is not None else 'exit code 0'}\n")


def _fail(app: JobApp, job: Job, traceback_too: bool = True) -> NoReturn:
    end = Programs(app.records).end(job.record.id)
    if end is None or job.state == "cancelled":
        raise following.failed(job)
    hint = end.traceback.rstrip() if traceback_too else ""
    if not hint:
        see = "What it printed: producer watch" if traceback_too else "All that is known: producer status"
        hint = f"{see} {job.record.id}"
    raise JobFailed(f"{job.record.id} failed: {end.described}", hint)


def report(app: JobApp, job: Job) -> list[str]:
    """The lines of ``status``, besides those of all jobs."""
    if (end := Programs(app.records).end(job.record.id)) is not None:
        return [f"on {end.host}: {end.described}"]
    return [line] if (line := _waiting(app, job)) else []


def cancel(app: JobApp, job: Job) -> None:
    """End a program that has not ended: its root by SIGTERM, and seconds later by SIGKILL; its processes end with it."""
    job_id = job.record.id
    app.records.cancel(job_id)
    begun = job.having("STARTED")
    job = following.stopped(app, job_id)
    where = ", ".join(task.who.partition("/")[0] for task in begun.values())
    print(f"{job_id} is cancelled; {f'it ran on {where}' if begun else 'it had not begun'}.")
    if job.having("STARTED"):
        print(f"It is still under way after {following.PATIENCE:g} s, if {where} lives.", file=sys.stderr)
