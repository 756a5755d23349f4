"""A worker's Celery app: the engine that both sides share, with the one task that starts a process, or with the jobs."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import redis
from billiard.process import current_process
from celery import Celery, bootsteps
from celery.signals import worker_process_init

from lab.errors import BrokerUnreachable, LabError, RedisFull
from lab.fleet import packages
from lab.fleet.engine import DEAD_KEY, PROCESS_QUEUE, PROCESS_TASK, make_app
from lab.fleet.hosts import JOBS, host_key, hosts_key, kernel
from lab.jobs.app import make_job_app
from lab.settings import Settings
from lab.store.store import Store
from lab.version import __version__
from onloan import deadletters
from worker import environments, health
from worker.counting import Counting
from worker.events import send_on_request
from worker.jobs import MODULES
from worker.lifeline import end_with_parent
from worker.placement import ALIAS, Placement
from worker.pool import Supervision, Taken


def worker_app(settings: Settings, supervision: Supervision) -> Celery:
    """The app of one host.

    Args:
        settings: The host's settings.
        supervision: Its supervisor, forked before this process has threads.

    Raises:
        BadSettings: There is no authkey; a fleet without one does not start.
    """
    settings.require_key()
    placement, store = Placement(settings), Store(settings.broker_url, settings.outage)
    # A process cannot go on elsewhere: when the host is told to stop it ends at once, and its parent learns of it now.
    app: Any = make_app(settings, carrier=ALIAS, placement=placement, ends_at_once=_is_process)

    def not_started(taken: Taken, reason: str) -> None:
        """A start that failed or was refused: nobody waits for its result, so it becomes a dead letter."""
        said = deadletters.letter(reason, PROCESS_QUEUE, PROCESS_TASK, taken.id, 1)
        deadletters.add(store.call, DEAD_KEY, said, f"{taken.run} {taken.process}")

    app.settings, app.supervision, app.not_started = settings, supervision, not_started
    app.placement = placement
    app.conf.update(
        worker_prefetch_multiplier=0, worker_disable_prefetch=False
    )  # how much is taken is the placement's to say

    @app.task(name=PROCESS_TASK)  # type: ignore[untyped-decorator]
    def process(run_id: str, process_id: str, again: bool = False) -> None:
        """Take a process that waits in Redis, and be its host until it ends; ``again`` if an earlier message may be lost."""
        raise NotImplementedError("the pool passes this on to the supervisor")

    app.steps["consumer"].add(announcement(settings, load=placement.load))
    environments.take_into(settings.packages)
    send_on_request(app)
    celery_app: Celery = app
    return celery_app


def _is_process(request: Any) -> bool:
    return bool(request.task.name == PROCESS_TASK)


def job_worker_app(settings: Settings) -> Celery:
    """The app of one host's worker for jobs. It runs no process: what a job does must not wait behind one.

    Raises:
        BadSettings: There is no authkey.
    """
    app: Any = make_job_app(settings)
    app.task_cls = "worker.jobs.task:JobTask"  # Celery's own tasks are sealed too: a starmap can call any task
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
    worker_process_init.connect(_end_with_worker, dispatch_uid="end with the worker")
    app.counting = Counting(Store(settings.broker_url), settings.host, JOBS)  # without patience, as the announcement is
    app.steps["consumer"].add(announcement(settings, JOBS, tell=app.counting.tell))
    environments.take_into(settings.packages)
    send_on_request(app)
    job_app: Celery = app
    return job_app


def _end_with_worker(**_: Any) -> None:
    """A worker that is killed tells its pool's processes nothing, and each holds the pipe open that the others read."""
    process: Any = current_process()
    end_with_parent(process._parent_pid)


def announcement(
    settings: Settings,
    kind: str = "",
    load: Callable[[], dict[str, Any]] = dict,
    tell: Callable[[], object] = lambda: None,
) -> type[bootsteps.StartStopStep]:
    """The part of a worker that announces it as a host of a kind, with its load, and tells what it has counted."""
    announcer = Store(settings.broker_url)  # without patience, as it speaks in the worker's own loop

    class Announce(bootsteps.StartStopStep):
        """Tell the fleet, three times a lease, that this host is alive."""

        requires = ("celery.worker.consumer.tasks:Tasks",)
        timer: Any = None

        def start(self, parent: Any) -> None:
            self.stop(parent)
            started, ahead = time.time(), 0.0
            with suppress(BrokerUnreachable):  # Redis went away again: its clock is better, but ours will do
                seconds, micros = announcer.call("TIME")
                started = int(seconds) + int(micros) / 1e6
                ahead = time.time() - started
            self.packages = packages.written(packages.here())
            self.announcement = {
                "pid": parent.pid,
                "slots": parent.pool.num_processes,
                "version": __version__,
                "key": settings.keyring.fingerprints(),
                "started": int(started * 1000),
                "kernel": kernel(),
                "python": platform.python_version(),
                "packages": packages.digest(self.packages),
                "clock": int(ahead * 1000),
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
            self.announcement["key"] = settings.keyring.fingerprints()  # it may have been exchanged
            fields = [str(part) for pair in (self.announcement | load()).items() for part in pair]
            listed = packages.key(self.announcement["packages"])
            with suppress(BrokerUnreachable):  # the next beat tries again
                with suppress(RedisFull):  # what is there already has been renewed
                    *_, there = announcer.pipeline(
                        [
                            ("HSET", key, *fields),
                            ("PEXPIRE", key, lease),
                            ("SADD", hosts_key(kind), settings.host),
                            ("PEXPIRE", hosts_key(kind), lease * 10),
                            ("PEXPIRE", listed, lease * 10),
                        ]
                    )
                    if not there:
                        announcer.call("SET", listed, self.packages, "PX", lease * 10)
                health.announced(settings.lease)
            with suppress(LabError, OSError, redis.RedisError):
                tell()

    return Announce
