"""Celery's tasks, in its own environment."""

from __future__ import annotations

from celery import Celery

from benchmarks.peers import peers, works

app = Celery("peers", broker=peers.url(), backend=peers.url())
app.conf.update(
    task_serializer="pickle",
    result_serializer="pickle",
    accept_content=["pickle"],
    worker_disable_rate_limits=True,
    worker_prefetch_multiplier=16,
    broker_connection_retry_on_startup=True,
)
noop, spin, nap = (app.task(name=each.__name__)(each) for each in (works.noop, works.spin, works.nap))
