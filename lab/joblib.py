"""joblib on a fleet: ``lab.joblib.register()``, and then ``joblib.parallel_config(backend="crosshost")``.

A backend of joblib's is told of batches of calls and tells of their results; which calls make a batch, how many are under
way, what happens after an error and how results are returned is joblib's own code. Here a batch is a future of an executor
on the cluster (``lab.cluster.futures``). The executor stays from one ``Parallel`` to the next, as loky's does.

Functions, arguments and results travel by cloudpickle, as in loky: what pickle does not find by its name goes by value, and
so does everything of the main module. Its processes need not run that, so it needs no main guard. A large array is shared
(``lab.sharing``): it comes to each host once, however many calls it is an argument of.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import sys
import threading
import warnings
from collections import Counter
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from multiprocessing import pool
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from lab.cluster.context import default_context
from lab.cluster.futures import ClusterExecutor
from lab.errors import RedisFull
from lab.limit import is_limited
from lab.sharing import Shared, keeping

try:
    import joblib
    from joblib import _parallel_backends as backends
except ModuleNotFoundError as exc:
    raise ModuleNotFoundError(
        f"lab.joblib is for programs that use joblib, and {exc.name} is not installed here. Install it, on every host too:\n"
        "  pip install joblib",
        name=exc.name,
    ) from None
try:
    import cloudpickle
except ModuleNotFoundError:  # joblib up to 1.5 has one of its own
    from joblib.externals import cloudpickle

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = "crosshost"
OPTIONS = frozenset({"initializer", "initargs"})
OF_ONE_HOST = frozenset({"prefer", "require", "verbose", "context", "temp_folder", "idle_worker_timeout"})
"""What a ``Parallel`` tells its backend, and is of no use here."""
OF_ARRAYS = frozenset({"max_nbytes", "mmap_mode"})


_ExceptionWithTraceback: Any = vars(pool)["ExceptionWithTraceback"]  # not among the stubs


def register(make_default: bool = False) -> None:
    """Let joblib know the backend ``crosshost``. Nothing is connected to or started until it is used.

    Args:
        make_default: Whether it is used where no backend is named.
    """
    joblib.register_parallel_backend(NAME, Backend, make_default=make_default)


def shut_down() -> None:
    """End the workers that wait for the next ``Parallel``; they end with the program, too."""
    _workers.shut_down()


class Backend(backends.AutoBatchingMixin, backends.ParallelBackendBase):  # type: ignore[misc]
    """Runs batches of calls on the fleet.

    Differs from joblib's own: ``n_jobs=-1``, which is the default, is the number of slots of the fleet. An array of more than
    ``max_nbytes`` is shared as long as some batch that has it is under way; in a call it is an ``ndarray``, not a ``memmap``,
    and with another ``mmap_mode`` than ``r`` a copy of the call's own. ``temp_folder`` is of no use, as hosts share no disk.
    When a ``Parallel`` ends early (an error, a timeout, Ctrl-C), the processes of what still runs are ended, and no others.

    Args:
        nesting_level: How many ``Parallel`` are around the one that uses it.
        inner_max_num_threads: Threads that libraries (OpenMP, BLAS) may use in each process; 1 if None.
        options: ``initializer`` and ``initargs``: what each process calls first. They may be given to a ``Parallel`` as well;
            either way its processes are its own.
    """

    supports_retrieve_callback = True
    supports_inner_max_num_threads = True
    supports_sharedmem = False
    uses_threads = False
    default_n_jobs = -1

    def __init__(
        self, nesting_level: int | None = None, inner_max_num_threads: int | None = None, **options: Any
    ) -> None:
        _refuse_unknown(options, OPTIONS)
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads, **options)
        self._executor: ClusterExecutor | None = None
        self._shared = False
        self._batches: dict[Future[bytes], list[Shared[Any]]] = {}  # with what it has of the arrays
        self._arrays: WeakValueDictionary[int, Shared[Any]] = WeakValueDictionary()
        self._max_nbytes: int | None = None
        self._mmap_mode: str | None = None
        self._one_by_one = False

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """How many calls run at once, for what was asked for."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None:
            return 1
        if n_jobs != 1 and (nested := self._nested()):
            warnings.warn(f"The backend {NAME!r} cannot be nested {nested}, setting n_jobs=1", stacklevel=3)
            return 1
        return n_jobs if n_jobs > 0 else max(default_context().cpu_count() + 1 + n_jobs, 1)

    def _nested(self) -> str:
        """In what it cannot be used, if in anything; as joblib's own."""
        if multiprocessing.current_process().daemon:
            return "in a process of a pool"
        return "" if self.in_main_thread() or self.nesting_level == 0 else "below threads"

    def configure(self, n_jobs: int = 1, parallel: Any = None, **options: Any) -> int:
        """Get ready for a ``Parallel``; how many calls run at once."""
        _refuse_unknown(options, OPTIONS | OF_ONE_HOST | OF_ARRAYS)
        n_jobs = self.effective_n_jobs(n_jobs)
        if n_jobs == 1:
            raise backends.FallbackToBackend(backends.SequentialBackend(nesting_level=self.nesting_level))
        self.parallel = parallel
        self._max_nbytes, self._mmap_mode = options.get("max_nbytes"), options.get("mmap_mode", "r")
        options = {**self.backend_kwargs, **options}
        threads, initializer = self.inner_max_num_threads or 1, options.get("initializer")
        self._shared = initializer is None
        if initializer is None:
            self._executor = _workers.take(n_jobs, threads)
        else:
            initargs = (threads, cloudpickle.dumps(initializer), *options.get("initargs", ()))
            self._executor = _Executor(n_jobs, None, _prepare, initargs)
        return n_jobs

    def compute_batch_size(self) -> int:
        """How many calls make a batch. A limited one makes its own, so that no other ends with it, or is run again."""
        return 1 if self._one_by_one else int(super().compute_batch_size())

    def submit(self, func: Any, callback: Callable[[Any], object] | None = None) -> Future[bytes]:
        """Have a batch run; ``callback`` is told when it has."""
        assert self._executor is not None
        self._one_by_one = self._one_by_one or any(is_limited(call[0]) for call in getattr(func, "items", ()))
        batch, kept = Future[bytes](), list[Shared[Any]]()
        try:
            with keeping() as kept:
                packed = self._packed(func)
            batch = self._executor.submit(_run, packed)
        except Exception as exc:  # noqa: BLE001 - excluded: raising it in the thread that reads results, where nobody sees it
            batch.set_exception(exc)
        self._batches[batch] = kept
        batch.add_done_callback(partial(self._done, callback))
        return batch

    def _done(self, callback: Callable[[Any], object] | None, batch: Future[bytes]) -> None:
        try:
            if callback is not None:
                callback(batch)
        finally:  # not before: the batch that it has submitted may have the same arrays
            self._batches.pop(batch, None)

    def _packed(self, func: Any) -> bytes:
        """A batch as it travels; what several batches have in common travels with each of them, but for large arrays."""
        file = io.BytesIO()
        _Pickler(file, self._apart).dump(func)
        return file.getvalue()

    def _apart(self, array: Any) -> Any:
        """What is pickled in place of an array; NotImplemented for the array itself."""
        if self._max_nbytes is None or array.nbytes <= self._max_nbytes or array.dtype.hasobject:
            return NotImplemented
        # By its id, which is no other's: what is shared keeps the original.
        if (shared := self._arrays.get(id(array))) is None:
            try:
                whole = sys.modules["numpy"].asarray(array)  # what a memmap is of lies on this host
                shared = self._arrays[id(array)] = default_context().share(whole)
            except RedisFull:
                return NotImplemented  # it waits with its batch, and not here, where results are read that make room
        return _arrived, (shared, self._mmap_mode)

    def retrieve_result_callback(self, out: Future[bytes]) -> Any:
        """The results of a batch, or what it raised."""
        success, value = pickle.loads(out.result())
        if success:
            return value
        raise value

    def stop_call(self) -> None:
        """A ``Parallel`` call has ended. Excluded: the next one getting an array as it was before it was written to."""
        self._arrays.clear()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """End what runs, and forget what waits; the other processes stay."""
        for batch in list(self._batches):
            batch.cancel()

    def terminate(self) -> None:
        """Have done with a ``Parallel``."""
        if self._executor is not None:
            if self._shared:
                _workers.give_back(self._executor)
            else:
                self._executor.shutdown()
            self._executor = None
        self._one_by_one = False
        self.reset_batch_stats()


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle's, with a way of taking numpy's arrays apart."""

    def __init__(self, file: io.BytesIO, apart: Callable[[Any], Any]) -> None:
        super().__init__(file)
        numpy: Any = sys.modules.get("numpy")
        self._arrays, self._apart = (numpy.ndarray, numpy.memmap) if numpy else (), apart

    def reducer_override(self, obj: Any) -> Any:
        """What pickle asks for."""
        reduced = self._apart(obj) if type(obj) in self._arrays else NotImplemented
        return super().reducer_override(obj) if reduced is NotImplemented else reduced


def _arrived(shared: Shared[Any], mmap_mode: str | None) -> Any:
    """On a host: an array that is shared, to be read, or a copy of it to be written to."""
    if mmap_mode != "r":
        return shared.value.copy(order="K")
    array = shared.value.view()
    array.setflags(write=False)  # of one that was not in one piece, this process has made a copy for all calls
    return array


def _run(packed: bytes) -> bytes:
    """On a host: run a batch."""
    outcome: tuple[bool, Any]
    try:
        outcome = True, pickle.loads(packed)()
    except Exception as exc:
        if type(exc).__module__ != "__main__":
            raise
        outcome = False, _ExceptionWithTraceback(exc, exc.__traceback__)  # by value, too
    pickled: bytes = cloudpickle.dumps(outcome)
    return pickled


class _Executor(ClusterExecutor):
    runs_main = False


class _Workers:
    """The executors that there are, by what was asked for; one that nobody uses ends when another one is asked for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._executors: dict[tuple[int, int], ClusterExecutor] = {}
        self._users: Counter[ClusterExecutor] = Counter()

    def take(self, n_jobs: int, threads: int) -> ClusterExecutor:
        """An executor, for as long as it is not given back.

        Args:
            n_jobs: Its workers.
            threads: Threads of the libraries in each.
        """
        with self._lock:
            wanted = self._executors.pop((n_jobs, threads), None)
            self._end_idle()
            if wanted is None or wanted.closed:
                wanted = _Executor(n_jobs, None, _prepare, (threads,))
            self._executors[n_jobs, threads] = wanted
            self._users[wanted] += 1
            return wanted

    def shut_down(self) -> None:
        """End those that nobody uses."""
        with self._lock:
            self._end_idle()

    def _end_idle(self) -> None:
        for key in [key for key, executor in self._executors.items() if not self._users[executor]]:
            self._executors.pop(key).shutdown(wait=False)

    def give_back(self, executor: ClusterExecutor) -> None:
        """It is used once less."""
        with self._lock:
            self._users[executor] -= 1
            if not self._users[executor]:
                del self._users[executor]


_workers = _Workers()


def _prepare(threads: int, initializer: bytes = b"", *initargs: Any) -> None:
    """In a new worker: there is one for each core or so already, so libraries are not to compute in many threads each."""
    register()
    for variable in Backend.MAX_NUM_THREADS_VARS:
        os.environ[variable] = str(threads)
    with suppress(ModuleNotFoundError):  # for libraries that are loaded by now
        from threadpoolctl import threadpool_limits

        threadpool_limits(threads)
    if initializer:
        pickle.loads(initializer)(*initargs)


def _refuse_unknown(options: dict[str, Any], known: frozenset[str]) -> None:
    if unknown := sorted(options.keys() - known):
        raise TypeError(f"the backend {NAME!r} has no parameter {', '.join(map(repr, unknown))}")
