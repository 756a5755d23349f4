"""ClusterExecutor: ``concurrent.futures`` on hosts of a fleet.

An executor is a pool whose calls can be cancelled until they begin. So this one is ``lab.cluster.pool`` and a line of
futures before it: a future waits in this process, where ``cancel`` reaches it, until the fleet has room for it. What is
handed over is *ahead*: enough that no worker idles for a round trip, and little, as it can no longer be cancelled.

``map``, ``wait``, ``as_completed``, callbacks and ``asyncio``'s ``run_in_executor`` are the stdlib's own.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, process
from concurrent.futures._base import LOGGER
from contextlib import suppress
from functools import partial
from multiprocessing import util
from multiprocessing.reduction import ForkingPickler
from typing import Any, TypeVar

from lab.cluster import pool
from lab.cluster.pool import MAX_DEATHS, PoolWorker
from lab.errors import ExitCode, LabError, WorkerLost

T = TypeVar("T")

AHEAD_SECONDS = 0.02
"""A call that is answered sooner makes room for one more ahead, a later one takes it: so what is ahead is worth this."""

MAX_AHEAD = 32
"""Calls ahead, for each worker, at the most: more makes nothing faster."""

SETUP_FAILED = 1

_ExceptionWithTraceback: Any = vars(process)["_ExceptionWithTraceback"]  # private; its cause is what the stdlib's shows


class BrokenClusterPool(LabError, process.BrokenProcessPool):
    """The executor cannot run calls any more: its workers cannot be set up, or it was ended with calls unfinished."""

    exit_code = ExitCode.LOST


class CallLost(WorkerLost, process.BrokenProcessPool):
    """This call was given up, and no other: its workers died, or it or its result cannot be unpickled where it arrived."""


class ClusterExecutor(process.ProcessPoolExecutor):
    """Futures on processes of a fleet.

    On Redis: as ``lab.cluster.pool.Pool``, one call a future.

    Differs from concurrent.futures.ProcessPoolExecutor: the workers are started by the constructor, and each holds a slot
    of the fleet until ``shutdown``. A worker that dies takes no call with it; a call that killed three raises CallLost,
    which is a BrokenProcessPool, and the executor goes on. A future can be cancelled until it is handed over:
    ``max_workers + 1`` calls are, or, if calls are short, what the fleet answers in about 20 ms, at most 32 a worker.

    Args:
        max_workers: Processes; as many as the fleet has slots when None.
        initializer: Called in each worker when it starts. If it raises, the executor is broken.
        initargs: Arguments for the initializer; here, locks, queues and values can be handed over.
        max_tasks_per_child: Calls after which a worker is replaced; None for never.
        context: The cluster's context; ``lab.get_context("cluster")`` when None.

    Raises:
        NotEnoughSlots: The fleet has fewer free slots than the executor has workers.
        BadSettings, BrokerUnreachable, NoWorkers, WrongKey, FleetFailed: There is no fleet to run on.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        *,
        max_tasks_per_child: int | None = None,
        context: Any = None,
    ) -> None:
        _check(max_workers, initializer, max_tasks_per_child)
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Future[Any], _Call]] = deque()
        self._running: set[Future[Any]] = set()
        self._shutting_down = False
        self._broken: Any = None  # a BrokenClusterPool, once it is
        self._all_handed_over = threading.Event()
        with self._lock:  # excluded: a worker that fails, and breaks the executor, before it is complete
            self._pool = _Workers(self, max_workers, initializer, tuple(initargs), max_tasks_per_child, context)
            self._max_workers: int = self._pool.size
            self._ahead = self._max_workers + 1
        util.Finalize(self, _end, (weakref.ref(self), self._pool), exitpriority=20)  # before the pool's own

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Have the fleet call ``fn(*args, **kwargs)``; a future for what becomes of it.

        Raises:
            BrokenClusterPool: The executor is broken.
            RuntimeError: It was shut down, or the interpreter is ending.
        """
        future: Future[T] = Future()
        with self._lock:
            if self._broken:
                raise BrokenClusterPool(*self._broken.args)
            if self._shutting_down:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._waiting.append((future, _Call(fn, args, kwargs)))
            self._hand_over()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls, and give the slots back when those that were taken have ended.

        Args:
            wait: Return when all that is done.
            cancel_futures: Cancel what has not been handed over.
        """
        with self._lock:
            self._shutting_down = True
            dropped = [future for future, _ in self._waiting if cancel_futures]
            if cancel_futures:
                self._waiting.clear()
            self._hand_over()
        for future in dropped:  # without the lock, as it runs the user's callbacks
            future.cancel()
            future.set_running_or_notify_cancel()
        if wait:
            self._all_handed_over.wait()
            self._pool.finish(at_once=bool(self._broken))

    def terminate_workers(self) -> None:
        """Shut down without waiting: cancel what waits, and end the workers; what they ran raises BrokenClusterPool."""
        self.shutdown(wait=False, cancel_futures=True)
        self._break("The executor's workers were terminated.")

    def kill_workers(self) -> None:
        """As ``terminate_workers``, by SIGKILL."""
        workers = self._pool.workers()
        self.terminate_workers()
        for worker in workers:
            worker.kill()

    def _hand_over(self) -> None:
        """Give the pool as many calls as may be ahead; with the lock held."""
        while self._waiting and len(self._running) < self._ahead:
            future, call = self._waiting.popleft()
            if future.set_running_or_notify_cancel():
                self._running.add(future)
                settled = partial(self._settled, future, time.perf_counter())
                self._pool.apply_async(
                    _perform, (call,), callback=partial(settled, _answer), error_callback=partial(settled, _fail)
                )
        if self._shutting_down and not self._waiting:
            self._pool.close()
            self._all_handed_over.set()

    def _settled(
        self, future: Future[Any], begun: float, settle: Callable[[Future[Any], Any], None], value: Any
    ) -> None:
        """One call is done; the next may go."""
        with self._lock:
            if future not in self._running:
                return  # the executor broke while its answer was on the way
            self._running.remove(future)
            step = 1 if time.perf_counter() - begun < AHEAD_SECONDS else -1
            self._ahead = min(max(self._ahead + step, self._max_workers + 1), MAX_AHEAD * self._max_workers)
            self._hand_over()
        settle(future, value)

    def _break(self, message: str, hint: str = "") -> None:
        """End every future with an error, and the workers."""
        with self._lock:
            if self._broken:
                return
            self._broken = exc = BrokenClusterPool(message, hint)
            self._shutting_down = True
            ended = [future for future, _ in self._waiting if future.set_running_or_notify_cancel()]
            ended += self._running
            self._waiting.clear()
            self._running.clear()
            self._hand_over()
        for future in ended:
            future.set_exception(exc)
        # A thread, as the pool cannot be ended from the thread of its own that found it broken. When the interpreter ends
        # no thread can be started any more; then shutdown(), which waits at exit, does it.
        with suppress(RuntimeError):
            threading.Thread(target=self._pool.terminate, name="crosshost-executor-end", daemon=True).start()


