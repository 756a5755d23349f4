"""The Celery app of the jobs, as both sides see it: queues, limits, results, and a signature on every message.

A job's message is data, JSON, and so could harm nobody by being read; but it says what to run. So each carries, in a
header of its own, an HMAC under the fleet's authkey over its body and over what identifies it: its task, its id, its
place in a group, its retries and limits. A worker refuses what has none (``worker.jobs.task.JobRequest``). Signed is also
what a worker sends, such as the last step of a chord or a retry, because it is done where every message leaves.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from typing import Any

from celery import Celery
from celery.app.amqp import AMQP
from kombu import Exchange, Queue
from kombu.serialization import dumps
from kombu.utils.objects import cached_property

from lab.cluster import wire
from lab.cluster.engine import make_app
from lab.cluster.jobs import Records
from lab.cluster.store import Store
from lab.settings import Settings

SHORT, LONG = QUEUES = ("jobs", "jobs.long")
SOFT_LIMIT = 300
"""Seconds that a chunk may take before it is told to end; ``GRACE`` later its process is killed."""
GRACE = 5

_IDENTITY = ("task", "id", "root_id", "parent_id", "group", "group_index", "retries", "timelimit", "eta", "expires")


_AMQP: Any = AMQP  # of which the type stubs know only a part


class SignedAMQP(_AMQP):  # type: ignore[misc]
    """Celery's message factory, with a signature in the headers of what it sends."""

    @cached_property
    def send_task_message(self) -> Any:
        """The function that sends one message; here its headers and body are final."""
        send = self._create_task_sender()

        def signed(producer: Any, name: str, message: Any, headers: Any = None, **options: Any) -> Any:
            *_, body = dumps(message.body, serializer="json")
            identity = {**message.headers, **(headers or {})}
            signature = message_signature(self.app.settings.authkey, identity, body)
            return send(producer, name, message, headers={**(headers or {}), "signature": signature}, **options)

        return signed


class JobApp(Celery):
    """A Celery app that knows the fleet's key and the records of its jobs."""

    amqp_cls = "lab.cluster.jobapp:SignedAMQP"
    settings: Settings
    records: Records


def make_job_app(settings: Settings) -> JobApp:
    """The app for the jobs of a fleet; nothing connects yet.

    Raises:
        BadSettings: There is no authkey.
    """
    settings.require_key()
    app: JobApp = make_app(settings, JobApp)
    app.settings, app.records = settings, Records(Store(settings.broker_url, settings.outage), settings)
    app.conf.update(
        # Several queues, as a chunk of minutes must not stand before one of milliseconds. A free slot looks into them in
        # this order; a worker that takes only the first keeps its slots for short chunks (worker --queues jobs).
        task_queues=[Queue(name, Exchange(SHORT), routing_key=name) for name in QUEUES],
        task_default_queue=SHORT,
        task_ignore_result=False,
        task_track_started=True,  # who works on a chunk
        task_soft_time_limit=SOFT_LIMIT,
        task_time_limit=SOFT_LIMIT + GRACE,
        task_reject_on_worker_lost=True,  # unlike a process, a chunk may be done again: it goes to another worker
        result_backend="lab.cluster.results:Results+redis://",
        result_backend_transport_options={"global_keyprefix": "crosshost:result:"},
        result_expires=int(settings.keep),
        result_chord_join_timeout=30.0,
    )
    app.conf.broker_transport_options["queue_order_strategy"] = "priority"
    return app


def message_signature(authkey: bytes, headers: Mapping[str, Any], body: str | bytes) -> str:
    """The signature of a message, in hex: over its body, and over its headers as far as they say what is to be run."""
    identity = json.dumps([headers.get(name) for name in _IDENTITY]).encode()
    return wire.sign(authkey, "job message", identity, body.encode() if isinstance(body, str) else bytes(body)).hex()


def is_genuine(authkey: bytes, headers: Mapping[str, Any], body: str | bytes) -> bool:
    """Whether a message carries the signature that a holder of the key has put on it."""
    given = headers.get("signature")
    return isinstance(given, str) and hmac.compare_digest(
        given.encode(), message_signature(authkey, headers, body).encode()
    )
