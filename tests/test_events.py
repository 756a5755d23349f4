"""Celery's events cost a fleet nothing until a monitor asks for them, and nothing again when it no longer does."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from worker import events

CHANNEL = "crosshost:celery:/0.celeryev/*"


@pytest.fixture
def heard(cluster: Any) -> Iterator[Any]:
    """Waits for the next event that a worker publishes; None if there is none in time."""
    cluster.connect()
    with redis.Redis.from_url(cluster.settings.broker_url, socket_timeout=30) as client, client.pubsub() as channel:
        channel.psubscribe(CHANNEL)
        assert channel.get_message(timeout=5)

        def next_event(timeout: float) -> str | None:
            message = channel.get_message(timeout=timeout)
            return message["channel"].decode().rpartition("/")[2] if message else None

        yield next_event


def test_a_worker_sends_events_only_when_it_was_asked(cluster: Any, heard: Any) -> None:
    def run_one() -> None:
        process = cluster.Process(target=time.sleep, args=(0,))
        process.start()
        process.join()
        assert process.exitcode == 0

    run_one()
    assert heard(0.5) is None
    cluster.app.control.enable_events()
    assert heard(10) == "worker.heartbeat"
    run_one()
    deadline, seen = time.monotonic() + 30, set()
    while "task.multi" not in seen and time.monotonic() < deadline:
        seen.add(heard(5))
    assert "task.multi" in seen


def test_a_request_that_is_not_renewed_lapses(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    dispatcher = SimpleNamespace(enabled=True, send=lambda name, **fields: sent.append(json.dumps([name, *fields])))
    dispatcher.disable = lambda: setattr(dispatcher, "enabled", False)
    dispatcher.enable = lambda: setattr(dispatcher, "enabled", True)
    timer = SimpleNamespace(call_repeatedly=lambda *_: SimpleNamespace(cancel=lambda: None))
    consumer = SimpleNamespace(event_dispatcher=dispatcher, timer=timer)
    step = events.Events(consumer)
    step.start(consumer)
    assert not dispatcher.enabled
    step.request()
    assert dispatcher.enabled
    assert len(sent) == 1
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + events.LAPSE - 1)
    step.beat()
    assert len(sent) == 2
    monkeypatch.setattr(time, "monotonic", lambda: now + events.LAPSE + 1)
    step.beat()
    assert not dispatcher.enabled
    assert len(sent) == 2
