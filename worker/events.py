"""Celery's events, which a monitor shows, only while a monitor asks for them.

A worker's event loop publishes its events, and a publish into a network that has gone silent holds the loop up until the
socket's timeout. Nothing that a fleet needs depends on events, so a worker sends none by itself: Flower asks every five
seconds ("enable_events", a remote control command of Celery's), and a request that is not renewed lapses. In a network that
is cut no request arrives, so at most the publishes of one lapse wait. Without a monitor the cost is nothing.

Celery's own heartbeats stay off: it sends them with a retry that has no end.
"""

from __future__ import annotations

import time
from typing import Any

from celery import Celery, bootsteps
from celery.utils.sysinfo import load_average
from celery.worker import state
from celery.worker.control import control_command

LAPSE = 15.0
"""Seconds that a monitor's request is good for: three of Flower's."""

BEAT = 2.0
"""Seconds between two heartbeat events; who misses two is shown as offline."""


def send_on_request(app: Celery) -> None:
    """Have the app's worker send events while asked to, and not otherwise."""
    app.steps["consumer"].add(Events)


class Events(bootsteps.StartStopStep):
    """Turns Celery's event dispatcher on when a monitor asks, and off when it no longer does."""

    # After the tasks: a task's strategy remembers whether the dispatcher was on when it was built. Built after this step had
    # turned it off, it would never tell that a task was received or has succeeded, whoever asks.
    requires = ("celery.worker.consumer.events:Events", "celery.worker.consumer.tasks:Tasks")

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self.until = 0.0
        self.dispatcher: Any = None
        self.timer: Any = None
        parent.events_on_request = self

    def start(self, parent: Any) -> None:
        """With each new connection: the dispatcher is a new one, and on."""
        self.stop(parent)
        self.dispatcher = parent.event_dispatcher
        self.dispatcher.disable()
        self.timer = parent.timer.call_repeatedly(BEAT, self.beat)

    def stop(self, parent: Any) -> None:
        """The connection is lost, or the worker ends."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    shutdown = stop

    def request(self) -> None:
        """A monitor listens."""
        self.until = time.monotonic() + LAPSE
        if self.timer is not None and not self.dispatcher.enabled:
            self.dispatcher.enable()
            self.beat()

    def beat(self) -> None:
        """Say that this worker is there, or fall silent."""
        if time.monotonic() > self.until:
            self.dispatcher.disable()
            return
        self.dispatcher.send(
            "worker-heartbeat",
            freq=BEAT,
            active=len(state.active_requests),
            processed=sum(state.total_count.values()),
            loadavg=load_average(),
            **state.SOFTWARE_INFO,
        )


@control_command()
def enable_events(worker: Any) -> dict[str, str]:
    """Take the place of Celery's command of this name, which turns events on for good."""
    worker.consumer.events_on_request.request()
    return {"ok": f"events for the next {LAPSE:g} s"}
