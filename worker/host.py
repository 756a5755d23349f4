"""How a host ends: what is quick is finished, what is long is handed over, and what cannot be handed over ends at once."""

from __future__ import annotations

import time
from typing import Any

from celery import Celery, bootsteps, platforms
from celery.apps import worker
from celery.platforms import EX_OK
from celery.worker import state as worker_state

from lab.cluster.engine import PROCESS_TASK

TICK = 0.2
"""Seconds between two looks at what still runs."""


_Worker: Any = worker.Worker
state: Any = worker_state
cold_shutdown: Any = vars(worker)["on_cold_shutdown"]


class Host(_Worker):  # type: ignore[misc]
    """A Celery worker that ends well on SIGTERM: it takes no more work.

    * It ends the processes that it runs at once: one cannot go on elsewhere, and its parent learns of it now and not later;
    * It gives its other tasks ``worker_soft_shutdown_timeout`` seconds, and goes as soon as they are done;
    * Then it stops those that are not, and gives their messages back, so that another host runs them from the start.

    A second SIGTERM ends the wait. Celery's own ways are to wait for all tasks, however long they take, or (REMAP_SIGTERM)
    to sleep for that time in any case, with its event loop standing still.
    """

    _told_at = 0.0
    _deadline = 0.0

    def install_platform_tweaks(self, worker: Any) -> None:
        """Install the signal handlers."""
        super().install_platform_tweaks(worker)
        platforms.signals["SIGTERM"] = self._on_sigterm

    def wait_for_soft_shutdown(self) -> None:
        """Celery would sleep here; the tasks have had their time."""
        if not self._told_at:
            super().wait_for_soft_shutdown()

    def _on_sigterm(self, *_: Any) -> None:
        # A handler may interrupt anything, a lock of the event loop's held: it leaves a note, and the loop reads it.
        connected = getattr(getattr(self, "consumer", None), "connection", None) is not None
        if self._told_at or not connected:
            state.should_terminate = EX_OK
        self._told_at = self._told_at or time.monotonic()

    def tick(self) -> None:
        """Do what is due; called by the event loop."""
        if not self._told_at:
            return
        if not self._deadline:
            self._deadline = self._told_at + self.app.conf.worker_soft_shutdown_timeout
            self.consumer.task_consumer.cancel()
            for request in [each for each in state.active_requests if each.task.name == PROCESS_TASK]:
                request.cancel(self.consumer.pool, emit_retry=False)
        if not state.active_requests and not state.reserved_requests:
            state.should_stop = EX_OK
        elif time.monotonic() >= self._deadline:
            cold_shutdown(self)
            state.should_terminate = EX_OK


class Stopping(bootsteps.StartStopStep):
    """Have the event loop look whether the host was told to stop."""

    requires = ("celery.worker.consumer.tasks:Tasks",)
    timer: Any = None

    def start(self, parent: Any) -> None:
        """Begin to look, at every connection anew."""
        self.stop(parent)
        self.timer = parent.timer.call_repeatedly(TICK, parent.controller.tick)

    def stop(self, parent: Any) -> None:
        """Look no more."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


def install(app: Celery) -> None:
    """Have the workers of an app end like this."""
    vars(app)["Worker"] = app.subclass_with_self(Host, name="Worker")
    app.steps["consumer"].add(Stopping)
