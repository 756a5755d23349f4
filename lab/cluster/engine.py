"""The Celery app as both sides see it: the queue, the serializer, the delivery settings.

Celery carries what has to be placed on a host, which is one thing: "start this process". The message holds ids only; the
signed pickle waits in Redis and is taken by the slot that got the message, once (``worker.supervisor``). The message is on
loan to the worker that got it (``lab.cluster.transport``); why each setting has its value: docs/delivery.md.
"""

from __future__ import annotations

from typing import Any

from celery import Celery
from kombu import Queue

from lab.cluster import tls, transport
from lab.settings import Settings

PREFIX = "crosshost:celery:"
DEAD_KEY = PREFIX + transport.Channel.dead_key
PROCESS_TASK = "worker.process"
PROCESS_QUEUE = "processes"


def make_app(settings: Settings, app_class: Any = Celery) -> Any:
    """The app for a fleet, of a class; nothing is read from the environment, and nothing connects yet."""
    app = app_class("crosshost", broker=_celery_url(settings.broker_url), set_as_current=False)
    app.conf.update(
        broker_transport=transport.ALIAS,
        broker_transport_options=_transport_options(settings),
        broker_use_ssl=tls.celery_options(settings.broker_url),
        # data only: whoever can write to Redis must not be able to make Celery unpickle
        accept_content=["json"],
        task_serializer="json",
        result_serializer="json",
        task_ignore_result=True,
        task_queues=[Queue(PROCESS_QUEUE)],
        task_default_queue=PROCESS_QUEUE,
        # A slot is taken for as long as its process lives, so a message fetched ahead would wait behind it while other
        # hosts are idle: fetch only for a free slot, and let the acknowledgement, not the fetch, count it as taken.
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        task_acks_late=True,
        # A slot that died before it took the process loses nothing; after that the message is refused, as a process is
        # started once, and its parent learns that it died (worker.supervisor.CLAIM).
        task_reject_on_worker_lost=True,
        # what the child prints is forwarded by the supervisor, not logged
        worker_redirect_stdouts=False,
        worker_hijack_root_logger=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,  # what is cancelled is acknowledged, that is, lost
        worker_soft_shutdown_timeout=5.0,  # what a worker that is told to stop gives its tasks (worker.host)
        worker_proc_alive_timeout=30,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # an outage has no agreed length
        task_publish_retry=False,
    )
    return app


def _celery_url(url: str) -> str:
    # redis-py says unix://, kombu TRANSPORT+socket://
    url = url.partition("?")[0]  # what is behind it are TLS options, which Celery has a setting for
    return f"{transport.ALIAS}+socket://" + url.removeprefix("unix://") if url.startswith("unix://") else url


def _transport_options(settings: Settings) -> dict[str, Any]:
    return {
        "global_keyprefix": PREFIX,
        "visibility_timeout": settings.lease,
        # a peer that is silently gone must not block the loop for longer
        "socket_connect_timeout": 2.0,
        "socket_timeout": 5.0,
        "health_check_interval": 5,
        "retry_on_timeout": False,  # a push that is sent again may be a second message
        **({} if settings.broker_url.startswith("unix://") else {"socket_keepalive": True}),
    }
