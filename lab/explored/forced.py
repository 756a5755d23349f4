"""A schedule forced on a real place: a context around the place's own, whose operations wait for their turn (``turns``).

Threads, processes and the cluster are forced alike, by what each of them offers under the standard library's names.
"""

from __future__ import annotations

import copy
import queue
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from multiprocessing import context
from multiprocessing import synchronize as standard
from typing import Any

from lab import atomic_add
from lab.explored.schedule import Schedule, Turn
from lab.explored.shared import Held
from lab.explored.turns import PATIENCE, CannotForce, Diverged, Turns, ask, enter, here, take


def _acquired(real: Any, turn: Turn | None, block: bool, timeout: float | None) -> bool:
    if turn is None:
        return bool(real.acquire(block, timeout))
    if turn.expired or turn.result is False:
        return False
    if not real.acquire(True, PATIENCE):
        raise Diverged(f"{turn}: it is not free.")
    return True


class Lock(Held):
    """A lock or a semaphore of the place."""

    def __init__(self, real: Any) -> None:
        self.real = real

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Acquire it, at its turn."""
        with take("acquire" if block else "try") as turn:
            got = _acquired(self.real, turn, block, timeout)
        levels = here().levels
        levels[id(self)] = levels.get(id(self), 0) + got
        return got

    def release(self) -> None:
        """Release it, at its turn."""
        with take("release"):
            self.real.release()
        here().levels[id(self)] = here().levels.get(id(self), 0) - 1

    def locked(self) -> bool:
        """Whether anybody holds it."""
        return bool(ask("locked", self.real.locked))

    def get_value(self) -> int:
        """A semaphore's number."""
        return int(ask("get_value", self.real.get_value))


class Condition(Held):
    """A condition variable of the place. Who waits, and is woken, and when, is the schedule's."""

    wait_for: Any = standard.Condition.wait_for

    def __init__(self, real: Any, lock: Lock) -> None:
        self.real, self._lock = real, lock

    def acquire(self, *args: Any) -> bool:
        """Acquire its lock."""
        return self._lock.acquire(*args)

    def release(self) -> None:
        """Release its lock."""
        self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait to be notified."""
        levels = here().levels.get(id(self._lock), 1)
        with take("wait") as turn:
            if turn is None:
                return bool(self.real.wait(timeout))
            for _ in range(levels):
                self._lock.real.release()
        with take("wake") as turn:
            if turn is None:  # nobody wakes it in the schedule: it waits as the place has it
                for _ in range(levels):
                    self._lock.real.acquire()
                return bool(self.real.wait(timeout))
            if not turn.expired:
                for _ in range(levels):
                    self._lock.real.acquire()
                return True
        for _ in range(levels):
            self._lock.acquire()
        return False

    def notify(self, n: int = 1) -> None:
        """Wake some."""
        with take("notify"):
            self.real.notify(n)

    def notify_all(self) -> None:
        """Wake all."""
        with take("notify"):
            self.real.notify_all()


class Event:
    """An event of the place."""

    def __init__(self, real: Any) -> None:
        self.real = real

    def is_set(self) -> bool:
        """Whether it is set."""
        return bool(ask("is_set", self.real.is_set))

    def set(self) -> None:
        """Set it."""
        with take("set"):
            self.real.set()

    def clear(self) -> None:
        """Unset it."""
        with take("clear"):
            self.real.clear()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for it."""
        with take("wait") as turn:
            if turn is not None and turn.expired:
                return False
            return bool(self.real.wait(timeout if turn is None else PATIENCE))


