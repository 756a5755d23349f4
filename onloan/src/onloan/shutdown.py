"""How a worker ends: what is quick is finished, what is long is handed over."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

from celery import Celery, bootsteps, platforms
from celery.apps import worker
from celery.platforms import EX_OK
from celery.worker import state as worker_state

TICK = 0.2
"""Seconds between two looks at what still runs."""

_Worker: Any = worker.Worker
_state: Any = worker_state
_cold_shutdown: Any = vars(worker)["on_cold_shutdown"]


class Worker(_Worker):  # type: ignore[misc]
    """A Celery worker that ends well on SIGTERM: it takes no more messages.

    * It ends at once what ``ends_at_once`` says;
    * It gives its other tasks ``worker_soft_shutdown_timeout`` seconds, and goes as soon as they are done;
    * Then it stops those that are not, and gives their messages back, so that another worker runs them from the start.

    A second SIGTERM ends the wait. Celery's own ways are to wait for all tasks, however long they take, or (REMAP_SIGTERM)
    to sleep for that time in any case, with its event loop standing still.

    It also does without gossip, mingling and heartbeats: events that are published into a network that has gone silent block
    the loop, and nothing here depends on them.
    """

    ends_at_once: Callable[[Any], bool] | None = None
    _told_at = 0.0
    _deadline = 0.0

    def prepare_args(self, **kwargs: Any) -> dict[str, Any]:
        """What the parts of the worker are made with."""
        return {
            **super().prepare_args(**kwargs),
            "without_gossip": True,
            "without_mingle": True,
            "without_heartbeat": True,
        }

    def install_platform_tweaks(self, worker: Any) -> None:
        """Install the signal handlers."""
        super().install_platform_tweaks(worker)
        if self.use_eventloop:  # without one (gevent, eventlet, Windows) Celery's own way stays
            platforms.signals["SIGTERM"] = self._on_sigterm

    def wait_for_soft_shutdown(self) -> None:
        """Celery would sleep here; the tasks have had their time."""
        if not self._told_at:
            super().wait_for_soft_shutdown()

    def _on_sigterm(self, *_: Any) -> None:
        # A handler may interrupt anything, a lock of the event loop's held: it leaves a note, and the loop reads it.
        connected = getattr(getattr(self, "consumer", None), "connection", None) is not None
        if self._told_at or not connected:
            _state.should_terminate = EX_OK
        self._told_at = self._told_at or time.monotonic()

    @property
    def told(self) -> bool:
        """Whether it was told to stop."""
        return bool(self._told_at)

    def tick(self) -> None:
        """Do what is due; called by the event loop."""
        if not self._told_at:
            return
        if not self._deadline:
            self._deadline = self._told_at + self.app.conf.worker_soft_shutdown_timeout
            self.consumer.task_consumer.cancel()
            ends = type(self).ends_at_once or (lambda _: False)
            for request in [each for each in _state.active_requests if ends(each)]:
                request.cancel(self.consumer.pool, emit_retry=False)
        if not _state.active_requests and not _state.reserved_requests:
            _state.should_stop = EX_OK
        elif time.monotonic() >= self._deadline:
            _cold_shutdown(self)
            _state.should_terminate = EX_OK


class Stopping(bootsteps.StartStopStep):
    """Have the event loop look whether the worker was told to stop: when a signal has come, and from then on.

    An idle worker is not woken for it. Where a program has taken the descriptor to which Python writes its signals for
    itself (``signal.set_wakeup_fd``), the loop looks all the time.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)
    timer: Any = None

    def start(self, parent: Any) -> None:
        """Begin to look, at every connection anew."""
        self.stop(parent)
        if not isinstance(parent.controller, Worker):
            return  # an app may have a worker of its own, which ends in its own way
        signalled = _signalled() if parent.hub is not None else None
        if signalled is not None:
            parent.hub.add_reader(signalled, self._look, parent, signalled)
        self._look(parent, signalled)  # it may have been told while there was no connection

    def _look(self, parent: Any, signalled: socket.socket | None) -> None:
        if signalled is not None:
            with suppress(BlockingIOError):
                signalled.recv(1 << 12)
        if self.timer is None:
            self.timer = parent.timer.call_repeatedly(TICK, self._tick, (parent, signalled))

    def _tick(self, parent: Any, signalled: socket.socket | None) -> None:
        parent.controller.tick()
        if signalled is not None and not parent.controller.told:
            self.stop(parent)  # until the next signal

    def stop(self, parent: Any) -> None:
        """Look no more."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


@cache
def _signalled() -> socket.socket | None:
    """A socket that is readable when a signal has come; None where somebody else reads them."""
    mine, pythons = socket.socketpair()
    for end in (mine, pythons):
        end.setblocking(False)
    before = signal.set_wakeup_fd(pythons.fileno(), warn_on_full_buffer=False)
    if before == -1:
        pythons.detach()
        return mine
    signal.set_wakeup_fd(before)
    mine.close()
    pythons.close()
    return None


def install(app: Celery, ends_at_once: Callable[[Any], bool] | None = None) -> None:
    """Have the workers of an app end like this."""
    members: dict[str, Any] = {"ends_at_once": staticmethod(ends_at_once) if ends_at_once else None}
    vars(app)["Worker"] = app.subclass_with_self(Worker, name="Worker", **members)
    app.steps["consumer"].add(Stopping)
