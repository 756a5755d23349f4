"""The contexts on this host: threads of this process, and processes beside it.

``processes`` is the stdlib's own context, unchanged. ``threads`` is ``multiprocessing.dummy`` with its gaps filled: the
same names, signatures and exceptions as a process context, with a thread behind each Process. As on the cluster, only
the engine is replaced: Process, Connection, SimpleQueue, Value, Array and Pool are the stdlib's classes.

What threads share, these classes share: an object that is sent, put or passed is the object itself, not a copy, and
need not pickle. One thing must not be shared or portable programs would break: a *handle*. A process that closes its
end of a pipe, or its queue, closes it for itself only; so each thread gets handles of its own, as each process does.
"""

from __future__ import annotations

import copy
import itertools
import multiprocessing
import multiprocessing.dummy
import os
import pickle
import queue
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from concurrent.futures.thread import BrokenThreadPool
from contextlib import suppress
from functools import partial
from multiprocessing import connection, context, pool, process, queues, sharedctypes
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from lab import mainmodule, sharedfile, sharing

if TYPE_CHECKING:
    _Connection = connection.Connection[Any, Any]
    _SimpleQueue = queues.SimpleQueue[Any]
else:
    _Connection = connection.Connection
    _SimpleQueue = queues.SimpleQueue


def process_context(start_method: str = "spawn") -> Any:
    """A context of the stdlib, of its own class, that knows the name of its place.

    Args:
        start_method: ``spawn``, ``fork`` or ``forkserver``, as far as this system has them.

    Raises:
        ValueError: This system has no such start method.
    """
    choices = multiprocessing.get_all_start_methods()
    if start_method not in choices:
        raise ValueError(f"there is no start method {start_method!r} here; the choices are {', '.join(choices)}")
    mainmodule.install()
    if mainmodule.is_session():
        from lab import byvalue  # here, as cloudpickle takes long to import

        byvalue.install()
    ctx: Any = type(multiprocessing.get_context(start_method))()  # a new one: the stdlib's is everybody's
    ctx.place = "processes"
    ctx.share = sharedfile.share
    sharedfile.remove_at_exit()
    return ctx


# Handles: what a child closes for itself only.


def _own(value: Any) -> Any:
    """The value as a new child gets it: handles are its own, anything else is the very same object."""
    if hasattr(type(value), "for_child"):
        return value.for_child()
    if type(value) not in (tuple, list, dict):
        return value
    items = list(value.values() if type(value) is dict else value)
    owned = [_own(item) for item in items]
    if all(mine is item for mine, item in zip(owned, items, strict=True)):
        return value
    return dict(zip(value, owned, strict=True)) if type(value) is dict else type(value)(owned)


# Process


class _ThreadPopen(threading.Thread):
    """The engine of a Process, where other contexts have a ``Popen``: one thread.

    Attributes:
        process: The Process as its parent knows it; None when it has ended.
        child: The Process as the thread knows it: a copy, with handles of its own.
        returncode: Its exit code; None until it has one.
        sentinel: File descriptor that becomes readable when the process ends.
        pid: Id of the process that the thread is a part of: this one.
    """

    def __init__(self, process: Process) -> None:
        super().__init__(name=process.name, daemon=process.daemon)
        self.process: Process | None = process
        self.child = copy.copy(process)
        vars(self.child).update((name, _own(value)) for name, value in vars(process).items())
        # Before the thread runs: its target may ask current_process() for its pid or whether it is alive.
        self.child._popen = self
        self.returncode: int | None = None
        self.pid = os.getpid()
        self._reader, self._writer = connection.Pipe(duplex=False)
        self.sentinel = self._reader.fileno()

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int | None:
        self.join(timeout)
        return self.returncode

    def close(self) -> None:
        self._reader.close()

    def run(self) -> None:
        """Run the target and turn the way it ended into an exit code, as ``BaseProcess._bootstrap`` does."""
        code = 1
        try:
            self.child.run()
            code = 0
        except SystemExit as exc:
            if exc.code is None or isinstance(exc.code, int):
                code = exc.code or 0
            else:
                print(exc.code, file=sys.stderr)
        except BaseException:  # noqa: BLE001  # whatever ends a process is told on stderr and becomes an exit code
            print(f"Process {self.child.name}:", file=sys.stderr)
            traceback.print_exc()
        finally:
            for grandchild in _children_of(self.child):
                if not grandchild.daemon:
                    grandchild.join()
            # The child's attributes hold its handles: letting go of them closes its ends of pipes, as an exit does.
            del self.child
            # The code is set before the sentinel speaks: who wakes up on the sentinel must not read None.
            self.returncode = code
            self.process = None
            self._writer.close()