class _Workers(pool.Pool):
    """The executor's pool; it tells the executor when workers cannot be set up."""

    def __init__(
        self,
        executor: ClusterExecutor,
        max_workers: int | None,
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
        max_tasks: int | None,
        context: Any,
    ) -> None:
        if context is None:
            from lab.cluster.context import default_context

            context = default_context()
        self._executor = weakref.ref(executor)
        self._in_vain = 0
        prepare = partial(_prepare, initializer) if initializer else None
        super().__init__(max_workers, prepare, initargs, max_tasks, context)

    @property
    def size(self) -> int:
        """Number of workers."""
        return self._workers

    def workers(self) -> list[PoolWorker]:
        """The workers there are now."""
        return list(vars(self)["_pool"])

    def terminate(self) -> None:
        """End the workers; calls that are not done fail, where the stdlib's pool would leave their callers waiting."""
        if executor := self._executor():
            executor._break("The executor was ended before its calls were done.")
        super().terminate()

    def finish(self, at_once: bool) -> None:
        """Wait for the end of the workers, which is at hand, and leave nothing behind in Redis."""
        if not at_once:
            self.join()
        super().terminate()
        self.join()

    def _recover(self, worker: PoolWorker) -> bool:
        if worker.load_error is not None and (executor := self._executor()):
            executor._break(worker.load_error.message, worker.load_error.hint)
        ready = super()._recover(worker)
        # Excluded: workers that die in their initializer, each replaced by one that dies in its initializer, for ever.
        self._in_vain = 0 if ready or not worker.exitcode else self._in_vain + 1
        failed = worker.exitcode == SETUP_FAILED and not ready
        if (failed or self._in_vain > MAX_DEATHS * self.size) and (executor := self._executor()):
            executor._break(
                f"A worker on host {worker.host} ended with exit code {worker.exitcode} before it was ready for calls.",
                "Its initializer raised, or died, or could not be loaded there: see what it printed on standard error.",
            )
        return ready


