"""Pool: the stdlib's own, on processes of the fleet; only its two queues are ours.

``multiprocessing.pool.Pool`` is N processes, a queue of tasks, a queue of results, and three threads that keep them going.
Everything a user sees of it (map, imap, callbacks, chunks, tracebacks, close, terminate, join) is that code. The queues
are where a pool across hosts gains or loses, so they do five things that a pipe does not need, or does by itself:

* **Batches.** A worker takes as many tasks as make about 2 ms of work, by the measured time of a task, and never more than
  its share of what waits. It answers them and takes the next in one round trip.
* **No hoarding.** When a task takes longer than expected, a thread of the worker sends the answers it has and gives back
  the tasks it has not begun, so that idle workers can have them.
* **No loss.** Taking moves a task to a list of its worker's own. When the worker dies, the pool puts back what that list
  holds. Every task has a number: it is handed out once unless it was put back, and its result counts once. A task whose
  worker died three times under it ends as WorkerLost, the others' results are kept.
* **Many in one.** A task can be many calls (``lab.cluster.mapped``). When one of them takes longer, the worker answers what
  is done of it, and gives back what is not begun. When the worker dies, whoever has put it tries each call by itself.
* **No heap.** What was sent and is not answered has a bound in bytes; beyond it the pool waits, as it would for a pipe, and
  so does the input of an ``imap``. So have answers that the pool has not read; beyond it the workers wait.

On Redis, for a pool ``pool:ID``: list ``:calls``, list ``:results``, list ``:taken:WORKER``, bitmap ``:seen``, list
``:parked`` (taken for replays), hash ``:deaths``; of limited calls (``lab.limit``), hash ``:tries`` (attempts by call), hash
``:late:WORKER`` (what the call is answered with if its time is up).
"""

from __future__ import annotations

import inspect
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from functools import partial
from multiprocessing import pool, util
from multiprocessing.process import BaseProcess
from typing import Any

from lab import spans
from lab.cluster import current
from lab.cluster.pool import buffered
from lab.cluster.pool.ending import Ending
from lab.cluster.pool.pending import MAX_DEATHS, Answers, Calls
from lab.cluster.pool.room import LAZY_BYTES, MOST_BYTES
from lab.cluster.pool.taken import work
from lab.cluster.process import Process
from lab.errors import BrokerUnreachable, CallEnded, CannotLoad, KeyLost, LabError, LeaseLost, WorkerLost
from lab.limit import is_limited
from lab.store.run import Run

TRY_AGAIN = 5.0
"""Seconds after which a pool looks again for room for a worker that found none."""