class Barrier:
    """A barrier of the place."""

    def __init__(self, real: Any) -> None:
        self.real = real

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the others."""
        turns = here()
        with turns.take("arrive") as turn:
            if turn is None:
                return int(self.real.wait(timeout))
            turns.early()  # Excluded: the others wait for this turn to end while it waits for them in the barrier
            index = int(self.real.wait(PATIENCE if turns.has("pass") else None))
        for operation in ("open", "pass"):
            if turns.has(operation):
                with turns.take(operation):
                    pass
        return index

    def abort(self) -> None:
        """Break it."""
        with take("abort"):
            self.real.abort()

    def reset(self) -> None:
        """Make it anew."""
        with take("reset"):
            self.real.reset()

    @property
    def n_waiting(self) -> int:
        """How many wait."""
        return int(ask("n_waiting", lambda: self.real.n_waiting))

    @property
    def broken(self) -> bool:
        """Whether it is broken."""
        return bool(ask("broken", lambda: self.real.broken))


class Value(Held):
    """A Value of the place."""

    def __init__(self, real: Any, lock: Lock | None) -> None:
        vars(self).update(real=real, _lock=lock)

    def get_lock(self) -> Lock:
        """Its lock."""
        lock: Lock | None = self._lock
        if lock is None:
            raise AttributeError("a raw value has no lock")
        return lock

    def get_obj(self) -> Value:
        """The value without its lock."""
        return Value(self.real, None)

    def acquire(self, *args: Any) -> bool:
        """Acquire its lock."""
        return self.get_lock().acquire(*args)

    def release(self) -> None:
        """Release its lock."""
        self.get_lock().release()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "real" or not hasattr(self.real, name):
            raise AttributeError(name)
        with take("read"):
            return getattr(self.real, name)

    def __setattr__(self, name: str, value: Any) -> None:
        with take("write"):
            setattr(self.real, name, value)

    def __getstate__(self) -> Any:
        return dict(vars(self))

    def __setstate__(self, state: Any) -> None:
        vars(self).update(state)

    def __len__(self) -> int:
        return len(self.real)

    def __getitem__(self, index: Any) -> Any:
        with take("read"):
            return self.real[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        with take("write"):
            self.real[index] = value

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))


class Queue:
    """A queue of what the place has: a SimpleQueue, and a semaphore for its room.

    A SimpleQueue has no feeder thread, so what was put first is first, whoever put it.
    """

    def __init__(self, ctx: Any, maxsize: int = 0) -> None:
        self.real, self._maxsize = ctx.SimpleQueue(), maxsize
        self._count, self._unfinished = ctx.Value("i", 0), ctx.Value("i", 0)
        self._room = ctx.Semaphore(maxsize) if maxsize > 0 else None
        self._closed = False

    def _check(self) -> None:
        if self._closed:
            raise ValueError(f"Queue {self!r} is closed")

    def put(self, obj: Any, block: bool = True, timeout: float | None = None) -> None:
        """Append an object."""
        self._check()
        with take("put") as turn:
            if turn is not None and (turn.expired or turn.raised == "Full"):
                raise queue.Full
            if self._room is not None and not self._room.acquire(block, timeout if turn is None else PATIENCE):
                raise queue.Full
            self.real.put(obj)
            atomic_add(self._count, 1)
            atomic_add(self._unfinished, 1)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the oldest object."""
        self._check()
        with take("get") as turn:
            if turn is not None and (turn.expired or turn.raised == "Empty"):
                raise queue.Empty
            if turn is None and not self._filled(block, timeout):
                raise queue.Empty
            obj = self.real.get()
            atomic_add(self._count, -1)
            if self._room is not None:
                self._room.release()
            return obj

    def _filled(self, block: bool, timeout: float | None) -> bool:
        """After the last turn: whether there is something to get, now or in time."""
        if block and timeout is None:
            return True  # the place's own get waits
        deadline = time.monotonic() + (timeout or 0 if block else 0)
        while self.real.empty():
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.002)
        return True

    def put_nowait(self, obj: Any) -> None:
        """Append an object or raise ``queue.Full`` at once."""
        self.put(obj, False)

    def get_nowait(self) -> Any:
        """Take an object or raise ``queue.Empty`` at once."""
        return self.get(False)

    def qsize(self) -> int:
        """How many objects are in it."""
        return int(ask("qsize", lambda: self._count.value))

    def empty(self) -> bool:
        """Whether there is nothing to get."""
        return bool(ask("empty", lambda: self._count.value == 0))

    def full(self) -> bool:
        """Whether there is no room."""
        return bool(ask("full", lambda: 0 < self._maxsize <= self._count.value))

    def task_done(self) -> None:
        """Report one task done."""
        with take("task_done"):
            if self._unfinished.value <= 0:
                raise ValueError("task_done() called too many times")
            atomic_add(self._unfinished, -1)

    def join(self) -> None:
        """Wait until every task is done."""
        with take("join"):
            while self._unfinished.value:
                time.sleep(0.002)

    def close(self) -> None:
        """Give up this handle."""
        self._closed = True

    def join_thread(self) -> None:
        """Return at once."""

    cancel_join_thread = join_thread


