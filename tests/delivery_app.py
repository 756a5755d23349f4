"""A Celery project like any other, which the tests of delivery run workers of: one line makes it use the transport."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from celery import Celery
from kombu import Queue

app = Celery("delivery", broker=os.environ.get("DELIVERY_BROKER", "memory://"), set_as_current=False)
app.conf.broker_transport = os.environ.get("DELIVERY_TRANSPORT", "lab.cluster.transport:Transport")
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    task_default_queue="short",
    task_queues=[Queue("short"), Queue("long", routing_key="long")],
    worker_prefetch_multiplier=1,
    worker_disable_prefetch=True,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    worker_hijack_root_logger=False,
    broker_connection_max_retries=None,
    broker_connection_retry_on_startup=True,
    broker_transport_options={
        "visibility_timeout": float(os.environ.get("DELIVERY_LEASE", "6")),
        "max_deliveries": int(os.environ.get("DELIVERY_MAX", "10")),
        "max_message_bytes": 1 << 20,
        "socket_timeout": 5.0,
        "socket_connect_timeout": 2.0,
        "socket_keepalive": True,
        "health_check_interval": 5,
    },
)
if os.environ.get("DELIVERY_HOST"):
    from worker import host

    app.conf.worker_soft_shutdown_timeout = 2.5
    host.install(app)


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
