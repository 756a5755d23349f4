"""The Celery app of the jobs, as both sides see it: queues, limits, results, and messages that are sealed.

A job's message says what to run, and with what. So its body (arguments, callbacks, the rest of a chain) is one sealed string
in the place of the arguments, and it opens only together with what identifies it in the headers: its task, its id, its place
in a group, its retries and limits. A worker refuses what does not open (``worker.jobs.task.JobRequest``). Sealed is also what
a worker sends, such as the last step of a chord or a retry, because it is done where every message leaves.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any

from celery import Celery
from celery.app.amqp import AMQP
from kombu import Exchange, Queue
from kombu.serialization import dumps, loads
from kombu.utils.objects import cached_property

from lab import spans
from lab.errors import WrongKey
from lab.fleet.engine import make_app
from lab.jobs.records import Records
from lab.settings import Settings
from lab.store.store import Store
from lab.store.wire import LastingKeys

SHORT, LONG = QUEUES = ("jobs", "jobs.long")
SOFT_LIMIT = 300
"""Seconds that a chunk may take before it is told to end; ``GRACE`` later its process is killed."""
GRACE = 5

_IDENTITY = ("task", "id", "root_id", "parent_id", "group", "group_index", "retries", "timelimit", "eta", "expires")
SPANS = "spans"
"""Beside the arguments of a message: the context of who has sent it (``lab.spans``)."""

_UNSAID = {"argsrepr": "", "kwargsrepr": ""}
"""What Celery would say of the arguments in the headers."""


_AMQP: Any = AMQP  # of which the type stubs know only a part


class SealedAMQP(_AMQP):  # type: ignore[misc]
    """Celery's message factory, which seals what it sends."""

    @cached_property
    def send_task_message(self) -> Any:
        """The function that sends one message; here its headers and body are final."""
        send = self._create_task_sender()

        def sealed(producer: Any, name: str, message: Any, headers: Any = None, **options: Any) -> Any:
            every = {**message.headers, **(headers or {}), **_UNSAID}
            args, kwargs, more = message.body
            if carrier := spans.current():
                more = {**(more or {}), SPANS: carrier}
            *_, body = dumps((args, kwargs, more), serializer="json")
            text = seal_body(self.app.keys, every, body)
            event = message.sent_event and {**message.sent_event, "args": "", "kwargs": ""}
            message = message._replace(headers=every, body=((text,), {}, {}), sent_event=event)
            return send(producer, name, message, **options)

        return sealed


class JobApp(Celery):
    """A Celery app that knows the fleet's key and the records of its jobs."""

    amqp_cls = "lab.jobs.app:SealedAMQP"
    settings: Settings
    records: Records
    keys: LastingKeys


def make_job_app(settings: Settings) -> JobApp:
    """The app for the jobs of a fleet; nothing connects yet.

    Raises:
        BadSettings: There is no authkey.
    """
    settings.require_key()
    app: JobApp = make_app(settings, JobApp, allow_links=True)  # signed, like all of the message
    app.settings, app.records = settings, Records(Store(settings.broker_url, settings.outage), settings)
    app.keys = app.records.keys
    app.conf.update(
        # Several queues, as a chunk of minutes must not stand before one of milliseconds. A free slot looks into them in
        # this order; a worker that takes only the first keeps its slots for short chunks (worker --queues jobs).
        task_queues=[Queue(name, Exchange(SHORT), routing_key=name) for name in QUEUES],
        task_default_queue=SHORT,
        task_ignore_result=False,
        task_track_started=True,  # who works on a chunk
        task_soft_time_limit=SOFT_LIMIT,
        task_time_limit=SOFT_LIMIT + GRACE,
        result_backend="lab.jobs.results:Results+redis://",
        result_backend_transport_options={"global_keyprefix": "crosshost:result:"},
        result_expires=int(settings.keep),
        result_chord_join_timeout=30.0,
    )
    app.conf.broker_transport_options["queue_order_strategy"] = "priority"
    return app


def _purpose(headers: Mapping[str, Any]) -> str:
    return "job message " + json.dumps([headers.get(name) for name in _IDENTITY])


def seal_body(keys: LastingKeys, headers: Mapping[str, Any], body: str) -> str:
    """The body of a message as text; it opens with its headers, as far as they say what is to be run."""
    return b64encode(keys.seal(_purpose(headers), body.encode())).decode()


def open_body(keys: LastingKeys, headers: Mapping[str, Any], body: Any) -> Any:
    """Arguments, keyword arguments and what else is in a message, of its decoded body.

    Raises:
        WrongKey: No holder of the key has sent it with these headers.
    """
    try:
        (text,), *_ = body
        blob = b64decode(text, validate=True)
    except (TypeError, ValueError, KeyError) as exc:
        raise WrongKey("The message is not sealed.") from exc
    return loads(bytes(keys.unseal(_purpose(headers), blob)), "application/json", "utf-8")
