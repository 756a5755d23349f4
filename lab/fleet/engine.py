"""The Celery app as both sides see it: the queue, the serializer, the delivery settings.

Celery carries what has to be placed on a host, which is one thing: "start this process". The message holds ids only; the
sealed pickle waits in Redis and is taken by the host that got the message, once (``worker.hosted``). The message is on
loan to the worker that got it; the settings for that are one call (``onloan.configure``), and onloan's README says why.
"""

from __future__ import annotations

from typing import Any

from celery import Celery
from kombu import Queue

import onloan
from lab.fleet import remote
from lab.settings import Settings
from onloan import transport

PREFIX = "crosshost:celery:"
DEAD_KEY = PREFIX + transport.Channel.dead_key
PROCESS_TASK = "worker.process"
PROCESS_QUEUE = "processes"


def make_app(settings: Settings, app_class: Any = Celery, allow_links: bool = False, **loan: Any) -> Any:
    """The app for a fleet, of a class; nothing is read from the environment, and nothing connects yet.

    Args:
        settings: Of the fleet.
        app_class: Of the app.
        allow_links: Whether its messages may name what is called after them, which the start of a process never does.
        **loan: Other options of ``onloan.configure``.
    """
    app = app_class("crosshost", broker=settings.broker_url or None, set_as_current=False)
    onloan.configure(app, lease=settings.lease, key_prefix=PREFIX, allow_links=allow_links, **loan)
    app.conf.update(
        # data only: whoever can write to Redis must not be able to make Celery unpickle
        accept_content=["json"],
        task_serializer="json",
        result_serializer="json",
        task_ignore_result=True,
        task_queues=[Queue(PROCESS_QUEUE)],
        task_default_queue=PROCESS_QUEUE,
        # what the child prints is forwarded by the supervisor, not logged
        worker_redirect_stdouts=False,
        worker_hijack_root_logger=False,
        worker_proc_alive_timeout=30,
        task_publish_retry=False,  # whoever starts a process has a patience of its own (lab.cluster.process)
    )
    remote.install(app, settings.keyring if settings.authkey else None)
    return app