class Pool(pool.Pool):
    """A pool of processes on the fleet's hosts.

    On Redis: see above; PUSH from the pool, one BLMOVE with EXCHANGE before and after it from a worker, BLMOVE for the
    results.

    Differs from multiprocessing: a worker that dies takes no call with it (see above); in multiprocessing the caller then
    waits for ever. So does the caller there if a call exits, an exception does not unpickle, or a callback raises; here
    there is a SystemExit, or a ForeignError with the exception's words and traceback, and what a callback raises goes to
    ``threading.excepthook``. Workers whose initializer fails are not replaced for ever.

    Raises:
        NotEnoughSlots: The fleet has no room for so many processes.
    """

    runs_main = True
    """Whether its processes run the main module first, where they find what is called by its name."""

    daemons = True
    """Whether its processes are daemons, which have no children; those of a context that says otherwise are not."""

    spanned = True
    """Whether a call has a span of its own (``lab.spans``)."""

    _told = False
    _in_a_row = 0
    _failed_at = 0.0
    _in_vain = 0

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Any = (),
        maxtasksperchild: int | None = None,
        context: Any = None,
    ) -> None:
        if context is None:
            context = current.context()
        self._run: Run = context.connect()
        self._workers = context.cpu_count() if processes is None else processes
        self._useless: LabError | None = None  # why no worker can be set up
        self._recovering = threading.Lock()
        super().__init__(self._workers, initializer, initargs, maxtasksperchild, context=_Workshop(self, context))
        context.pools.add(self)  # closing the context ends a pool that was left running

    def _setup_queues(self) -> None:
        self._calls = Calls(self._run, self._run.new_name("pool"), max(1, self._workers))
        ids = _weakly(self._ids, [])
        self._answers = Answers(self._calls, _weakly(self._settle), ids)
        self._ending = Ending(self._calls, ids)
        self._inqueue, self._outqueue = self._calls, self._answers
        self._quick_put, self._quick_get = _weakly(self._put), self._answers.get

    def _get_sentinels(self) -> list[Any]:
        return [self._change_notifier._reader]  # type: ignore[attr-defined]

    def imap(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None = 1,
        buffersize: int | None = None,
    ) -> Any:
        """As in multiprocessing; the input is read about as far ahead as there.

        Args:
            func: What is called.
            iterable: Its arguments.
            chunksize: Arguments that a worker gets at a time.
            buffersize: Chunks that are read beyond those whose results were taken, as in ``Executor.map`` of Python 3.14;
                then the input is read by whoever takes the results. None: as far as the workers keep up.
        """
        buffered.check(buffersize)
        chunksize, func = alone(func, chunksize), self._sent_with_span(func, "Pool.imap")
        if buffersize is None:
            return super().imap(func, iterable, chunksize)
        return self._imap(buffered.Buffered, func, iterable, chunksize, buffersize)

    def imap_unordered(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None = 1,
        buffersize: int | None = None,
    ) -> Any:
        """As ``imap``, results as they come."""
        buffered.check(buffersize)
        chunksize, func = alone(func, chunksize), self._sent_with_span(func, "Pool.imap_unordered")
        if buffersize is None:
            return super().imap_unordered(func, iterable, chunksize)
        return self._imap(buffered.BufferedUnordered, func, iterable, chunksize, buffersize)

    def _imap(self, kind: type[buffered.Buffered], func: Any, iterable: Any, chunksize: Any, buffersize: int) -> Any:
        self._check_running()  # type: ignore[attr-defined]
        if chunksize < 1:
            raise ValueError(f"Chunksize must be 1+, not {chunksize!r}")
        if chunksize > 1:
            func, iterable = _mapstar, self._get_tasks(func, iterable, chunksize)  # type: ignore[attr-defined]
        # Only an Exception is the input's own: it is read in the thread of whoever takes the results, where Ctrl-C is too.
        source = kind(self, lambda job: _tasks(job, func, iterable, self._calls.check, Exception), buffersize)
        results = buffered.Results(source)
        return results if chunksize == 1 else (item for chunk in results for item in chunk)

    def apply_async(
        self,
        func: Any,
        args: Any = (),
        kwds: Any = {},  # noqa: B006 - the stdlib's signature
        callback: Any = None,
        error_callback: Any = None,
    ) -> Any:
        """As in multiprocessing; what a callback raises is reported by ``threading.excepthook``, and costs nothing else."""
        func, span = spans.begin(func, "Pool.apply") if self.spanned else (func, None)
        callbacks = spans.ending(span, reporting(callback), reporting(error_callback))
        try:
            return super().apply_async(func, args, kwds, *callbacks)
        except BaseException as exc:
            spans.end(span, exc)
            raise

    def _map_async(
        self,
        func: Any,
        iterable: Any,
        mapper: Any,
        chunksize: int | None = None,
        callback: Any = None,
        error_callback: Any = None,
    ) -> Any:
        base: Any = super()
        if chunksize is None:
            iterable = iterable if hasattr(iterable, "__len__") else list(iterable)
            # The stdlib's, but for the workers that are wanted. Excluded: no workers to divide by, as all have just ended.
            chunksize = -(-len(iterable) // (4 * max(1, self._workers)))
        chunksize = alone(func, chunksize)
        func, span = spans.begin(func, "Pool.map")
        callbacks = spans.ending(span, reporting(callback), reporting(error_callback))
        try:
            return base._map_async(func, iterable, mapper, chunksize, *callbacks)
        except BaseException as exc:
            spans.end(span, exc)
            raise

    def _sent_with_span(self, func: Any, asked: str) -> Any:
        """A function with a span of who asks for it, which ends at once: nobody can tell when its last result is taken."""
        func, span = spans.begin(func, asked)
        spans.end(span)
        return func

    def end_call(self, result: Any) -> None:
        """End a call, wherever it is, and have its result be a CancelledError; a process that runs it is replaced.

        Args:
            result: What ``apply_async`` has returned for it.
        """
        self._settle(result._job, 0, (False, CancelledError()))
        self._end_sent(result._job)

    def _end_sent(self, job: int) -> None:
        for n in self._calls.numbers(job):
            self._calls.end(n)
            self._ending.end(n)

    def join(self) -> None:
        """Wait for the end of the workers, when the pool was closed or terminated."""
        if self._state != pool.RUN:  # type: ignore[attr-defined]
            for result in list(self._cache.values()):  # type: ignore[attr-defined]
                if isinstance(result, buffered.Buffered):  # who waits here takes no results
                    result.read_on(partial(self._calls.room.wait, LAZY_BYTES))
        super().join()

    def _guarded_task_generation(self, job: int, func: Any, iterable: Any) -> Iterator[Any]:
        chunks = getattr(self._cache.get(job), "_number_left", 0)  # type: ignore[attr-defined]  # of a map
        most = MOST_BYTES if chunks else LAZY_BYTES

        def before_reading() -> None:
            self._calls.room.wait(most)
            self._calls.check()
            if job <= self._calls.ended[0]:
                raise self._calls.ended[1]

        return _tasks(job, func, iterable, before_reading, BaseException, chunks)

    def _put(self, task: Any) -> None:
        """Send a task. Excluded: an error that ends the stdlib's thread which calls this, and every call after it."""
        try:
            if task is not None and task[2] is _fail:
                raise task[3][0]
            self._calls.put(task)
            if task is not None and task[0] not in self._cache:  # type: ignore[attr-defined]
                self._end_sent(task[0])  # it was ended before it was sent
        except BaseException as exc:
            if task is None:
                raise
            self._settle(task[0], task[1], (False, exc))

    def close_and_stay(self) -> None:
        """Close, and be there until the workers have ended by themselves, though nobody has the pool any more."""
        handler: Any = self._worker_handler  # type: ignore[attr-defined]
        handler.pool = self  # a thread that runs is not collected, nor what it refers to
        self.close()

    def interrupted(self) -> None:
        """The user has interrupted the program; the workers end with it."""

    def end_calls(self, exc: CallEnded) -> list[PoolWorker]:
        """End all calls that were asked for until now, with an error, those that run too; the pool goes on.

        What was sent is forgotten; then their callers are told, so that nobody waits for a worker to end; then the workers
        that had taken some are terminated, and replaced.

        Returns:
            Those workers: one that SIGTERM does not end has to be killed.
        """
        last = max(list(self._cache), default=-1)  # type: ignore[attr-defined]
        calls, busy = self._calls.withdraw(last, exc, self._ids())
        for job, index in calls:
            self._settle(job, index, (False, exc))
        ended = [worker for worker in self._pool if worker.process_id in busy]  # type: ignore[attr-defined]
        for worker in ended:
            worker.terminate()
        return ended

    def _new_worker(self, kind: type[PoolWorker], *args: Any, **kwds: Any) -> PoolWorker:
        worker = kind(*args, **{**kwds, "target": work})
        worker.on_end = _weakly(self._recover_once)
        worker.unusable, worker.runs_main = self._useless, self.runs_main
        if self._state != pool.INIT:  # type: ignore[attr-defined]  # closing too: its last calls may lose a worker
            worker.on_failure = _weakly(self._not_replaced)
        return worker

    def _not_replaced(self, exc: LabError) -> None:
        """A worker that ended has no successor: go on with the others, or fail if there is none."""
        if not self._told and not self._is_over():
            print(f"crosshost: a worker of the pool could not be replaced: {exc}", file=sys.stderr)
            self._told = True  # it is tried again, and again
        before, self._failed_at = self._failed_at, time.monotonic()
        together = self._failed_at - before < TRY_AGAIN  # several are started at once, and fail at once
        alive = any(worker.pid and worker.is_alive() for worker in self._pool)  # type: ignore[attr-defined]
        self._in_a_row = 0 if alive else self._in_a_row + (not together)
        # once may be a fleet that is just coming back; but a pool that is closing starts no worker again
        patient = self._in_a_row == 1 and self._state == pool.RUN  # type: ignore[attr-defined]
        lost = isinstance(exc, (BrokerUnreachable, LeaseLost)) and not isinstance(exc, KeyLost)
        if not self._is_over() and (lost or not (alive or patient)):
            self._answers.fail_pending(exc)

    def _is_over(self) -> bool:
        """Whether the run is lost, and every call has ended with the reason of that: the others come of it."""
        try:
            self._run.check_memory()
        except BrokerUnreachable as exc:
            self._useless = exc
            self._answers.fail_pending(exc)
            return True
        return False

    def _recover_once(self, worker: PoolWorker) -> None:
        """Have done with a worker that ended: as soon as that is heard, and at the latest when it is joined.

        Excluded: its calls waiting until the thread that joins workers is done with starting another, which may take long.
        """
        with self._recovering:
            if worker.on_end is not None:
                worker.on_end = None
                self._recover(worker)

    def _recover(self, worker: PoolWorker) -> bool:
        """Put back what a worker that ended had taken; whether it had come so far as to ask for work.

        If its host could not load it, or one after the other fails before that, the pool gives up.
        """
        if self._is_over():
            return True
        if worker.load_error is not None:
            self._give_up(worker.load_error)
        try:
            try:
                given_up, ready = self._calls.recover(worker.process_id, worker.host_lost, worker.overdue)
            except KeyLost:  # it is put right by now; a call that was lost by this is missed
                given_up, ready = self._calls.recover(worker.process_id, worker.host_lost, worker.overdue)
        except LabError as exc:
            self._answers.fail_pending(exc)
            return True
        if worker.process_id and not worker.host_lost:
            self._in_vain = 0 if ready else self._in_vain + 1
        if self._in_vain > MAX_DEATHS * self._workers and self._useless is None:
            self._give_up(failed_to_begin(worker))
        if given_up is not None:
            job, index = given_up
            lost = WorkerLost(
                f"Call {index} of job {job} was given up: {MAX_DEATHS} processes that took it died"
                f" (the last: exit code {worker.exitcode}, on {worker.host}).",
                "Run the same call in this process to see why: it exits, crashes, or uses more memory than there is.",
            )
            self._settle(job, index, (False, lost))
        return ready

    def _give_up(self, exc: LabError) -> None:
        """No worker can be set up: a successor would end in the same way, and so on for ever, as in multiprocessing."""
        self._useless = exc
        self._answers.fail_pending(exc)

    def _ids(self) -> list[str]:
        workers = list(self._pool)  # type: ignore[attr-defined]
        return [worker.process_id for worker in workers if worker.process_id]

    def _settle(self, job: int, index: int, outcome: tuple[bool, Any]) -> None:
        result = self._cache.get(job)  # type: ignore[attr-defined]
        if result is not None:
            result._set(index, outcome)

    @staticmethod
    def _help_stuff_finish(inqueue: Any, task_handler: Any, size: int) -> None:
        inqueue.drop()

    @classmethod
    def _terminate_pool(cls, taskqueue: Any, inqueue: Any, outqueue: Any, pool: Any, *args: Any) -> None:
        workers = [worker.process_id for worker in pool]
        super()._terminate_pool(taskqueue, inqueue, outqueue, pool, *args)  # type: ignore[misc]
        for worker in pool:
            worker.on_end = None  # excluded: putting back what it had taken, after the keys were deleted
        inqueue.discard(workers)


def alone(func: Any, chunksize: Any) -> Any:
    """The chunksize for a function: a limited call is not sent with others, which would end with it or be run again."""
    return 1 if is_limited(func) else chunksize


_mapstar: Any = vars(pool)["mapstar"]  # not among the stubs


def _fail(_exc: BaseException) -> None:
    """Stands in a task for the function whose argument could not be read."""


def _tasks(
    job: int,
    func: Any,
    iterable: Iterable[Any],
    before_reading: Callable[[], None],
    caught: type[BaseException],
    chunks: int = 0,
) -> Iterator[Any]:
    """The tasks of an input. If it raises, the last is that error: of a map, all that are left, as it waits for each."""
    iterator, n = None, 0
    while True:
        try:
            before_reading()
            iterator = iter(iterable) if iterator is None else iterator
            item = next(iterator)
        except StopIteration:
            return
        except caught as exc:
            error = exc
            break
        yield job, n, func, (item,), {}
        n += 1
    yield from ((job, left, _fail, (error,), {}) for left in range(n, max(n + 1, chunks)))


def reporting(callback: Any) -> Any:
    """The callback, if any, in a form that does not raise."""
    return callback and partial(_call_back, callback)


def _call_back(callback: Callable[[Any], object], value: Any) -> None:
    try:
        callback(value)
    except BaseException:  # noqa: BLE001 - the thread that runs it has others to serve
        try:
            threading.excepthook(threading.ExceptHookArgs([*sys.exc_info(), threading.current_thread()]))
        except BaseException:  # noqa: BLE001 - the hook is the user's too
            traceback.print_exc()


def failed_to_begin(worker: PoolWorker) -> WorkerLost:
    """The error for calls that no worker could be set up for."""
    return WorkerLost(
        f"A worker on host {worker.host} ended with exit code {worker.exitcode} before it was ready for calls.",
        "Its initializer raised, or died, or could not be loaded there: see what it printed on standard error.",
    )


_OF_THE_POOL = ("on_end", "on_failure", "unusable", "_starting", "_sentinel")


_NEVER = property(lambda _: False, lambda *_: None)


class _Workshop:
    """The context from which the stdlib's pool has its workers; all else in this process is the stdlib's own, as its pipe.

    Excluded, by referring to the pool weakly here and in what its threads call: a pool that nobody has any more, and that
    its own threads keep alive for ever, with its processes.
    """

    def __init__(self, owner: Pool, context: Any) -> None:
        self._owner = weakref.ref(owner)
        daemon: Any = inspect.getattr_static(context.Process, "daemon", None) if owner.daemons else _NEVER
        own = isinstance(daemon, property) and daemon is not BaseProcess.daemon
        self._kind = type("PoolWorker", (PoolWorker,), {"daemon": daemon}) if own else PoolWorker

    def __getattr__(self, name: str) -> Any:
        return getattr(multiprocessing.get_context("fork"), name)

    def Process(self, *args: Any, **kwds: Any) -> PoolWorker:
        """A worker."""
        if (owner := self._owner()) is not None:
            return owner._new_worker(self._kind, *args, **kwds)
        worker = PoolWorker(*args, **kwds)  # the pool is just ending
        worker.unusable = WorkerLost("The pool is gone.", "")
        return worker


def _weakly(method: Callable[..., Any], gone: Any = None) -> Callable[..., Any]:
    """A method, for somebody who is not to keep its object alive; when that is gone, it returns what it is told here."""
    reference = weakref.WeakMethod(method)

    def call(*args: Any, **kwds: Any) -> Any:
        bound = reference()
        return gone if bound is None else bound(*args, **kwds)

    return call


class PoolWorker(Process):
    """A worker process; the pool hears of its end at once if it ended badly, else when the stdlib's pool joins it."""

    on_end: Callable[[PoolWorker], object] | None = None
    on_failure: Callable[[LabError], None] | None = None
    unusable: LabError | None = None
    _popen: Any
    _starting: _Starting
    tells_why = False

    def start(self) -> None:
        """Start it; the successor of a worker, started in a thread of the pool, has nobody to raise an error to."""
        if self.unusable is not None:
            self._popen = _NeverStarted()
            self._sentinel = self._popen.sentinel
            return
        if self.on_failure is not None:
            self._starting = self._popen = _Starting(self)  # kept, as somebody may wait at its sentinel
            self._sentinel = self._popen.sentinel
            self._starting.begin()
            return
        super().start()
        self.started(self._popen)

    def started(self, popen: Any) -> None:
        """Hear of its end from now on."""
        popen.on_end(self._ended)

    def _ended(self) -> None:
        # not in the thread that hears of it: what is told then may call back, and wait
        if self._popen.returncode:
            threading.Thread(target=self._tell_end, name="crosshost-pool-recovery", daemon=True).start()

    def _tell_end(self) -> None:
        if on_end := self.on_end:
            on_end(self)

    @property
    def process_id(self) -> str:
        """Its id in the run."""
        return str(self._popen.process_id)

    @property
    def host_lost(self) -> bool:
        """Whether it ended because its host did."""
        return bool(self._popen.host_lost)

    @property
    def overdue(self) -> bool:
        """Whether it was ended as the time of its call was up (``lab.limited``)."""
        return bool(self.exitcode == -signal.SIGALRM)

    @property
    def load_error(self) -> CannotLoad | None:
        """Why its host could not load it, if that is how it ended."""
        error: CannotLoad | None = self._popen.load_error
        return error

    def join(self, timeout: float | None = None) -> None:
        """Wait for the end; then what it had taken goes back to the pool."""
        super().join(timeout)
        if self.exitcode is not None:
            self._tell_end()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in _OF_THE_POOL} | {"_popen": None}


