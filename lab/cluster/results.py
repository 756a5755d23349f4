"""Where Celery keeps the results of jobs: its own Redis backend, signed, and without pub/sub.

Two things differ from ``celery.backends.redis``. What is stored is signed under the fleet's authkey, so a result that
somebody without the key has written is refused. And nobody subscribes to results or is told of them: a wait over pub/sub
that meets an outage of Redis can hang although the result is there, so who waits asks for the state (``Records.states``).

On Redis: ``crosshost:result:celery-task-meta-ID``, and a chord's ``crosshost:result:chord-unlock-*``.
"""

from __future__ import annotations

import hmac
from typing import Any

import redis
from celery import states
from celery.backends.redis import RedisBackend

from lab.cluster import wire
from lab.cluster.store import GRACE
from lab.errors import WrongKey

_MAC = 64


_RedisBackend: Any = RedisBackend  # of which the type stubs know only a part


class Results(_RedisBackend):  # type: ignore[misc]
    """Celery's Redis backend, signed; made by Celery, by its name in ``result_backend``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # over the fleet's own URL, as redis-py reads it: user, password, TLS and Unix sockets as everywhere else
        url = self.app.settings.broker_url
        self.client = redis.Redis.from_url(url, socket_timeout=GRACE, socket_connect_timeout=2.0)

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Do not subscribe to the result of a task that is sent."""

    def remove_pending_result(self, result: Any) -> Any:
        """Nothing was subscribed to."""
        return result

    def _set(self, key: Any, value: Any, expires: int | None = None) -> None:
        self.client.set(key, value, ex=expires or self.expires)

    def encode(self, data: Any) -> str:
        """Data as signed JSON."""
        text = str(super().encode(data))
        return self._sign(text) + text

    def decode(self, payload: Any) -> Any:
        """The data of signed JSON.

        Raises:
            WrongKey: It is not signed with the fleet's key.
        """
        text = payload.decode() if isinstance(payload, bytes) else str(payload)
        if not hmac.compare_digest(text[:_MAC].encode(), self._sign(text[_MAC:]).encode()):
            raise WrongKey(
                "A result in Redis carries no valid signature; it was refused.", "Somebody without the key wrote it."
            )
        return super().decode(text[_MAC:])

    def fetch(self, task_id: str) -> Any:
        """The result of a task that has succeeded; None if there is none, or no longer.

        Raises:
            WrongKey: What is there was not signed, or was signed for another task.
        """
        payload = self.get(self.get_key_for_task(task_id))
        if payload is None:
            return None
        meta = self.decode(payload)
        if meta.get("task_id") != task_id:
            raise WrongKey(f"The result of task {task_id} is a copy of another's; it was refused.")
        return meta["result"] if meta["status"] == states.SUCCESS else None

    def _get_task_meta_for(self, task_id: str) -> Any:
        try:
            return super()._get_task_meta_for(task_id)
        except WrongKey:
            return {"status": states.PENDING, "result": None}  # so that the true result replaces the forged one

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **kwargs: Any
    ) -> Any:
        super()._store_result(task_id, result, state, traceback=traceback, request=request, **kwargs)
        self.app.records.note(task_id, state, result)
        return result

    def _sign(self, text: str) -> str:
        return wire.sign(self.app.settings.authkey, "job result", text.encode()).hex()
