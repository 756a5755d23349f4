"""The context of interpreters: the stdlib's classes for processes, with interpreters of this process behind them.

As on threads and on the cluster, only the engine is replaced. A descriptor, a semaphore's name and a file in memory mean
the same in every interpreter of a process, so pipes, queues, locks and values are those of ``multiprocessing``, unchanged.

Differs from multiprocessing: ``terminate`` and ``kill`` raise NotImplementedError; ``pid`` and the current directory are
this process's; a daemon that still works at the end of the program is waited for, and then ends the process; a child that
crashes in C takes all others with it; a child has no Pool, and ``cancel_join_thread`` of its queues cancels nothing; there is
no Manager and no ``share``. A child cannot import an extension that does not say that several interpreters may use it: numpy
and cryptography do not (as of 2026).
"""

from __future__ import annotations

import platform
from multiprocessing import connection, context, pool, process, queues
from threading import Thread
from types import FunctionType, SimpleNamespace
from typing import Any

from lab import mainmodule
from lab.errors import NotHere
from lab.interpreters.api import in_main, interpreters
from lab.interpreters.popen import Popen
from lab.interpreters.token import Token


class Process(process.BaseProcess):
    """An interpreter with the interface of a process; it has a GIL of its own."""

    _start_method = None

    @staticmethod
    def _Popen(process_obj: Any) -> Popen:  # the hook by which a Process gets its engine
        return Popen(process_obj)

    def terminate(self) -> None:
        """Refuse: an interpreter that runs cannot be ended."""
        raise NotImplementedError(
            f"{self.name} is an interpreter, and Python cannot end one from outside; ask it to return, with an Event"
        )

    kill = interrupt = terminate


class _Feeder(Thread):
    """A queue's thread. Interpreters refuse daemons; this one ends by itself, when its queue is closed at a child's end."""

    def __init__(self, *args: Any, daemon: bool, **kwargs: Any) -> None:
        super().__init__(*args, daemon=in_main(), **kwargs)


_with_feeder = {**vars(queues), "threading": SimpleNamespace(Thread=_Feeder)}
_start: Any = queues.Queue._start_thread  # type: ignore[attr-defined]
_start_thread = FunctionType(_start.__code__, _with_feeder, _start.__name__, _start.__defaults__)


class Queue(queues.Queue):  # type: ignore[type-arg]
    """The stdlib's queue, with a feeder that an interpreter allows."""

    _start_thread = _start_thread


class JoinableQueue(queues.JoinableQueue):  # type: ignore[type-arg]
    """The stdlib's joinable queue, with a feeder that an interpreter allows."""

    _start_thread = _start_thread


class _Process(Process):
    """A pool's worker: a Process without ``terminate``: a pool that finds none asks its workers to end."""

    @property
    def terminate(self) -> Any:
        raise AttributeError("an interpreter cannot be terminated")


class Pool(pool.Pool):
    """The stdlib's pool. Terminated, it lets each worker end the call that it is in, and waits for none."""

    @staticmethod
    def Process(ctx: Any, *args: Any, **kwds: Any) -> Any:  # the hook by which Pool makes a worker
        """Make a worker."""
        return _Process(*args, **kwds)

    @staticmethod
    def _help_stuff_finish(inqueue: Any, task_handler: Any, size: int) -> None:
        """Take what no worker has begun, and tell each worker to end."""
        with inqueue._rlock:
            while inqueue._reader.poll():
                inqueue._reader.recv()
        for _ in range(size):
            inqueue.put(None)

    @classmethod
    def _terminate_pool(cls, taskqueue: Any, inqueue: Any, outqueue: Any, workers: Any, *others: Any) -> None:
        base: Any = super()
        base._terminate_pool(taskqueue, inqueue, outqueue, workers, *others)
        alive = {worker.sentinel: worker for worker in workers if worker.is_alive()}
        Thread(target=_take_answers, args=(outqueue._reader, alive), name="a pool's end", daemon=True).start()


def _take_answers(reader: Any, workers: dict[Any, Any]) -> None:
    """Take what a pool's workers still answer, until each has ended: one that cannot hand over its answer never would."""
    while workers:
        ready: Any
        for ready in connection.wait([reader, *workers]):
            if ready is reader:
                reader.recv_bytes()
            else:
                del workers[ready]


class InterpreterContext(context.BaseContext):
    """The context of interpreters: each name that a process context has; ``Manager`` and ``share`` say that there is none."""

    place = "interpreters"
    _name = "interpreters"

    Process: Any = Process
    Token: Any = Token

    def Queue(self, maxsize: int = 0) -> Any:
        """A queue."""
        return Queue(maxsize, ctx=self)

    def JoinableQueue(self, maxsize: int = 0) -> Any:
        """A queue that counts what is not done."""
        return JoinableQueue(maxsize, ctx=self)

    def Pool(
        self,
        processes: int | None = None,
        initializer: Any = None,
        initargs: Any = (),
        maxtasksperchild: int | None = None,
    ) -> Any:
        """A pool of interpreters.

        Raises:
            NotImplementedError: This is a child: a pool needs daemon threads, which only the first interpreter may have.
        """
        if not in_main():
            raise NotImplementedError("a child that is an interpreter has no Pool, as it may have no daemon threads")
        return Pool(processes, initializer, initargs, maxtasksperchild, self)

    def Manager(self) -> Any:
        """Refuse: a manager's server starts a daemon thread for each client, and interpreters refuse those."""
        raise NotImplementedError(
            "interpreters have no Manager: its server needs daemon threads, which an interpreter of its own refuses;"
            " use a Value, an Array or a Queue"
        )

    def share(self, obj: Any) -> Any:
        """Refuse: what is shared between processes is looked after by process, and here all children are in one."""
        raise NotImplementedError("interpreters have no share; hand a RawArray over, which all of them map")

    def get_start_method(self, allow_none: bool = False) -> str:
        """The name of this place."""
        return self._name

    def get_context(self, method: Any = None) -> Any:
        """This context, or another by its name."""
        return self if method in (None, self._name) else super().get_context(method)


def interpreter_context() -> InterpreterContext:
    """The context of interpreters.

    Raises:
        NotHere: This Python has none.
    """
    try:
        interpreters()
    except ImportError:
        raise NotHere(
            f"Interpreters are a place since Python 3.14, and this is {platform.python_version()}.",
            "Run it in a later Python, or in a container: docker compose run --rm producer compare --on interpreters",
        ) from None
    mainmodule.install()
    return InterpreterContext()
