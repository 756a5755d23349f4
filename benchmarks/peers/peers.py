"""The libraries: what each needs, and how it is used. Each is imported in its own environment, when it is asked for."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.peers import works
from benchmarks.peers.works import WORKERS

NO_QUEUE = "it has no queue between processes"


class CannotDo(Exception):
    """What a library does not have."""


class Pool:
    """``multiprocessing.Pool`` of a context."""

    def __init__(self, context: Any) -> None:
        self.context = context
        self.pool = context.Pool(WORKERS)

    def map(self, function: Callable[[Any], Any], items: list[Any]) -> list[Any]:
        return list(self.pool.map(function, items))

    def each(self, function: Callable[[Any], Any], items: list[Any]) -> list[Any]:
        return [result.get() for result in [self.pool.apply_async(function, (item,)) for item in items]]

    def queue(self, many: int) -> float:
        queue = self.context.Queue()
        process = self.context.Process(target=works.put, args=(queue, many))
        process.start()
        seconds = works.drained(queue, many)
        process.join()
        return seconds

    def close(self) -> None:
        self.pool.close()
        self.pool.join()


class Executor:
    """An executor of ``concurrent.futures``."""

    def __init__(self, executor: Any) -> None:
        self.executor = executor

    def map(self, function: Callable[[Any], Any], items: list[Any]) -> list[Any]:
        return list(self.executor.map(function, items))

    def each(self, function: Callable[[Any], Any], items: list[Any]) -> list[Any]:
        return [future.result() for future in [self.executor.submit(function, item) for item in items]]

    def queue(self, many: int) -> float:
        raise CannotDo("an executor has no queue")

    def close(self) -> None:
        self.executor.shutdown()


def crosshost_pool() -> Pool:
    import lab

    return Pool(lab.get_context("cluster"))


def crosshost_executor() -> Executor:
    import lab

    return Executor(lab.get_executor("cluster", WORKERS))


def stdlib_pool() -> Pool:
    import multiprocessing

    return Pool(multiprocessing.get_context("fork"))


def stdlib_executor() -> Executor:
    from concurrent.futures import ProcessPoolExecutor

    return Executor(ProcessPoolExecutor(WORKERS))


class Joblib:
    """``joblib.Parallel`` with its own processes (loky)."""

    def __init__(self) -> None:
        self.joblib: Any = importlib.import_module("joblib")

    def _run(self, function: Any, items: list[Any], **options: Any) -> list[Any]:
        parallel = self.joblib.Parallel(n_jobs=WORKERS, **options)
        return list(parallel(self.joblib.delayed(function)(item) for item in items))

    def map(self, function: Callable[[Any], Any], items: list[Any]) -> list[Any]:
        return self._run(function, items)

    def each(self, function: Callable[[Any], Any], items: list[Any]) -> list[Any]:
        return self._run(function, items, batch_size=1, pre_dispatch="all")

    def queue(self, many: int) -> float:
        raise CannotDo(NO_QUEUE)

    def close(self) -> None:
        importlib.import_module("joblib.externals.loky").get_reusable_executor().shutdown()


class Mpire:
    """``mpire.WorkerPool``, which keeps its processes."""

    def __init__(self) -> None:
        self.pool: Any = importlib.import_module("mpire").WorkerPool(n_jobs=WORKERS, keep_alive=True)

    def map(self, function: Callable[[Any], Any], items: list[Any]) -> list[Any]:
        return list(self.pool.map(function, items))

    def each(self, function: Callable[[Any], Any], items: list[Any]) -> list[Any]:
        return list(self.pool.map(function, items, chunk_size=1))

    def queue(self, many: int) -> float:
        raise CannotDo(NO_QUEUE)

    def close(self) -> None:
        self.pool.stop_and_join()


class Ray:
    """Ray: its Pool for many items, its tasks for each, its Queue."""

    def __init__(self) -> None:
        self.ray: Any = importlib.import_module("ray")
        self.ray.init(num_cpus=WORKERS, include_dashboard=False, logging_level="error", log_to_driver=False)
        self.pool = importlib.import_module("ray.util.multiprocessing").Pool(WORKERS)
        self.tasks: dict[Any, Any] = {}

    def map(self, function: Callable[[Any], Any], items: list[Any]) -> list[Any]:
        return list(self.pool.map(function, items))

    def each(self, function: Callable[[Any], Any], items: list[Any]) -> list[Any]:
        if self.pool is not None:  # its actors have the CPUs that tasks need
            self.pool.terminate()
            self.pool = None
        task = self.tasks.setdefault(function, self.ray.remote(function))
        return list(self.ray.get([task.remote(item) for item in items]))

    def queue(self, many: int) -> float:
        queue = importlib.import_module("ray.util.queue").Queue(actor_options={"num_cpus": 0})
        sent = self.ray.remote(works.put).remote(queue, many)
        seconds = works.drained(queue, many)
        self.ray.get(sent)
        return seconds

    def close(self) -> None:
        self.ray.shutdown()


class Dask:
    """``dask.distributed`` with two processes."""

    def __init__(self) -> None:
        self.distributed: Any = importlib.import_module("distributed")
        self.cluster = self.distributed.LocalCluster(
            n_workers=WORKERS, threads_per_worker=1, dashboard_address=None, silence_logs=50
        )
        self.client = self.distributed.Client(self.cluster)

    def map(self, function: Callable[[Any], Any], items: list[Any]) -> list[Any]:
        return list(self.client.gather(self.client.map(function, items, pure=False)))

    def each(self, function: Callable[[Any], Any], items: list[Any]) -> list[Any]:
        return list(self.client.gather([self.client.submit(function, item, pure=False) for item in items]))

    def queue(self, many: int) -> float:
        queue = self.distributed.Queue(client=self.client)
        sent = self.client.submit(works.put, queue, many, pure=False)
        seconds = works.drained(queue, many)
        sent.result()
        return seconds

    def close(self) -> None:
        self.client.close()
        self.cluster.close()


class Served:
    """A library whose workers are a command, with a Redis between; both end with it."""

    command: tuple[str, ...]

    def __init__(self) -> None:
        self.worker = subprocess.Popen(
            [str(Path(sys.executable).with_name(self.command[0])), *self.command[1:]],
            env={**os.environ, "C_FORCE_ROOT": "1"},  # as root, Celery takes no pickles without
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.tasks: Any = importlib.import_module(f"benchmarks.peers.{type(self).__name__.lower()}_tasks")

    def map(self, function: Callable[[Any], Any], items: list[Any]) -> list[Any]:
        return self.each(function, items)

    def each(self, function: Callable[[Any], Any], items: list[Any]) -> list[Any]:
        raise NotImplementedError

    def queue(self, many: int) -> float:
        raise CannotDo("its queues carry calls, and nothing else")

    def close(self) -> None:
        self.worker.terminate()
        try:
            self.worker.wait(20)
        except subprocess.TimeoutExpired:
            self.worker.kill()
            self.worker.wait()


class Celery(Served):
    """Celery, tuned: prefork, no rate limits, results by pickle."""

    command = (
        "celery", "-A", "benchmarks.peers.celery_tasks", "worker", "-c", str(WORKERS), "-P", "prefork", "-l", "ERROR",
        "--without-gossip", "--without-mingle", "--without-heartbeat",
    )  # fmt: skip

    def each(self, function: Callable[[Any], Any], items: list[Any]) -> list[Any]:
        task = getattr(self.tasks, function.__name__)
        return [result.get(timeout=60) for result in [task.delay(item) for item in items]]


class Huey(Served):
    """Huey with two processes that look for work without a pause."""

    command = (
        "huey_consumer", "benchmarks.peers.huey_tasks.huey", "-w", str(WORKERS), "-k", "process", "-d", "0.001", "-m",
        "0.01", "-q",
    )  # fmt: skip

    def each(self, function: Callable[[Any], Any], items: list[Any]) -> list[Any]:
        task = getattr(self.tasks, function.__name__)
        return [result(blocking=True, backoff=1.0, max_delay=0.001) for result in [task(item) for item in items]]


PEERS: dict[str, tuple[list[str], Callable[[], Any]]] = {
    "Crosshost Pool": ([], crosshost_pool),
    "Crosshost executor": ([], crosshost_executor),
    "multiprocessing.Pool": ([], stdlib_pool),
    "ProcessPoolExecutor": ([], stdlib_executor),
    "joblib (loky)": (["joblib==1.6.0"], Joblib),
    "MPIRE": (["mpire==2.10.2"], Mpire),
    "Ray": (["ray==2.60.0"], Ray),
    "Dask": (["distributed==2026.8.0"], Dask),
    "Celery": (["celery[redis]==5.7.0"], Celery),
    "Huey": (["huey==3.5.4", "redis==8.1.0"], Huey),
}
"""What is installed for each, and what makes it."""

REDIS = {"Celery", "Huey"}
"""Who needs a Redis, at ``PEERS_REDIS``."""


def url() -> str:
    """Where the Redis is that was started for this library."""
    return os.environ["PEERS_REDIS"]


def open_peer(name: str) -> Any:
    """A library with its workers, warm."""
    peer = PEERS[name][1]()
    deadline = time.monotonic() + 60
    while True:
        try:
            assert peer.map(works.noop, [1, 2, 3]) == [1, 2, 3]
            return peer
        except Exception:  # a server that does not answer yet
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