class Process(process.BaseProcess):
    """A thread with the interface of a process.

    Differs from multiprocessing: ``pid`` and ``ident`` are those of this process, which all threads share;
    ``terminate`` and ``kill`` raise NotImplementedError, because Python cannot end a thread from outside.
    """

    _popen: _ThreadPopen | None
    _parent: Any

    def __init__(
        self,
        group: None = None,
        target: Callable[..., object] | None = None,
        name: str | None = None,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        daemon: bool | None = None,
    ) -> None:
        super().__init__(group, target, name, args, kwargs or {}, daemon=daemon)
        self._parent = current_process()

    def start(self) -> None:
        """Start the thread.

        Raises:
            ValueError: The process is closed.
            AssertionError: It was started before, or it would be the child of a daemon.
        """
        mine: Any = self
        mine._check_closed()
        if self._popen is not None:
            raise AssertionError("cannot start a process twice")
        parent = current_process()
        if isinstance(parent, Process) and parent.daemon:
            raise AssertionError("daemonic processes are not allowed to have children")
        popen = _ThreadPopen(self)
        popen.start()
        self._popen = popen
        mine._sentinel = popen.sentinel
        del mine._target, mine._args, mine._kwargs

    def terminate(self) -> None:
        """Refuse: a thread cannot be killed."""
        raise NotImplementedError(
            f"{self.name} is a thread, and Python cannot end a thread from outside; ask it to return, with an Event"
        )

    kill = terminate


def current_process() -> Any:
    """The Process that this thread runs, else the process that this is."""
    thread = threading.current_thread()
    return getattr(thread, "child", None) or multiprocessing.current_process()


def parent_process() -> Any:
    """The process that made the current one; None in the main process."""
    me = current_process()
    return me._parent if isinstance(me, Process) else multiprocessing.parent_process()


def active_children() -> list[Process]:
    """The children of the current process that are alive."""
    return _children_of(current_process())


def _children_of(parent: Any) -> list[Process]:
    threads = [thread for thread in threading.enumerate() if isinstance(thread, _ThreadPopen)]
    alive = [thread.process for thread in threads]
    return [process for process in alive if process is not None and process._parent is parent]


# Pipe and queues

_BY_REFERENCE = b"\x00crosshost object "
_serials = itertools.count()


class Connection(_Connection):
    """One end of a pipe. A real pipe carries bytes, end of file and readiness; objects pass beside it, by reference.

    ``send`` puts the object on a shelf and writes the shelf mark to the pipe; ``recv`` reads the mark and takes the
    object. So ``poll``, ``fileno``, ``multiprocessing.connection.wait`` and all errors are those of the stdlib's class.

    Differs from multiprocessing: what ``send`` sent is for ``recv``, not for ``recv_bytes``.
    """

    def __init__(self, handle: int, shelf: dict[int, Any], readable: bool = True, writable: bool = True) -> None:
        super().__init__(handle, readable, writable)
        self._shelf = shelf

    def send(self, obj: Any) -> None:
        """Send an object, by reference."""
        serial = next(_serials)
        # On the shelf before the mark is in the pipe: a receiver that already waits reads the mark at once.
        self._shelf[serial] = obj
        try:
            self.send_bytes(_BY_REFERENCE + serial.to_bytes(8, "big"))
        except BaseException:
            del self._shelf[serial]
            raise

    def recv(self) -> Any:
        """Receive the next object.

        Raises:
            EOFError: The other end is closed and nothing is left to receive.
        """
        message = self.recv_bytes()
        if message.startswith(_BY_REFERENCE):
            return self._shelf.pop(int.from_bytes(message[-8:], "big"))
        return pickle.loads(message)

    def for_child(self) -> Connection:
        """A second handle of the same end: the end is closed when all its handles are."""
        return Connection(os.dup(self.fileno()), self._shelf, self.readable, self.writable)


