"""The context around a context, and the session in which it records."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from multiprocessing import util
from types import TracebackType
from typing import Any

from lab.program import source
from lab.store import run as runs
from lab.store.script import REGISTER
from lab.store.store import Store
from lab.trace import measure, merge
from lab.trace.clock import now
from lab.trace.events import Trace
from lab.trace.futures import FUNCTIONS, traced_executor
from lab.trace.managed import TracedManager
from lab.trace.pool import Begin, TracedPool
from lab.trace.process import traced_process
from lab.trace.queues import TracedConnection, TracedQueue
from lab.trace.recorder import RECORDER, Where, begin_of_thread, end_of_thread
from lab.trace.shared import TracedArray, TracedNumber, TracedValue, traced_array
from lab.trace.synchronize import TracedBarrier, TracedCondition, TracedEvent, TracedLock, TracedRLock
from lab.trace.wrapper import bare

note = RECORDER.note


class TracedContext:
    """A context whose primitives say what is done with them. What it does not name here is the other context's.

    Not traced are objects of ``share``, a manager's pool and its objects of a program's own classes, primitives that a
    library makes by itself, and what a library does with the memory of an array.

    Args:
        inner: The context of any place.
        where: Where the processes hand in their records.
    """

    def __init__(self, inner: Any, where: Where) -> None:
        self._inner, self.where = inner, where
        self._counters: dict[str, Any] = {}
        self.Process = traced_process(inner.Process, where, extend_to_children)

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self._inner, attribute)

    def get_context(self, method: Any = None) -> Any:
        """This context, or another by its name."""
        other = self._inner.get_context(method)
        return self if method is None or other is self._inner else TracedContext(_placed(other, self.place), self.where)

    def _name(self, kind: str, **more: Any) -> str:
        number = next(self._counters.setdefault(kind, itertools.count(1)))
        me = "" if self.where == RECORDER.home else f" of {os.getpid()}"
        name = f"{kind} {number}{me}"
        note(now(), "made", name, 0, {"kind": kind, **more})
        return name

    def _lock(self, kind: str, make: Callable[..., Any], *args: Any, **more: Any) -> TracedLock:
        wrapper = TracedRLock if kind == "RLock" else TracedLock
        return wrapper(make(*args), self._name(kind, **more))

    def Lock(self) -> Any:
        """A lock."""
        return self._lock("Lock", self._inner.Lock, value=1)

    def RLock(self) -> Any:
        """A lock that the thread which holds it may take again."""
        return self._lock("RLock", self._inner.RLock, value=1)

    def Semaphore(self, value: int = 1) -> Any:
        """A number of places."""
        return self._lock("Semaphore", self._inner.Semaphore, value, value=value)

    def BoundedSemaphore(self, value: int = 1) -> Any:
        """A number of places, of which no more can be given back than there were."""
        return self._lock("BoundedSemaphore", self._inner.BoundedSemaphore, value, value=value)

    def Condition(self, lock: Any = None) -> Any:
        """A condition variable."""
        return TracedCondition(self._inner.Condition(bare(lock)), self._name("Condition"), lock)

    def Event(self) -> Any:
        """An event."""
        return TracedEvent(self._inner.Event(), self._name("Event"))

    def Barrier(self, parties: int, action: Any = None, timeout: float | None = None) -> Any:
        """A barrier."""
        return TracedBarrier(self._inner.Barrier(parties, action, timeout), self._name("Barrier", value=parties))

    def Queue(self, maxsize: int = 0) -> Any:
        """A queue."""
        return TracedQueue(self._inner.Queue(maxsize), self._name("Queue"), _bounded=maxsize > 0)

    def JoinableQueue(self, maxsize: int = 0) -> Any:
        """A queue that can be joined."""
        return TracedQueue(self._inner.JoinableQueue(maxsize), self._name("JoinableQueue"), _bounded=maxsize > 0)

    def SimpleQueue(self) -> Any:
        """A queue without a feeder thread."""
        return TracedQueue(self._inner.SimpleQueue(), self._name("SimpleQueue"))

    def Pipe(self, duplex: bool = True) -> Any:
        """A pair of connected ends."""
        name = self._name("Pipe")
        return tuple(TracedConnection(end, name) for end in self._inner.Pipe(duplex))

    def RawValue(self, typecode_or_type: Any, *args: Any) -> Any:
        """A shared value without a lock."""
        return self._value(self._inner.RawValue(typecode_or_type, *args), None)

    def Value(self, typecode_or_type: Any, *args: Any, lock: Any = True) -> Any:
        """A shared value."""
        inner = self._inner.Value(typecode_or_type, *args, lock=bare(lock))
        return self._value(inner, lock if isinstance(lock, TracedLock) else None)

    def Array(self, typecode_or_type: Any, size_or_initializer: Any, *, lock: Any = True) -> Any:
        """A shared array."""
        inner = self._inner.Array(typecode_or_type, size_or_initializer, lock=bare(lock))
        if lock is False:
            return traced_array(inner, self._name("Array"))
        return TracedArray(inner, self._name("Array"), lock if isinstance(lock, TracedLock) else None)

    def RawArray(self, typecode_or_type: Any, size_or_initializer: Any) -> Any:
        """A shared array without a lock."""
        return traced_array(self._inner.RawArray(typecode_or_type, size_or_initializer), self._name("Array"))

    def _value(self, inner: Any, lock: Any) -> TracedValue:
        kind = TracedNumber if hasattr(type(inner), "value") else TracedValue
        return kind(inner, self._name("Value"), lock)

    def Manager(self) -> Any:
        """A manager."""
        return TracedManager(self._inner.Manager(), self._name("Manager"), _new_name=self._name)

    def Pool(
        self,
        processes: int | None = None,
        initializer: Any = None,
        initargs: Any = (),
        maxtasksperchild: int | None = None,
    ) -> Any:
        """A pool."""
        begin = self._begin(initializer)
        return TracedPool(self._inner.Pool(processes, begin, initargs, maxtasksperchild), self._name("Pool"))

    def traced_executor(self, base: type) -> type:
        """The place's executor of ``concurrent.futures``, traced."""
        return traced_executor(base, self._begin, self._name, lambda ctx: getattr(ctx, "_inner", ctx))

    def _begin(self, initializer: Any) -> Begin:
        return Begin(self.where, initializer, extend_to_children)