class _Call:
    """A call that pickles into bytes, so that the worker unpickles it where an error can be told from the pool's own."""

    def __init__(self, *call: Any) -> None:
        self._call = call

    def __reduce__(self) -> tuple[Any, ...]:
        return bytes, (_dumps(self._call),)


def _dumps(obj: Any) -> bytes:
    return bytes(ForkingPickler.dumps(obj))


def _prepare(initializer: Callable[..., object], *initargs: Any) -> None:
    """In a new worker: run the initializer; if it fails, log that as the stdlib does, and end."""
    try:
        initializer(*initargs)
    except BaseException:  # noqa: BLE001 - whatever it is, the executor has to know
        LOGGER.critical("Exception in initializer:", exc_info=True)
        sys.exit(SETUP_FAILED)


def _perform(pickled: bytes) -> bytes:
    """In a worker: run a call; its pickled outcome, (success, value). Nothing that a call raises ends the worker."""
    try:
        return _dumps((True, _run(pickled)))
    except BaseException as exc:  # noqa: BLE001 - SystemExit too is the caller's, as in the stdlib
        try:
            return _dumps((False, _ExceptionWithTraceback(exc, exc.__traceback__)))
        except BaseException as unpicklable:  # noqa: BLE001
            return _dumps((False, _ExceptionWithTraceback(unpicklable, unpicklable.__traceback__)))


def _run(pickled: bytes) -> Any:
    try:
        fn, args, kwargs = ForkingPickler.loads(pickled)
    except BaseException as exc:
        host = os.environ.get("CROSSHOST_HOST", "unknown")
        raise CallLost(
            f"A call could not be loaded on host {host}: {exc!r}.", "Is the same code installed there?"
        ) from exc
    return fn(*args, **kwargs)


def _answer(future: Future[Any], pickled: bytes) -> None:
    try:
        success, value = ForkingPickler.loads(pickled)
    except BaseException as exc:  # noqa: BLE001 - it belongs to the caller, not to the thread that reads the answers
        success, value = False, CallLost(f"The result of a call could not be loaded: {exc!r}.")
        value.__cause__ = exc
    if success:
        future.set_result(value)
    else:
        future.set_exception(value)


def _fail(future: Future[Any], exc: BaseException) -> None:
    future.set_exception(CallLost(exc.message, exc.hint) if isinstance(exc, WorkerLost) else exc)


def _end(executor: weakref.ref[ClusterExecutor], workers: _Workers) -> None:
    """What happens to an executor that nobody shut down."""
    if alive := executor():
        alive.shutdown()  # the interpreter ends: first what was submitted, as in the stdlib
    else:
        workers.close()  # it was garbage, so nothing was under way: every call in the pool refers to it


def _check(max_workers: int | None, initializer: Any, max_tasks: Any) -> None:
    """Refuse what the stdlib refuses."""
    if max_workers is not None and max_workers <= 0:
        raise ValueError("max_workers must be greater than 0")
    if initializer is not None and not callable(initializer):
        raise TypeError("initializer must be a callable")
    if max_tasks is not None and not isinstance(max_tasks, int):
        raise TypeError("max_tasks_per_child must be an integer")
    if max_tasks is not None and max_tasks <= 0:
        raise ValueError("max_tasks_per_child must be >= 1")