def _pipe(duplex: bool = True) -> tuple[Connection, Connection]:
    shelf: dict[int, Any] = {}
    if duplex:
        a, b = socket.socketpair()
        return Connection(a.detach(), shelf), Connection(b.detach(), shelf)
    reader, writer = os.pipe()
    return Connection(reader, shelf, writable=False), Connection(writer, shelf, readable=False)


class SimpleQueue(_SimpleQueue):
    """A pipe with a lock at each end, as the stdlib's; objects pass by reference."""

    _reader: Connection
    _writer: Connection

    def __init__(self) -> None:
        self._locks = Lock(), Lock()
        self._set_ends(*_pipe(duplex=False))

    def _set_ends(self, reader: Connection, writer: Connection) -> None:
        self._reader, self._writer, self._poll = reader, writer, reader.poll

    def get(self) -> Any:
        """Wait for an object and take it."""
        with self._locks[0]:
            return self._reader.recv()

    def put(self, obj: Any) -> None:
        """Append an object."""
        with self._locks[1]:
            self._writer.send(obj)

    def for_child(self) -> SimpleQueue:
        """A second handle of the same queue."""
        other = object.__new__(SimpleQueue)
        other._locks = self._locks
        other._set_ends(self._reader.for_child(), self._writer.for_child())
        return other


class Queue:
    """A handle of a ``queue.Queue``; closing it closes it for its holder, as in multiprocessing."""

    def __init__(self, maxsize: int = 0) -> None:
        self._queue: queue.Queue[Any] = queue.Queue(maxsize)
        self._closed = False

    def for_child(self) -> Queue:
        """A second, open handle of the same queue."""
        other = copy.copy(self)
        other._closed = False
        return other

    def put(self, obj: Any, block: bool = True, timeout: float | None = None) -> None:
        """Append an object; ``queue.Full`` when there is no room in time."""
        self._check_open()
        self._queue.put(obj, block, None if timeout is None else max(timeout, 0))

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the oldest object; ``queue.Empty`` when there is none in time."""
        self._check_open()
        return self._queue.get(block, None if timeout is None else max(timeout, 0))

    def put_nowait(self, obj: Any) -> None:
        """Append an object or raise ``queue.Full`` at once."""
        self.put(obj, False)

    def get_nowait(self) -> Any:
        """Take an object or raise ``queue.Empty`` at once."""
        return self.get(False)

    def qsize(self) -> int:
        """How many objects are in the queue."""
        return self._queue.qsize()

    def empty(self) -> bool:
        """Whether there is nothing to get."""
        return self._queue.empty()

    def full(self) -> bool:
        """Whether there is no room."""
        return self._queue.full()

    def close(self) -> None:
        """Give up this handle; ``put`` and ``get`` then raise ValueError."""
        self._closed = True

    def join_thread(self) -> None:
        """Return at once: an object is in the queue as soon as ``put`` returns, without a feeder thread."""
        if not self._closed:
            raise AssertionError(f"Queue {self!r} not closed")

    def cancel_join_thread(self) -> None:
        """Do nothing: there is no feeder thread to wait for."""

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError(f"Queue {self!r} is closed")


class JoinableQueue(Queue):
    """A Queue that counts the tasks put into it until each is reported done."""

    def task_done(self) -> None:
        """Report one task done; ValueError when that is one too many."""
        self._queue.task_done()

    def join(self) -> None:
        """Wait until every task is done."""
        self._queue.join()


# Synchronization: threading's classes with multiprocessing's signatures and exceptions


class Lock:
    """A ``threading.Lock``; releasing it unlocked raises ValueError, as multiprocessing's does."""

    def __init__(self) -> None:
        self._lock: Any = threading.Lock()

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Lock, waiting at most ``timeout`` seconds; whether it is now ours."""
        return bool(self._lock.acquire(block, -1 if timeout is None or not block else max(timeout, 0)))

    def release(self) -> None:
        """Unlock; any thread may."""
        try:
            self._lock.release()
        except RuntimeError:
            raise ValueError("semaphore or lock released too many times") from None

    def locked(self) -> bool:
        """Whether anybody holds it; a recursive lock knows since Python 3.14."""
        return bool(self._lock.locked())

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *exc_info: object) -> None:
        self.release()


class RLock(Lock):
    """A ``threading.RLock``; releasing it as another than its owner raises AssertionError."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        # What threading.Condition asks a reentrant lock for, to let go of all its levels while it waits.
        self._is_owned = self._lock._is_owned
        self._release_save = self._lock._release_save
        self._acquire_restore = self._lock._acquire_restore

    def release(self) -> None:
        """Unlock one level."""
        try:
            self._lock.release()
        except RuntimeError:
            raise AssertionError("attempt to release recursive lock not owned by thread") from None


