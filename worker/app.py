"""A worker's Celery app: the engine that both sides share, with the one task that starts a process, or with the jobs."""

from __future__ import annotations

from typing import Any

from celery import Celery, bootsteps

import lab
from lab.cluster import wire
from lab.cluster.engine import PROCESS_TASK, make_app
from lab.cluster.fleet import JOBS, host_key, hosts_key
from lab.cluster.jobapp import make_job_app
from lab.cluster.store import Store
from lab.settings import Settings
from worker.jobs import MODULES
from worker.supervisor import Supervisor


def worker_app(settings: Settings) -> Celery:
    """The app of one host.

    Raises:
        BadSettings: There is no authkey; a fleet without one does not start.
    """
    settings.require_key()
    app: Celery = make_app(settings)
    store = Store(settings.broker_url)

    @app.task(name=PROCESS_TASK)
    def process(run_id: str, process_id: str) -> int | None:
        """Take a process that waits in Redis and be its host until it ends."""
        return Supervisor(settings, store, run_id, process_id).supervise()

    app.steps["consumer"].add(announcement(settings, store))
    return app


def job_worker_app(settings: Settings) -> Celery:
    """The app of one host's worker for jobs. It runs no process: what a job does must not wait behind one.

    Raises:
        BadSettings: There is no authkey.
    """
    app = make_job_app(settings)
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
    app.steps["consumer"].add(announcement(settings, app.records.store, JOBS))
    return app


def announcement(settings: Settings, store: Store, kind: str = "") -> type[bootsteps.StartStopStep]:
    """The part of a worker that announces it as a host of a kind."""

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
            }
            self.beat()
            self.timer = parent.timer.call_repeatedly(settings.lease / 3, self.beat)

        def stop(self, parent: Any) -> None:
            if self.timer is not None:
                self.timer.cancel()
                self.timer = None

        def shutdown(self, parent: Any) -> None:
            self.stop(parent)
            store.pipeline([("DEL", host_key(settings.host, kind)), ("SREM", hosts_key(kind), settings.host)])

        def beat(self) -> None:
            key, lease = host_key(settings.host, kind), int(settings.lease * 1000)
            fields = [str(part) for pair in self.announcement.items() for part in pair]
            store.pipeline(
                [
                    ("HSET", key, *fields),
                    ("PEXPIRE", key, lease),
                    ("SADD", hosts_key(kind), settings.host),
                    ("PEXPIRE", hosts_key(kind), lease * 10),
                ]
            )

    return Announce
