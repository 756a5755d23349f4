"""ClusterExecutor: ``concurrent.futures`` on hosts of a fleet.

An executor is a pool whose calls can be cancelled until they begin. So this one is ``lab.cluster.pool`` and a line of
futures before it: a future waits in this process, where ``cancel`` reaches it, until the fleet has room for it. What is
handed over is *ahead*: enough that no worker idles for a round trip, and little, as it can no longer be cancelled.

``map``, ``wait``, ``as_completed``, callbacks and ``asyncio``'s ``run_in_executor`` are the stdlib's own.
"""

from __future__ import annotations

import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, process
from concurrent.futures._base import CANCELLED, LOGGER
from contextlib import suppress
from functools import partial
from itertools import islice
from multiprocessing import util
from typing import Any, TypeVar

from lab import spans
from lab.cluster import current, pool
from lab.cluster.call import Call, error, outcome, perform
from lab.cluster.call import CallLost as CallLost
from lab.cluster.mapped import Chunk, Mapped, Sent
from lab.cluster.pool import PoolWorker, buffered
from lab.errors import CallEnded, ExitCode, LabError
from lab.limit import is_limited

T = TypeVar("T")

AHEAD_SECONDS = 0.02
"""A call that is answered sooner makes room for one more ahead, a later one takes it: so what is ahead is worth this."""

MAX_AHEAD = 32
"""Calls ahead, for each worker, at the most: more makes nothing faster."""

SETUP_FAILED = 1


class BrokenClusterPool(LabError, process.BrokenProcessPool):
    """The executor cannot run calls any more: its workers cannot be set up, or it was ended with calls unfinished."""

    exit_code = ExitCode.LOST