def extend_to_children(where: Where) -> None:
    """Let what this process makes itself, by its program's own ``import multiprocessing``, be traced as well."""
    own = source.installed()
    if own is not None and own.stand_in is not None and own.stand_in.place == "cluster":
        own.stand_in.functions = FUNCTIONS
        own.stand_in.become(TracedContext(own.stand_in.ctx, where))


def _placed(ctx: Any, place: str) -> Any:
    if not hasattr(ctx, "place"):
        ctx = type(ctx)()  # a new one: the stdlib's is everybody's
        ctx.place = place
    return ctx


class Tracing:
    """The time in which one program is recorded, in this process and in those that it starts.

    Args:
        ctx: The context of its place; a cluster's is connected.
        name: What is run: a concept, a script.

    Attributes:
        trace: What was recorded; there once the ``with`` block has ended.
        cost: What recording costs here (``measure.cost``).
    """

    def __init__(self, ctx: Any, name: str) -> None:
        self._ctx, self._concept = ctx, name
        self._began = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._folder = tempfile.mkdtemp(prefix="crosshost-trace-")
        # the last of what is done at the end, also of a program that was interrupted before it began
        self._discard = util.Finalize(self, shutil.rmtree, (self._folder, True), exitpriority=-100)
        self.where: Where = ("file", self._folder)
        self._taken: list[bytes] = []
        if ctx.place == "cluster":
            self.where = ("redis", self._list())
        self.trace: Trace | None = None
        self.cost = measure.cost(self._scratch())

    def _list(self) -> str:
        """The key of a new list, registered with the run."""
        run = self._ctx.connect()
        key: str = run.new_name("trace")
        run.eval(REGISTER, [key])
        return key

    def _scratch(self) -> Where:
        kind, place = self.where
        if kind == "redis":
            return kind, self._list()
        scratch = os.path.join(place, "scratch")
        os.mkdir(scratch)
        return kind, scratch

    @property
    def context(self) -> TracedContext:
        """The context to run the program in."""
        return TracedContext(self._ctx, self.where)

    def begin(self) -> TracedContext:
        """Record from now on; the context to run the program in."""
        if not RECORDER.begin(self.where):
            raise RuntimeError("this process is being traced already")
        RECORDER.home = self.where
        begin_of_thread("main")
        return self.context

    def note(self, event: str, **more: Any) -> None:
        """Enter something that is not done by the program."""
        note(now(), event, "", 0, more)

    def end(self, code: int = 0) -> Trace:
        """Record no more; what was recorded. Processes that still run are shown as far as they were heard of."""
        end_of_thread(code)
        return self.gather()

    def gather(self) -> Trace:
        """Record no more; what was recorded. In any thread, while the main one is in the middle of something."""
        RECORDER.close()
        RECORDER.home = None
        chunks = [*merge.from_folder(self._folder), *self._from_redis()]
        self._discard()
        run = {"concept": self._concept, "place": self._ctx.place, "began": self._began, "cost": self.cost}
        self.trace = merge.merged(chunks, run)
        return self.trace

    def _from_redis(self) -> list[Any]:
        run = runs.current() if self.where[0] == "redis" else None
        if run is None:
            return []
        # Excluded, by a connection of its own: waiting for the program's commands, which have been interrupted by a signal.
        store, key, found = Store(run.settings.broker_url, outage=run.store.outage), self.where[1], list[Any]()
        while blobs := store.call("LPOP", key, 100):
            found += [merge.loaded(run.unseal(key, blob)) for blob in blobs]
        return found

    def __enter__(self) -> TracedContext:
        return self.begin()

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.end(int(kind is not None))