class Semaphore(threading.Semaphore):
    """A ``threading.Semaphore`` with multiprocessing's ``acquire`` and ``get_value``."""

    _value: int

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Take one, waiting at most ``timeout`` seconds; whether it worked."""
        return super().acquire(block, timeout if block else None)

    def get_value(self) -> int:
        """How often it can be acquired without waiting."""
        return self._value


class BoundedSemaphore(Semaphore, threading.BoundedSemaphore):
    """A Semaphore that cannot be released above its first value."""


class Condition(threading.Condition):
    """A ``threading.Condition`` that raises AssertionError when its lock is not held."""

    _is_owned: Callable[[], bool]

    def __init__(self, lock: Lock | None = None) -> None:
        any_lock: Any = lock or RLock()
        super().__init__(any_lock)

    def wait(self, timeout: float | None = None) -> bool:
        """Let go of the lock, wait to be notified, lock again; False when the time ran out."""
        if not self._is_owned():
            raise AssertionError("must acquire() condition before using wait()")
        return super().wait(timeout)

    def notify(self, n: int = 1) -> None:
        """Wake up to ``n`` waiting threads."""
        if not self._is_owned():
            raise AssertionError("lock is not owned")
        super().notify(n)


# Pool, manager and the context that offers all of it


class _PoolWorker(Process):
    """A Process without ``terminate``, as the stdlib's thread pool expects of its workers."""

    @property
    def terminate(self) -> Any:
        raise AttributeError("a thread cannot be terminated")


_StdPool: Any = pool.Pool


class ThreadPool(pool.ThreadPool):
    """The stdlib's ThreadPool, with workers of this context and ``maxtasksperchild``."""

    # Our workers have sentinels, so ended ones are noticed at once, not by looking ten times a second.
    _get_worker_sentinels = staticmethod(_StdPool._get_worker_sentinels)
    _wait_for_updates = staticmethod(_StdPool._wait_for_updates)

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
    ) -> None:
        pool.Pool.__init__(self, processes, initializer, initargs, maxtasksperchild, ThreadContext())

    @staticmethod
    def Process(ctx: Any, *args: Any, **kwds: Any) -> Any:  # the hook by which Pool makes a worker
        """Make a worker."""
        return _PoolWorker(*args, **kwds)


class Manager:
    """Objects that a manager process would serve; threads share them without one."""

    dict, list, Namespace = dict, list, multiprocessing.dummy.Namespace
    Value, Array = multiprocessing.dummy.Value, staticmethod(multiprocessing.dummy.Array)
    Queue: Any = staticmethod(queue.Queue)
    JoinableQueue: Any = staticmethod(queue.Queue)
    Lock, RLock, Condition = staticmethod(threading.Lock), staticmethod(threading.RLock), threading.Condition
    Semaphore, BoundedSemaphore = threading.Semaphore, threading.BoundedSemaphore
    Event, Barrier, Pool = threading.Event, threading.Barrier, ThreadPool

    def shutdown(self) -> None:
        """Do nothing: there is no server to stop."""

    def join(self, timeout: float | None = None) -> None:
        """Do nothing: there is no server to wait for."""

    def __enter__(self) -> Manager:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.shutdown()