class ClusterExecutor(process.ProcessPoolExecutor):
    """Futures on processes of a fleet.

    On Redis: as ``lab.cluster.pool.Pool``, one call a future; short calls of a map make one together (``mapped``).

    Differs from concurrent.futures.ProcessPoolExecutor: the workers are all started by the first ``submit``, and stay
    until ``shutdown``. A worker that dies takes no call with it; a call that killed three raises CallLost,
    which is a BrokenProcessPool, and the executor goes on. ``cancel()`` of a call that runs ends it and returns True
    (``ClusterFuture``). ``running()`` is True from when a call is handed over: ``max_workers + 1`` calls are, or, if calls
    are short, what the fleet answers in about 20 ms, at most 32 a worker.

    Args:
        max_workers: Processes; as many as the fleet has slots when None.
        mp_context: A context of the cluster, of which there is one; it is taken when None.
        initializer: Called in each worker when it starts. If it raises, the executor is broken.
        initargs: Arguments for the initializer; here, locks, queues and values can be handed over.
        max_tasks_per_child: Calls after which a worker is replaced; None for never.

    Raises:
        ValueError: ``mp_context`` is of another place.
        BadSettings, BrokerUnreachable, NoWorkers, WrongKey, FleetFailed: There is no fleet to run on.
    """

    runs_main = True
    """Whether the workers run the main module first; without it, what is called must not be looked for in there."""

    maps_together = True
    """Whether short calls of a map may travel together; without it, each goes through ``_submit``."""

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: Any = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        *,
        max_tasks_per_child: int | None = None,
    ) -> None:
        _check(max_workers, initializer, max_tasks_per_child)
        if mp_context is not None and getattr(mp_context, "place", "") != "cluster":
            raise ValueError(f"mp_context must be a context of the cluster, not {mp_context!r}; leave it out")
        ctx = current.context()
        ctx.connect()
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Future[Any], Call] | Mapped] = deque()
        self._running: dict[Future[Any] | Chunk, Any] = {}  # with the pool's result of each
        self._shutting_down = False
        self._broken: Any = None  # a BrokenClusterPool, once it is
        self._all_handed_over = threading.Event()
        self._max_workers: int = ctx.cpu_count() if max_workers is None else max_workers
        self._ahead = self._max_workers + 1
        self._pool: _Workers | None = None
        self._made: list[_Workers] = []  # what is left of it when nobody holds it
        util.Finalize(self, _end, (weakref.ref(self), self._made), exitpriority=20)  # before the pool's own
        me, given = weakref.ref(self), (initializer, tuple(initargs), max_tasks_per_child, ctx)
        self._make_pool = partial(_Workers, me, self.runs_main, self._max_workers, *given)
        self._maps_together = self.maps_together and max_tasks_per_child is None  # a call counts as one

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Have the fleet call ``fn(*args, **kwargs)``; a future for what becomes of it.

        Raises:
            BrokenClusterPool: The executor is broken.
            RuntimeError: It was shut down, or the interpreter is ending.
            NotEnoughSlots: It is the first, and the fleet has no room for so many workers.
        """
        fn, span = spans.begin(fn, "Executor.submit")
        try:
            future = self._submit(ClusterFuture(self), fn, args, kwargs)
        except BaseException as exc:
            spans.end(span, exc)
            raise
        if span is not None:
            future.add_done_callback(partial(spans.settled, span))
        return future

    def _submit(
        self, future: Future[Any], fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Future[Any]:
        call = Call(fn, args, kwargs)
        with self._lock:
            self._open()
            self._waiting.append((future, call))
            self._hand_over()
        return future

    def _open(self) -> None:
        """Be ready for one more call; with the lock held."""
        if self._broken:
            raise BrokenClusterPool(*self._broken.args)
        if self._shutting_down:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if self._pool is None:
            # Not before: a module that makes an executor when it is imported does so in its workers too. And with the
            # lock held; excluded: a worker that fails, and breaks the executor, before it is complete.
            self._pool = self._make_pool()
            self._made.append(self._pool)

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """As in concurrent.futures; ``buffersize`` too, which is there since Python 3.14.

        Args:
            fn: What is called.
            iterables: Its arguments, one from each.
            timeout: Seconds from now in which all results must have come.
            chunksize: Arguments that a worker gets at a time, as one call. With 1, each is a call of its own, however many
                travel together.
            buffersize: Chunks that are submitted beyond those whose results were taken: the iterables are read as results
                are taken. None: they are read at once.
        """
        buffered.check(buffersize)
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        deadline = None if timeout is None else timeout + time.monotonic()
        together = self._maps_together and chunksize == 1 and buffersize is None and not is_limited(fn)
        arguments, chunksize = zip(*iterables, strict=False), pool.alone(fn, chunksize)
        fn, span = spans.begin(fn, "Executor.map")
        spans.end(span)
        if together:
            return self._map_together(fn, arguments, deadline)
        chunks = iter(lambda: tuple(islice(arguments, chunksize)), ())
        futures = deque(self._submit_chunk(fn, chunk) for chunk in islice(chunks, buffersize))
        # It is begun here and not at the first result, and refers to the executor weakly, as the stdlib's.
        return _results(weakref.ref(self), fn, chunks, futures, deadline)

    def _map_together(self, fn: Callable[..., T], arguments: Iterable[Any], deadline: float | None) -> Iterator[T]:
        mapped = Mapped(fn, self._max_workers)
        for args in arguments:
            with self._lock:
                self._open()
                mapped.add(args)
                if not self._waiting or self._waiting[-1] is not mapped:
                    self._waiting.append(mapped)
                self._hand_over()
        return mapped.results(deadline)

    def _submit_chunk(self, fn: Callable[..., T], chunk: Iterable[tuple[Any, ...]]) -> Future[list[T]]:
        # a future of the stdlib's: who stops taking results of a map does not end what runs
        return self._submit(Future(), _each, (fn, chunk), {})

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls, and end the workers when those that were taken have ended.

        Args:
            wait: Return when all that is done.
            cancel_futures: Cancel what has not been handed over.
        """
        if cancel_futures:
            self._cancel_waiting()
        with self._lock:
            self._shutting_down = True
            self._hand_over()
        if wait and self._pool is not None:
            self._all_handed_over.wait()
            self._pool.finish(at_once=bool(self._broken))

    def _cancel_waiting(self) -> None:
        """Cancel what has not been handed over."""
        with self._lock:
            dropped = [future for future, _ in self._take_waiting(CancelledError())]
        for future in dropped:  # without the lock, as it runs the user's callbacks
            future.cancel()
            future.set_running_or_notify_cancel()

    def _take_waiting(self, exc: BaseException) -> list[tuple[Future[Any], Call]]:
        """Empty the line; what waits of maps ends with an error. With the lock held."""
        waiting = list(self._waiting)
        self._waiting.clear()
        for entry in waiting:
            if isinstance(entry, Mapped):
                entry.end(exc)
        return [entry for entry in waiting if not isinstance(entry, Mapped)]

    @property
    def closed(self) -> bool:
        """Whether it takes no more calls."""
        return self._shutting_down

    def terminate_workers(self) -> None:
        """Shut down without waiting: cancel what waits, and end the workers; what they ran raises BrokenClusterPool."""
        self.shutdown(wait=False, cancel_futures=True)
        self._break("The executor's workers were terminated.")

    def kill_workers(self) -> None:
        """As ``terminate_workers``, by SIGKILL."""
        workers = [] if self._pool is None else self._pool.workers()
        self.terminate_workers()
        for worker in workers:
            worker.kill()

    def _hand_over(self) -> None:
        """Give the pool as many calls as may be ahead; with the lock held."""
        if self._pool is None:
            return
        while self._waiting and len(self._running) < self._ahead:
            if isinstance(entry := self._waiting[0], Mapped):
                chunk = entry.next_chunk()
                if not entry:
                    self._waiting.popleft()
                if chunk is not None:
                    settled = partial(self._settled, chunk, time.perf_counter())
                    callbacks = partial(settled, Chunk.answer), partial(settled, _fail), partial(self._divided, chunk)
                    self._running[chunk] = self._pool.send(chunk, *callbacks)
                continue
            future, call = entry
            self._waiting.popleft()
            if future.set_running_or_notify_cancel():
                settled = partial(self._settled, future, time.perf_counter())
                self._running[future] = self._pool.apply_async(
                    perform, (call,), callback=partial(settled, _answer), error_callback=partial(settled, _fail)
                )
        # Excluded, by the last: calls of a chunk that come back, and find the pool closed.
        if self._shutting_down and not self._waiting and not any(map(_is_many, self._running)):
            self._pool.close()
            self._all_handed_over.set()

    def _divided(self, chunk: Chunk, so_far: tuple[float, list[Any]]) -> None:
        """A call of a chunk takes its time: what is behind it goes again."""
        with self._lock:
            if chunk not in self._running or not chunk.many:
                return
            done = chunk.divide(so_far)
            self._waiting.appendleft(chunk.mapped)
            self._hand_over()
        done.answer(so_far)

    def _settled(self, future: Any, begun: float, settle: Callable[[Any, Any], None], value: Any) -> None:
        """One call is done; the next may go."""
        with self._lock:
            if future not in self._running:
                return  # it was cancelled, or the executor broke, while its answer was on the way
            del self._running[future]
            step = 1 if time.perf_counter() - begun < AHEAD_SECONDS else -1
            self._ahead = min(max(self._ahead + step, self._max_workers + 1), MAX_AHEAD * self._max_workers)
            if isinstance(future, Chunk) and future.learn(value):
                self._waiting.appendleft(future.mapped)
            self._hand_over()
        settle(future, value)

    def _end_call(self, future: Future[Any]) -> bool:
        """End a call that was handed over; False if it has ended by itself."""
        with self._lock:  # who takes it off those that run settles it
            result = self._running.pop(future, None)
        if result is None or self._pool is None:
            return False
        self._pool.end_call(result)
        with self._lock:
            self._hand_over()
        return True

    def _break(self, message: str, hint: str = "") -> None:
        """End every future with an error, and the workers."""
        with self._lock:
            if self._broken:
                return
            self._broken = exc = BrokenClusterPool(message, hint)
            self._shutting_down = True
            waiting = self._take_waiting(exc)
            ended = [*(future for future, _ in waiting if future.set_running_or_notify_cancel()), *self._running]
            self._running.clear()
            self._hand_over()
        for future in ended:
            future.set_exception(exc)
        # A thread, as the pool cannot be ended from the thread of its own that found it broken. When the interpreter ends
        # no thread can be started any more; then shutdown(), which waits at exit, does it.
        if self._pool is not None:
            with suppress(RuntimeError):
                threading.Thread(target=self._pool.terminate, name="crosshost-executor-end", daemon=True).start()


