"""A Celery project like any other, which the tests of delivery run workers of: one call has its messages on loan."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from celery import Celery
from kombu import Queue

import onloan

app = Celery("delivery", broker=os.environ.get("DELIVERY_BROKER"), set_as_current=False)
app.conf.update(
    task_ignore_result=True,
    task_default_queue="short",
    task_queues=[Queue("short"), Queue("long", routing_key="long")],
    worker_hijack_root_logger=False,
)
if os.environ.get("DELIVERY_STOCK"):  # what a benchmark compares with
    app.conf.update(task_acks_late=True, worker_prefetch_multiplier=1, worker_disable_prefetch=True)
else:
    onloan.configure(
        app,
        lease=float(os.environ.get("DELIVERY_LEASE", "6")),
        max_deliveries=int(os.environ.get("DELIVERY_MAX", "10")),
        max_message_bytes=1 << 20,
        allow_links=not os.environ.get("DELIVERY_NO_LINKS"),
        grace=float(os.environ.get("DELIVERY_GRACE", "2.5")),
        ends_at_once=lambda request: request.task.name == "immovable",
    )


def note(event: str, number: Any) -> None:
    """One line in the log, written at once and whole, whatever happens to the process or to Redis."""
    fd = os.open(os.environ["DELIVERY_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, f"{event} {number} {os.getppid()}\n".encode())
    os.close(fd)


@app.task(name="work")
def work(number: Any, seconds: float = 0.0) -> None:
    note("begin", number)
    time.sleep(seconds)
    note("end", number)


@app.task(name="immovable")
def immovable(number: Any, seconds: float) -> None:
    work(number, seconds)


@app.task(name="noop")
def noop() -> None:
    pass


@app.task(name="poison")
def poison(number: Any) -> None:
    note("begin", number)
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="memory")
def memory(number: Any) -> None:
    """Note the resident size of the worker's main process, in kB."""
    with open(f"/proc/{os.getppid()}/status") as status:
        note(f"rss-{number}", next(line.split()[1] for line in status if line.startswith("VmRSS")))
