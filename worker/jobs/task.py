"""What all tasks of jobs have in common: who may send them, when they are begun, and when no more.

Celery gives each message at least once: a worker that dies before it has acknowledged one is replaced by another that
gets it too, and a message can be copied by whoever can write to Redis. So the base class looks before it begins: a task
whose job was cancelled or has expired is not begun, one that has its result already gives that result, and one that has
taken several workers with it is given up.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from celery import Task
from celery.exceptions import Ignore
from celery.utils.log import get_task_logger
from celery.worker import state
from celery.worker.request import Request

from lab import spans
from lab.errors import BrokerUnreachable, LabError, WorkerLost, WrongKey
from lab.fleet.counts import CHUNKS, REDELIVERED
from lab.jobs.app import SPANS, open_body
from lab.jobs.job import BadArgument
from lab.jobs.records import new_run

MOST_RUNS = 3
OUTAGE = 120
"""Seconds that a task waits for a Redis that does not answer before it fails."""

logger = get_task_logger(__name__)
T = TypeVar("T")


_Request: Any = Request  # of which the type stubs know only a part
_Task: Any = Task


class JobRequest(_Request):  # type: ignore[misc]
    """A message, in the worker's main process, before a slot gets it."""

    def __init__(self, message: Any, *args: Any, app: Any, **options: Any) -> None:
        try:
            body, self._genuine = open_body(app.keys, message.headers, message.payload), True
        except WrongKey:
            body, self._genuine = [[], {}, {}], False
        options.update(body=body, headers=message.headers, decoded=True)
        super().__init__(message, *args, app=app, **options)
        if self._genuine and (message.delivery_info or {}).get("redelivered"):
            app.counting.one(REDELIVERED)

    def acknowledge(self) -> None:
        """It has come to its end, however that was."""
        if self.time_start and not self.acknowledged:  # else it was never run
            self._app.counting.took(CHUNKS, max(0.0, time.time() - self.time_start))
        super().acknowledge()

    def revoked(self) -> bool:
        """Whether not to run it: Celery asks this first. A message that does not open is never run."""
        if not self._genuine:
            logger.error(
                "Refused: task %s[%s] is not sealed with the fleet's key; it was not executed", self.name, self.id
            )
            state.task_ready(self)
            self.acknowledge()
            return True
        return bool(super().revoked())

    def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> None:
        """Leave it to another worker, as this one stops; that is no death that it could have caused."""
        super().cancel(pool, signal, emit_retry)
        if self.time_start:
            with suppress(LabError):
                self._app.records.hand_over(self.id, self.request_dict.get("retries") or 0, who(self.worker_pid))


class JobTask(_Task):  # type: ignore[misc]
    """Base of the jobs' tasks, and of Celery's own (``celery.starmap`` ...) in a worker for jobs."""

    abstract = True
    Request = "worker.jobs.task:JobRequest"
    max_retries = 5
    throws = (BadArgument,)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task in a slot, unless it must not be begun."""
        request = self.request
        if request.called_directly:
            return self.run(*args, **kwargs)  # an item of a starmap, whose message was looked at
        run = new_run(who(os.getpid()))
        begun = patiently(partial(self.app.records.begin, request.id, request.retries, run))
        if not begun.known:
            logger.error("Not begun: task %s[%s] belongs to a job that has expired or never was", self.name, request.id)
            raise Ignore
        if begun.cancelled:
            self.update_state(state="REVOKED")
            raise Ignore
        if begun.runs > 1:
            meta = self.backend.get_task_meta(request.id)
            if meta["status"] == "SUCCESS":
                return meta["result"]
        if begun.runs - begun.handed_over > MOST_RUNS:
            raise WorkerLost(f"It was given up, as the {MOST_RUNS} workers that took it died.")
        request.begun, request.its_run = begun, run  # for a task that has to know which run of it this is
        if carrier := request.get(SPANS):
            return spans.under(carrier, self.name, partial(self.run, *args, **kwargs))
        return self.run(*args, **kwargs)


def who(pid: int) -> str:
    """A process of this host, as records call it."""
    return f"{os.environ.get('CROSSHOST_HOST', '')}/{pid}"


def patiently(ask: Callable[[], T]) -> T:
    """What Redis answers, asked again during an outage."""
    deadline = time.monotonic() + OUTAGE
    while True:
        try:
            return ask()
        except BrokerUnreachable:
            if time.monotonic() > deadline:
                raise
            time.sleep(1.0)