class ClusterFuture(Future[T]):
    """A future whose call can be ended while it runs.

    Differs from concurrent.futures: ``cancel`` of a call that runs ends its process, which is replaced, and returns True; the
    future is then cancelled. That takes a moment, much less than a second as a rule, in which the call may still come to its
    end. It takes longer while C code keeps the GIL in a call that came to its worker together with others, as quick calls do:
    it is not known then which of them runs. In the standard library ``cancel`` returns False, and the call goes on. So
    ``asyncio.wait_for`` of a call in an executor, which cancels it when the time is up, ends it.

    Args:
        executor: Whose it is.
    """

    _state: str

    def __init__(self, executor: ClusterExecutor) -> None:
        super().__init__()
        self._executor = weakref.ref(executor)

    def cancel(self) -> bool:
        """Cancel the call, whether it waits or runs; False if it has ended."""
        if super().cancel():
            return True
        executor = self._executor()
        if executor is None or not executor._end_call(self):
            return self.cancelled()  # by another thread, perhaps
        with self._condition:
            self._state = CANCELLED
            self._condition.notify_all()
        mine: Any = self
        mine._invoke_callbacks()
        self.set_running_or_notify_cancel()  # tells those that wait for several
        return True


def _each(fn: Callable[..., T], chunk: Iterable[tuple[Any, ...]]) -> list[T]:
    """In a worker: the results of some calls."""
    return [fn(*args) for args in chunk]