class _StandIn:
    """In the place of a worker's ``Popen`` while there is none: what the pool asks of it, and a sentinel to wake the pool."""

    process_id, pid, host, load_error, host_lost = "", 0, "", None, False

    def __init__(self) -> None:
        self.returncode: int | None = None
        self.sentinel, self._write_end = os.pipe()
        util.Finalize(self, _close_both, (self.sentinel, self._write_end))

    def poll(self) -> int | None:
        return self.returncode

    def _wake_pool(self) -> None:  # which waits for its workers' ends
        os.write(self._write_end, b"!")


class _Starting(_StandIn):
    """Takes the place of the successor of a worker while that is started, in a thread of its own.

    Excluded: workers that were lost together being replaced one after the other, each after seconds on a fleet that has just
    lost a host.

    Args:
        worker: Whose place it takes; it has the real one afterwards, or one that never started.
    """

    def __init__(self, worker: PoolWorker) -> None:
        super().__init__()
        self._worker, self._over = worker, threading.Event()
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Start the worker. Excluded, as it stands in its place by now: taking the place of the real one after it came."""
        threading.Thread(target=self._start, name="crosshost-pool-start", daemon=True).start()

    def _start(self) -> None:
        worker: Any = self._worker
        failure: LabError | None = None
        try:
            popen = worker._Popen(worker)
        except Exception as exc:  # noqa: BLE001 - there is nobody here to raise it to
            popen = _NeverStarted()
            failure = exc if isinstance(exc, LabError) else LabError(f"It could not be started: {exc!r}")
        if failure is not None and self.returncode is None and worker.on_failure is not None:
            worker.on_failure(failure)  # before anybody is told that it is over
        with self._lock:  # excluded: an end that is asked for between this look and the exchange
            unwanted = self.returncode is not None
            if not unwanted:
                worker._popen, worker._sentinel = popen, popen.sentinel
                multiprocessing.process._children.add(worker)  # type: ignore[attr-defined]  # as the stdlib's start does
        self._over.set()
        self._wake_pool()
        if unwanted:
            popen.kill()
        elif failure is None:
            worker.started(popen)

    def wait(self, timeout: float | None = None) -> int | None:
        begun = time.monotonic()
        if self.returncode is not None:
            return self.returncode
        if not self._over.wait(timeout):
            return self.returncode
        left = None if timeout is None else max(0.0, timeout - (time.monotonic() - begun))
        code: int | None = self._worker._popen.wait(left)
        return code

    def terminate(self) -> None:
        with self._lock:
            if self._worker._popen is self:
                self.returncode = -signal.SIGTERM
                self._over.set()
                return
        self._worker._popen.terminate()

    kill = close = terminate


class _NeverStarted(_StandIn):
    """Takes the place of a worker that could not be started, for a while: then it ends, and the pool tries again."""

    def __init__(self) -> None:
        super().__init__()
        self._timer = threading.Timer(TRY_AGAIN, self._end)
        self._timer.daemon = True
        self._timer.start()

    def _end(self) -> None:
        self.returncode = 1
        self._wake_pool()

    def wait(self, timeout: float | None = None) -> int:
        self._timer.cancel()
        self.returncode = 1
        return 1

    terminate = kill = close = wait


def _close_both(*fds: int) -> None:
    for fd in fds:
        os.close(fd)
