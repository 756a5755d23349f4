"""A worker's Celery app: the engine that both sides share, and the one task that a fleet knows."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from celery import Celery, Task, bootsteps

import lab
from lab.cluster import deadletters, wire
from lab.cluster.engine import DEAD_KEY, PROCESS_QUEUE, PROCESS_TASK, make_app
from lab.cluster.fleet import HOSTS, host_key
from lab.cluster.store import Store
from lab.errors import BrokerUnreachable
from lab.settings import Settings
from worker import host
from worker.archives import Archives
from worker.supervisor import Refused, Supervisor


def worker_app(settings: Settings) -> Celery:
    """The app of one host.

    Raises:
        BadSettings: There is no authkey; a fleet without one does not start.
    """
    settings.require_key()
    app, archives = make_app(settings), Archives()
    store = Store(settings.broker_url, settings.outage)
    announcer = Store(settings.broker_url)  # without patience, as it speaks in the worker's own loop

    host.install(app)

    class Start(Task):  # type: ignore[type-arg]
        """A start that failed or was refused: nobody waits for its result, so it becomes a dead letter."""

        def on_failure(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
            reason = str(exc) if isinstance(exc, Refused) else f"{type(exc).__name__}: {exc}"
            said = deadletters.letter(reason, PROCESS_QUEUE, PROCESS_TASK, task_id, 1)
            deadletters.add(store.call, DEAD_KEY, said, repr(args))

    @app.task(name=PROCESS_TASK, bind=True, base=Start, throws=(Refused,))
    def process(self: Any, run_id: str, process_id: str) -> int | None:
        """Take a process that waits in Redis and be its host until it ends."""
        redelivered = bool(self.request.delivery_info.get("redelivered"))
        return Supervisor(settings, store, str(run_id), str(process_id), archives, redelivered).supervise()

    class Announce(bootsteps.StartStopStep):
        """Tell the fleet, three times a lease, that this host is alive."""

        requires = ("celery.worker.consumer.tasks:Tasks",)
        timer: Any = None

        def start(self, parent: Any) -> None:
            self.stop(parent)
            seconds, _ = announcer.call("TIME")
            self.announcement = {
                "pid": parent.pid,
                "slots": parent.pool.num_processes,
                "version": lab.__version__,
                "key": wire.fingerprint(settings.authkey),
                "started": int(seconds) * 1000,
            }
            self.beat()
            self.timer = parent.timer.call_repeatedly(settings.lease / 3, self.beat)

        def stop(self, parent: Any) -> None:
            if self.timer is not None:
                self.timer.cancel()
                self.timer = None

        def shutdown(self, parent: Any) -> None:
            self.stop(parent)
            announcer.pipeline([("DEL", host_key(settings.host)), ("SREM", HOSTS, settings.host)])

        def beat(self) -> None:
            key, lease = host_key(settings.host), int(settings.lease * 1000)
            fields = [str(part) for pair in self.announcement.items() for part in pair]
            with suppress(BrokerUnreachable):  # the next beat tries again
                announcer.pipeline(
                    [
                        ("HSET", key, *fields),
                        ("PEXPIRE", key, lease),
                        ("SADD", HOSTS, settings.host),
                        ("PEXPIRE", HOSTS, lease * 10),
                    ]
                )

    app.steps["consumer"].add(Announce)
    return app