def _results(
    executor: weakref.ref[ClusterExecutor],
    fn: Callable[..., T],
    chunks: Iterator[Any],
    futures: deque[Future[list[T]]],
    deadline: float | None,
) -> Iterator[T]:
    """The results in order; one more chunk is submitted before each that is waited for."""
    try:
        while futures:
            if (alive := executor()) and (chunk := next(chunks, None)):
                futures.append(alive._submit_chunk(fn, chunk))
            del alive
            future = futures.popleft()
            try:
                results = future.result(None if deadline is None else deadline - time.monotonic())
            finally:
                future.cancel()
                del future  # or it and an error of its would keep each other
            results.reverse()
            while results:
                yield results.pop()  # and keep no result that was taken
    finally:
        for future in futures:
            future.cancel()


ProcessPoolExecutor = ClusterExecutor
"""By the stdlib's name, as a script finds it in ``concurrent.futures``."""


class _Workers(pool.Pool):
    """The executor's pool; it tells the executor when workers cannot be set up."""

    daemons = False  # as the stdlib's since 3.9: they may have children
    spanned = False  # its calls are the executor's, which have one

    def __init__(
        self,
        executor: weakref.ref[ClusterExecutor],
        runs_main: bool,
        max_workers: int,
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
        max_tasks: int | None,
        context: Any,
    ) -> None:
        self._executor = executor
        self.runs_main = runs_main
        prepare = partial(_prepare, initializer) if initializer else None
        super().__init__(max_workers, prepare, initargs, max_tasks, context)

    def send(self, chunk: Chunk, *callbacks: Callable[[Any], object]) -> Sent:
        """Send a chunk of a map, as ``apply_async`` a call."""
        self._check_running()  # type: ignore[attr-defined]
        return Sent(self, chunk, *map(pool.reporting, callbacks))

    def workers(self) -> list[PoolWorker]:
        """The workers there are now."""
        return list(vars(self)["_pool"])

    def terminate(self) -> None:
        """End the workers; calls that are not done fail, where the stdlib's pool would leave their callers waiting."""
        if executor := self._executor():
            executor._break("The executor was ended before its calls were done.")
        super().terminate()

    def end_calls(self, exc: CallEnded) -> list[PoolWorker]:
        """As in a pool; and cancel the futures that are still here."""
        if executor := self._executor():
            executor._cancel_waiting()
        return super().end_calls(exc)

    def interrupted(self) -> None:
        """The user has interrupted the program: nobody waits any more for what the workers run."""
        if executor := self._executor():
            executor._break("The program was interrupted.")

    def finish(self, at_once: bool) -> None:
        """Wait for the end of the workers, which is at hand, and leave nothing behind in Redis."""
        if not at_once:
            self.join()
        super().terminate()
        self.join()

    def _recover(self, worker: PoolWorker) -> bool:
        ready = super()._recover(worker)
        if worker.exitcode == SETUP_FAILED and worker.process_id and not ready:
            self._give_up(pool.failed_to_begin(worker))
        return ready

    def _give_up(self, exc: LabError) -> None:
        if executor := self._executor():
            executor._break(exc.message, exc.hint)
        super()._give_up(exc)


def _prepare(initializer: Callable[..., object], *initargs: Any) -> None:
    """In a new worker: run the initializer; if it fails, log that as the stdlib does, and end."""
    try:
        initializer(*initargs)
    except BaseException:  # noqa: BLE001 - whatever it is, the executor has to know
        LOGGER.critical("Exception in initializer:", exc_info=True)
        sys.exit(SETUP_FAILED)


def _is_many(future: Future[Any] | Chunk) -> bool:
    return isinstance(future, Chunk) and future.many


def _answer(future: Future[Any], packed: tuple[Any, ...]) -> None:
    success, value = outcome(packed)
    if success:
        future.set_result(value)
    else:
        future.set_exception(value)


def _fail(future: Future[Any] | Chunk, exc: BaseException) -> None:
    future.set_exception(error(exc))


def _end(executor: weakref.ref[ClusterExecutor], made: list[_Workers]) -> None:
    """What happens to an executor that nobody shut down."""
    if alive := executor():
        alive.shutdown()  # the interpreter ends: first what was submitted, as in the stdlib
    for workers in made if alive is None else ():
        workers.close_and_stay()  # it was garbage, so nothing was under way: every call in the pool refers to it


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
