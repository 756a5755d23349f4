"""A worker's Celery app: the engine that both sides share, and the one task that a fleet knows."""

from __future__ import annotations

from typing import Any

from celery import Celery, bootsteps

import lab
from lab.cluster import wire
from lab.cluster.engine import PROCESS_TASK, make_app
from lab.cluster.fleet import HOSTS, host_key, kernel
from lab.cluster.store import Store
from lab.settings import Settings
from worker.events import send_on_request
from worker.supervisor import Supervisor


def worker_app(settings: Settings) -> Celery:
    """The app of one host.

    Raises:
        BadSettings: There is no authkey; a fleet without one does not start.
    """
    settings.require_key()
    app, store = make_app(settings), Store(settings.broker_url)

    @app.task(name=PROCESS_TASK)
    def process(run_id: str, process_id: str) -> int | None:
        """Take a process that waits in Redis and be its host until it ends."""
        return Supervisor(settings, store, run_id, process_id).supervise()

    class Announce(bootsteps.StartStopStep):
        """Tell the fleet, three times a lease, that this host is alive."""

        requires = ("celery.worker.consumer.tasks:Tasks",)
        timer: Any = None

        def start(self, parent: Any) -> None:
            self.stop(parent)
            seconds, _ = store.call("TIME")
            self.announcement = {
                "pid": parent.pid,
                "slots": parent.pool.num_processes,
                "version": lab.__version__,
                "key": wire.fingerprint(settings.authkey),
                "started": int(seconds) * 1000,
                "kernel": kernel(),
            }
            self.beat()
            self.timer = parent.timer.call_repeatedly(settings.lease / 3, self.beat)

        def stop(self, parent: Any) -> None:
            if self.timer is not None:
                self.timer.cancel()
                self.timer = None

        def shutdown(self, parent: Any) -> None:
            self.stop(parent)
            store.pipeline([("DEL", host_key(settings.host)), ("SREM", HOSTS, settings.host)])

        def beat(self) -> None:
            key, lease = host_key(settings.host), int(settings.lease * 1000)
            fields = [str(part) for pair in self.announcement.items() for part in pair]
            store.pipeline(
                [
                    ("HSET", key, *fields),
                    ("PEXPIRE", key, lease),
                    ("SADD", HOSTS, settings.host),
                    ("PEXPIRE", HOSTS, lease * 10),
                ]
            )

    app.steps["consumer"].add(Announce)
    send_on_request(app)
    return app
