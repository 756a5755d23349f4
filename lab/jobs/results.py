"""Where Celery keeps the results of jobs: its own Redis backend, sealed, and without pub/sub.

Two things differ from ``celery.backends.redis``. What is stored is sealed under the fleet's authkey for the task or the
chord that it is of, so a result that somebody without the key has written or copied is refused. And nobody subscribes to
results or is told of them: a wait over pub/sub that meets an outage of Redis can hang although the result is there, so who
waits asks for the state (``Records.states``).

On Redis: ``crosshost:result:celery-task-meta-ID``, and a chord's ``crosshost:result:chord-unlock-*``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import redis
from celery import states
from celery.backends.redis import RedisBackend
from celery.exceptions import ChordError

from lab.errors import WrongKey
from lab.store.store import GRACE

_purpose: ContextVar[str] = ContextVar("purpose", default="job group")

_RedisBackend: Any = RedisBackend  # of which the type stubs know only a part


class Results(_RedisBackend):  # type: ignore[misc]
    """Celery's Redis backend, sealed; made by Celery, by its name in ``result_backend``."""

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

    def encode(self, data: Any) -> bytes:
        """Data as sealed JSON."""
        return bytes(self.app.keys.seal(_purpose.get(), str(super().encode(data)).encode()))

    def decode(self, payload: Any) -> Any:
        """The data of sealed JSON.

        Raises:
            WrongKey: It was not sealed with the fleet's key, or for something else.
        """
        return super().decode(bytes(self.app.keys.unseal(_purpose.get(), bytes(payload))).decode())

    def fetch(self, task_id: str) -> Any:
        """The result of a task that has succeeded; None if there is none, or no longer.

        Raises:
            WrongKey: What is there was not sealed, or was sealed for another task.
        """
        payload = self.get(self.get_key_for_task(task_id))
        if payload is None:
            return None
        with _of_task(task_id):
            meta = self.decode(payload)
        return meta["result"] if meta["status"] == states.SUCCESS else None

    def on_chord_part_return(self, request: Any, state: str, result: Any, **kwargs: Any) -> Any:
        """Keep a part of a chord; with the last one, send the task that gets them all."""
        with _for(f"part of {request.group}"):
            return super().on_chord_part_return(request, state, result, **kwargs)

    def _unpack_chord_result(self, part: Any, decode: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return super()._unpack_chord_result(part, decode, *args, **kwargs)
        except WrongKey as exc:
            raise ChordError(exc.message) from exc  # so that the chord fails, and nobody waits for it

    def _get_task_meta_for(self, task_id: str) -> Any:
        try:
            with _of_task(task_id):
                return super()._get_task_meta_for(task_id)
        except WrongKey:
            return {"status": states.PENDING, "result": None}  # so that the true result replaces the forged one

    def _mget_to_results(self, values: Any, keys: Any, *args: Any) -> Any:
        found: dict[str, Any] = {}
        for task_id, value in zip(keys, values, strict=True):
            with _of_task(task_id.decode() if isinstance(task_id, bytes) else task_id):
                found |= super()._mget_to_results([value], [task_id], *args)
        return found

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **kwargs: Any
    ) -> Any:
        with _of_task(task_id):
            super()._store_result(task_id, result, state, traceback=traceback, request=request, **kwargs)
        self.app.records.note(task_id, state, result)
        return result


@contextmanager
def _for(purpose: str) -> Iterator[None]:
    """What is encoded and decoded meanwhile, is for this."""
    token = _purpose.set(purpose)
    try:
        yield
    finally:
        _purpose.reset(token)


def _of_task(task_id: str) -> Any:
    return _for(f"result of {task_id}")
