"""A worker's Celery app: the engine that both sides share, with the one task that starts a process, or with the jobs."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

from celery import Celery, Task, bootsteps

import lab
from lab.cluster import deadletters, wire
from lab.cluster.engine import DEAD_KEY, PROCESS_QUEUE, PROCESS_TASK, make_app
from lab.cluster.fleet import JOBS, host_key, hosts_key, kernel
from lab.cluster.jobapp import make_job_app
from lab.cluster.store import Store
from lab.errors import BrokerUnreachable
from lab.settings import Settings
from worker import health, host
from worker.archives import Archives
from worker.events import send_on_request
from worker.jobs import MODULES
from worker.supervisor import Refused, Supervisor


def worker_app(settings: Settings) -> Celery:
    """The app of one host.

    Raises:
        BadSettings: There is no authkey; a fleet without one does not start.
    """
    settings.require_key()
    app: Celery = make_app(settings)
    store, archives = Store(settings.broker_url, settings.outage), Archives()

    host.install(app)

    class Start(Task):  # type: ignore[type-arg]
        """A start that failed or was refused: nobody waits for its result, so it becomes a dead letter."""

        def on_failure(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
            reason = str(exc) if isinstance(exc, Refused) else f"{type(exc).__name__}: {exc}"
            said = deadletters.letter(reason, PROCESS_QUEUE, PROCESS_TASK, task_id, 1)
            deadletters.add(store.call, DEAD_KEY, said, repr(args))

    @app.task(name=PROCESS_TASK, bind=True, base=Start, throws=(Refused,))
    def process(self: Any, run_id: str, process_id: str, again: bool = False) -> int | None:
        """Take a process that waits in Redis and be its host until it ends; ``again`` if an earlier message may be lost."""
        redelivered = bool(self.request.delivery_info.get("redelivered")) or again is True
        return Supervisor(settings, store, str(run_id), str(process_id), archives, redelivered).supervise()

    app.steps["consumer"].add(announcement(settings))
    send_on_request(app)
    return app


def job_worker_app(settings: Settings) -> Celery:
    """The app of one host's worker for jobs. It runs no process: what a job does must not wait behind one.

    Raises:
        BadSettings: There is no authkey.
    """
    app = make_job_app(settings)
    host.install(app)
    app.task_cls = "worker.jobs.task:JobTask"  # Celery's own tasks check signatures too: a starmap can call any task
    app.conf.update(
        imports=MODULES,
        # An outage of Redis must not turn a chunk that is done into a failed one, nor lose the last step of a chord.
        result_backend_always_retry=True,
        result_backend_max_retries=120,
        result_backend_max_sleep_between_retries_ms=1000,
        task_publish_retry=True,
        task_publish_retry_policy={
            "max_retries": 120,
            "interval_start": 0.1,
            "interval_step": 0.2,
            "interval_max": 1.0,
        },
    )
    app.steps["consumer"].add(announcement(settings, JOBS))
    send_on_request(app)
    return app


def announcement(settings: Settings, kind: str = "") -> type[bootsteps.StartStopStep]:
    """The part of a worker that announces it as a host of a kind."""
    announcer = Store(settings.broker_url)  # without patience, as it speaks in the worker's own loop

    class Announce(bootsteps.StartStopStep):
        """Tell the fleet, three times a lease, that this host is alive."""

        requires = ("celery.worker.consumer.tasks:Tasks",)
        timer: Any = None

        def start(self, parent: Any) -> None:
            self.stop(parent)
            started = int(time.time())
            with suppress(BrokerUnreachable):  # Redis went away again: its clock is better, but ours will do
                started = int(announcer.call("TIME")[0])
            self.announcement = {
                "pid": parent.pid,
                "slots": parent.pool.num_processes,
                "version": lab.__version__,
                "key": wire.fingerprint(settings.authkey),
                "started": started * 1000,
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
            with suppress(BrokerUnreachable):  # then it lapses
                announcer.pipeline([("DEL", host_key(settings.host, kind)), ("SREM", hosts_key(kind), settings.host)])

        def beat(self) -> None:
            key, lease = host_key(settings.host, kind), int(settings.lease * 1000)
            fields = [str(part) for pair in self.announcement.items() for part in pair]
            with suppress(BrokerUnreachable):  # the next beat tries again
                announcer.pipeline(
                    [
                        ("HSET", key, *fields),
                        ("PEXPIRE", key, lease),
                        ("SADD", hosts_key(kind), settings.host),
                        ("PEXPIRE", hosts_key(kind), lease * 10),
                    ]
                )
                health.announced(settings.lease)

    return Announce
