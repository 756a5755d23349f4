"""Submitting a job to a fleet, and running one on this host."""

from __future__ import annotations

import os
import secrets
import sys
import time
from typing import Any

import lab
from lab import jobs, spans
from lab.jobs.app import LONG, SHORT, JobApp
from lab.jobs.job import run_here
from lab.jobs.records import Record
from lab.settings import Settings
from producer import output
from producer.capture import Relay
from producer.jobs import fleet, following, result, watch
from producer.jobs.canvas import COMPOSE, Canvas
from producer.progress import Progress

JOB_SLOTS = 2


def send(app: JobApp, name: str, arguments: dict[str, Any], queue: str | None, soft_limit: int) -> Record:
    """Record a job, then send all its messages.

    Args:
        app: The fleet's app.
        name: Which job.
        arguments: Its arguments; those that are missing have their default.
        queue: ``short``, ``long``, or None for the one that suits the job.
        soft_limit: Seconds that one chunk may take.

    Raises:
        BadArgument: An argument is out of bounds; nothing was sent.
        BrokerUnreachable: Redis does not answer.
    """
    job = jobs.load(name)
    arguments = job.check(arguments)
    pieces = job.cut(arguments)
    long = job.long if queue is None else queue == "long"
    canvas = Canvas(app, f"{name}-{secrets.token_hex(4)}", arguments, LONG if long else SHORT, soft_limit)
    composed = COMPOSE[name](canvas, pieces)
    record = Record(canvas.job_id, name, arguments, time.time(), canvas.tasks, canvas.merged)
    app.records.add(record)
    with fleet.reached(app), spans.asking(f"job {name}"):
        composed.apply_async()
    app.records.sent(record.id)
    return record


def submit(name: str, arguments: dict[str, Any], queue: str | None, soft_limit: int) -> None:
    """Send a job, write its id to stdout, and what to do with it to stderr."""
    app = fleet.connect()
    record = send(app, name, arguments, queue, soft_limit)
    output.write(f"{record.id}\n")
    if not fleet.hosts(app):
        print(following.NOBODY, file=sys.stderr)
    print(f"To follow it: producer watch {record.id}", file=sys.stderr)


def submit_and_wait(
    name: str, arguments: dict[str, Any], queue: str | None, soft_limit: int, folder: str | None, as_json: bool
) -> None:
    """Send a job, follow it, write its result; over a fleet of its own if none is configured."""
    from lab.fleet.embedded import EmbeddedFleet

    settings = Settings.from_env()
    embedded = None
    if not settings.broker_url:
        embedded = EmbeddedFleet(settings, job_slots=JOB_SLOTS)
    try:
        if embedded:
            print("Starting a fleet for the time of this command ...", file=sys.stderr)
            settings = embedded.start()
        app = fleet.connect(settings)
        record = send(app, name, arguments, queue, soft_limit)
        if not embedded:
            print(record.id, file=sys.stderr)
        watch.follow(app, record.id, stays=embedded is None)
        result.show(app, record.id, folder, as_json)
    finally:
        if embedded:
            embedded.stop()


def run_on_this_host(
    name: str, arguments: dict[str, Any], place: str, workers: int | None, folder: str | None, as_json: bool
) -> None:
    """Run a job by a pool of this host, and write its result."""
    job = jobs.load(name)
    arguments = job.check(arguments)
    begun = time.perf_counter()
    with Relay() as relay:  # what the pool's children write when Ctrl-C ends them is not for the terminal
        progress = Progress(relay.real)

        def tell(done: int, total: int) -> None:
            if done == total or done % max(1, total // 20) == 0:
                progress.say(f"{name} on {place}: {done}/{total}")

        value = run_here(job, arguments, lab.get_context(place), workers or os.cpu_count() or 1, tell)
        progress.clear()
    result.write(name, arguments, value, folder, as_json)
    print(f"in {output.duration(time.perf_counter() - begun)}", file=sys.stderr)
