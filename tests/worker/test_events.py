"""Celery's events cost a fleet nothing until a monitor asks for them, and nothing again when it no longer does."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from worker import events

CHANNEL = "crosshost:celery:/0.celeryev/*"
TASK = {"task-received", "task-started", "task-succeeded"}
ORDER = """
from celery import Celery
from celery.worker.consumer import Consumer
from worker.events import send_on_request
app = Celery()
send_on_request(app)
blueprint = Consumer.Blueprint(steps=app.steps["consumer"])
blueprint.steps = blueprint.claim_steps()
print(*(step.name for step in blueprint._finalize_steps(blueprint.steps)))
"""


@pytest.fixture
def heard(cluster: Any) -> Iterator[Any]:
    """Waits for what a worker publishes next: the events' types, none if nothing comes in time."""
    cluster.connect()
    with redis.Redis.from_url(cluster.settings.broker_url, socket_timeout=30) as client, client.pubsub() as channel:
        channel.psubscribe(CHANNEL)
        assert channel.get_message(timeout=5)

        def next_events(timeout: float) -> set[str]:
            message = channel.get_message(timeout=timeout)
            if not message:
                return set()
            found = json.loads(base64.b64decode(json.loads(message["data"])["body"]))
            return {event["type"] for event in (found if isinstance(found, list) else [found])}

        yield next_events


def test_a_worker_sends_events_only_when_it_was_asked(cluster: Any, heard: Any) -> None:
    def run_one() -> None:
        process = cluster.Process(target=time.sleep, args=(0,))
        process.start()
        process.join()
        assert process.exitcode == 0

    run_one()
    assert heard(0.5) == set()
    cluster.app.control.enable_events()
    assert heard(10) == {"worker-heartbeat"}
    run_one()
    deadline, seen = time.monotonic() + 30, set[str]()
    while not seen >= TASK and time.monotonic() < deadline:
        seen |= heard(5)
    assert seen >= TASK


@pytest.mark.parametrize("seed", [4, 5, 10])
def test_tasks_are_made_ready_before_events_are_turned_off(seed: int) -> None:
    """Celery sorts its steps as a set has them: in another order with each process, but for what they require."""
    env = os.environ | {"PYTHONHASHSEED": str(seed)}
    done = subprocess.run(
        [sys.executable, "-c", ORDER], env=env, capture_output=True, text=True, timeout=60, check=True
    )
    names = done.stdout.split()
    assert names.index("celery.worker.consumer.tasks.Tasks") < names.index("worker.events.Events")
    assert names[-1] == "celery.worker.consumer.consumer.Evloop"  # nothing is consumed before


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