class ThreadContext(context.BaseContext):
    """The context of threads: each name that a process context has."""

    place = "threads"
    _name = "threads"

    Process: Any = Process
    Queue: Any = Queue
    JoinableQueue: Any = JoinableQueue
    SimpleQueue: Any = SimpleQueue
    Lock: Any = Lock
    RLock: Any = RLock
    Semaphore: Any = Semaphore
    BoundedSemaphore: Any = BoundedSemaphore
    Condition: Any = Condition
    Event: Any = threading.Event
    Barrier: Any = threading.Barrier
    Pool: Any = ThreadPool
    Manager: Any = Manager
    Pipe: Any = staticmethod(_pipe)
    current_process: Any = staticmethod(current_process)
    parent_process: Any = staticmethod(parent_process)
    active_children: Any = staticmethod(active_children)
    share: Any = sharing.Itself

    def RawValue(self, typecode_or_type: Any, *args: Any) -> Any:
        """A ctypes object."""
        return _ctype(typecode_or_type)(*args)

    def RawArray(self, typecode_or_type: Any, size_or_initializer: Any) -> Any:
        """A ctypes array, of zeros if only its size is given."""
        if isinstance(size_or_initializer, int):
            return (_ctype(typecode_or_type) * size_or_initializer)()
        return (_ctype(typecode_or_type) * len(size_or_initializer))(*size_or_initializer)

    def Value(self, typecode_or_type: Any, *args: Any, lock: Any = True) -> Any:
        """A ctypes object behind a lock."""
        return self._locked(self.RawValue(typecode_or_type, *args), lock)

    def Array(self, typecode_or_type: Any, size_or_initializer: Any, *, lock: Any = True) -> Any:
        """A ctypes array behind a lock."""
        return self._locked(self.RawArray(typecode_or_type, size_or_initializer), lock)

    def _locked(self, obj: Any, lock: Any) -> Any:
        if lock is False:
            return obj
        if lock in (True, None):
            lock = self.RLock()
        if not hasattr(lock, "acquire"):
            raise AttributeError(f"{lock!r} has no method 'acquire'")
        return sharedctypes.synchronized(obj, lock, ctx=self)

    def get_context(self, method: Any = None) -> Any:
        """This context, or another by its name."""
        return self if method in (None, self._name) else super().get_context(method)


def _ctype(typecode_or_type: Any) -> Any:
    codes: dict[Any, Any] = vars(sharedctypes)["typecode_to_type"]
    return codes.get(typecode_or_type, typecode_or_type)


class ProcessPoolExecutor(ThreadPoolExecutor):
    """The stdlib's executor of threads with the signature and the errors of its executor of processes.

    Differs from concurrent.futures.ProcessPoolExecutor: what is handed over and returned is the object itself, and
    ``max_tasks_per_child`` is checked and means nothing, as a thread leaves nothing behind that a new one would not find.
    """

    BROKEN = BrokenProcessPool  # since Python 3.14 the stdlib's own methods ask for it

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: Any = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        *,
        max_tasks_per_child: int | None = None,
    ) -> None:
        if max_workers is not None and max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if max_tasks_per_child is not None and not isinstance(max_tasks_per_child, int):
            raise TypeError("max_tasks_per_child must be an integer")
        if max_tasks_per_child is not None and max_tasks_per_child <= 0:
            raise ValueError("max_tasks_per_child must be >= 1")
        begin = partial(_begin_worker, initializer)
        super().__init__(max_workers or os.cpu_count() or 1, "", begin, tuple(initargs))

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have a thread call ``fn(*args, **kwargs)``; BrokenProcessPool if an initializer has failed."""
        try:
            return super().submit(fn, *args, **kwargs)
        except BrokenThreadPool as exc:
            raise BrokenProcessPool(*exc.args) from None

    def map(self, fn: Any, *iterables: Any, timeout: float | None = None, chunksize: int = 1, **more: Any) -> Any:
        """As in concurrent.futures; ValueError for a ``chunksize`` that processes refuse."""
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        return super().map(fn, *iterables, timeout=timeout, chunksize=chunksize, **more)

    def _initializer_failed(self) -> None:
        mine: Any = self
        with mine._shutdown_lock:
            mine._broken = (
                "A process in the process pool was terminated abruptly while the future was running or pending."
            )
            with suppress(queue.Empty):
                while True:
                    if (item := mine._work_queue.get_nowait()) is not None:
                        item.future.set_exception(BrokenProcessPool(mine._broken))


def _begin_worker(initializer: Callable[..., object] | None, *initargs: Any) -> None:
    """In a new thread of an executor: be a process of this context, for ``current_process``."""
    thread: Any = threading.current_thread()
    thread.child = Process(name=thread.name)
    thread.child._popen = SimpleNamespace(pid=os.getpid(), poll=lambda: None)
    if initializer is not None:
        initializer(*initargs)