class Connection:
    """One end of a pipe of the place."""

    def __init__(self, real: Any) -> None:
        self.real = real

    def send(self, obj: Any) -> None:
        """Send an object."""
        with take("send"):
            self.real.send(obj)

    def recv(self) -> Any:
        """Receive the next object."""
        with take("recv"):
            return self.real.recv()

    def send_bytes(self, *args: Any) -> None:
        """Send bytes."""
        with take("send"):
            self.real.send_bytes(*args)

    def recv_bytes(self, *args: Any) -> bytes:
        """Receive bytes."""
        with take("recv"):
            return bytes(self.real.recv_bytes(*args))

    def poll(self, timeout: float | None = 0.0) -> bool:
        """Whether there is something to receive."""
        return bool(ask("poll", lambda: self.real.poll(0 if here().has("poll") else timeout)))

    def close(self) -> None:
        """Close it."""
        with take("close"):
            self.real.close()

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return bool(self.real.closed)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class Process:
    """A process of the place that knows whose turns it has; ``TurnContext`` makes a class of it for a program."""

    _ctx: TurnContext

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
        parent = here()
        self._key = self._ctx._name_child(parent.worker)
        self._name = name or self._key
        own = type(self).run is not Process.run
        self._target, self._args = target, tuple(_handed_on(arg) for arg in args)
        self._kwargs = {word: _handed_on(arg) for word, arg in (kwargs or {}).items()}
        body = (self.run, (), {}) if own else (target, self._args, self._kwargs)
        self._real = self._ctx.real.Process(group, _child, self._name, (parent.of(self._key), *body), {}, daemon=daemon)
        self._joined = False

    def __getstate__(self) -> Any:
        return {name: value for name, value in vars(self).items() if name != "_real"}

    def run(self) -> None:
        """What the process does."""
        if self._target:
            self._target(*self._args, **self._kwargs)

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has ended."""
        self._real.join(timeout)
        self._joined = self._real.exitcode is not None

    def _question(self, operation: str) -> bool:
        if self._joined:
            return True
        return bool(ask(operation, lambda: self._real.exitcode is not None))

    def is_alive(self) -> bool:
        """Whether it runs."""
        return self._real.pid is not None and not self._question("is_alive")

    @property
    def exitcode(self) -> int | None:
        """Its exit code."""
        if self._question("exitcode"):
            code: int | None = self._real.exitcode
            return code
        return None

    def terminate(self) -> None:
        """End it."""
        with take("terminate"):
            self._real.terminate()
            self._real.join(PATIENCE)

    kill = terminate

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._real, name)


def _handed_on(arg: Any) -> Any:
    """An argument as a child gets it: threads, too, have handles of their own."""
    if isinstance(arg, Queue):
        return copy.copy(arg)
    return Connection(arg.real.for_child()) if isinstance(arg, Connection) and hasattr(arg.real, "for_child") else arg


def _child(turns: Turns, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    enter(turns)
    try:
        if target is not None:
            target(*args, **kwargs)
    finally:
        if turns.has("end"):
            with turns.take("end"):
                pass


class TurnContext(context.BaseContext):
    """A context whose operations wait for their turn.

    Args:
        real: The context of the place.
        schedule: The turns.

    Attributes:
        turns: Those of the program itself.
    """

    _name = "turns"

    def __init__(self, real: Any, schedule: Schedule) -> None:
        self.real, self.place = real, real.place
        gates = {worker: real.Semaphore(0) for worker in schedule.workers}
        self.turns = Turns(schedule.turns, gates, real.Semaphore(0), "main")
        if not schedule.turns:
            self.turns.finished.release()
        self._children: dict[str, int] = {}
        self.Process: Any = type("Process", (Process,), {"_ctx": self, "__module__": __name__})
        self.current_process: Any = real.current_process
        self.parent_process: Any = real.parent_process
        enter(self.turns)

    def _name_child(self, parent: str) -> str:
        number = self._children[parent] = self._children.get(parent, 0) + 1
        return f"Process-{number}" if parent == "main" else f"{parent}:{number}"

    def Lock(self) -> Any:
        """A lock."""
        return Lock(self.real.Lock())

    def RLock(self) -> Any:
        """A recursive lock."""
        return Lock(self.real.RLock())

    def Semaphore(self, value: int = 1) -> Any:
        """A semaphore."""
        return Lock(self.real.Semaphore(value))

    def BoundedSemaphore(self, value: int = 1) -> Any:
        """A bounded semaphore."""
        return Lock(self.real.BoundedSemaphore(value))

    def Condition(self, lock: Any = None) -> Any:
        """A condition variable."""
        lock = lock or self.RLock()
        return Condition(self.real.Condition(lock.real), lock)

    def Event(self) -> Any:
        """An event."""
        return Event(self.real.Event())

    def Barrier(self, parties: int, action: Any = None, timeout: float | None = None) -> Any:
        """A barrier."""
        return Barrier(self.real.Barrier(parties, action, timeout))

    def Queue(self, maxsize: int = 0) -> Any:
        """A queue."""
        return Queue(self.real, maxsize)

    def JoinableQueue(self, maxsize: int = 0) -> Any:
        """A queue that counts its tasks."""
        return Queue(self.real, maxsize)

    def SimpleQueue(self) -> Any:
        """A queue."""
        return Queue(self.real)

    def Pipe(self, duplex: bool = True) -> Any:
        """Two ends."""
        one, other = self.real.Pipe(duplex)
        return Connection(one), Connection(other)

    def Value(self, typecode_or_type: Any, *args: Any, lock: Any = True) -> Any:
        """A Value."""
        return self._locked(self.real.Value, (typecode_or_type, *args), lock)

    def Array(self, typecode_or_type: Any, size_or_initializer: Any, *, lock: Any = True) -> Any:
        """An Array."""
        return self._locked(self.real.Array, (typecode_or_type, size_or_initializer), lock)

    def RawValue(self, *args: Any) -> Any:
        """A Value without a lock."""
        return Value(self.real.RawValue(*args), None)

    def RawArray(self, *args: Any) -> Any:
        """An Array without a lock."""
        return Value(self.real.RawArray(*args), None)

    def _locked(self, make: Callable[..., Any], args: tuple[Any, ...], lock: Any) -> Any:
        if lock is False:
            return Value(make(*args, lock=False), None)
        if isinstance(lock, Lock):
            return Value(make(*args, lock=lock.real), lock)
        real = make(*args)
        return Value(real, Lock(real.get_lock()))

    def Pool(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse."""
        raise CannotForce("The turns of a Pool can be explored, and not forced.", "Its order is in: producer explore")

    def Manager(self) -> Any:
        """Refuse."""
        raise CannotForce(
            "The turns of a Manager can be explored, and not forced.", "Its order is in: producer explore"
        )

    def get_context(self, method: Any = None) -> Any:
        """This context."""
        return self
