"""What is left of an ``Executor.map``: its calls go in chunks of about a millisecond, and nobody can tell that they do.

Each is packed by itself, and so is its result. When one takes longer than expected, a thread of its worker sends the results
that are there, and gives back what is not begun (``pool.taken``): nothing waits behind it. A chunk whose worker died is not
run again as it was: its calls go one by one, so that the one that killed it is lost alone. What takes long travels alone.

"With the lock held" is the executor's lock.
"""

from __future__ import annotations

import pickle
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import pool
from typing import Any

from lab import byvalue
from lab.buffers import Packer, nested
from lab.cluster import call
from lab.cluster.pool import taken
from lab.cluster.pool.pending import Many
from lab.errors import WorkerLost
from lab.fleet.counts import COUNTER

CHUNK_SECONDS, CHUNK_BYTES, MOST_CALLS = 0.0015, 1 << 16, 256
"""What a chunk takes its worker, by the calls before it; and at the most, likewise by bytes, and calls."""
FAIR = 4
"""Chunks for each worker that what is left would still make, so that they end together."""

Item = tuple[int, Any]
"""A call's place among the results, and its arguments, or what became of it."""


class Mapped:
    """The calls of a map that wait, and the results that nobody has taken.

    Args:
        fn: What is called.
        workers: How many take calls.
    """

    def __init__(self, fn: Callable[..., Any], workers: int) -> None:
        self.fn = fn
        self._fair = FAIR * workers
        self._rest: deque[Item] = deque()
        self._suspects: deque[Item] = deque()  # of chunks that were lost
        self._count = 0
        self._part = 0.0  # of a chunk, that a call is; a moving average
        self._outcomes: dict[int, tuple[bool, Any]] = {}
        self._awaited = -1
        self._left = False
        self._changed = threading.Condition()

    def __bool__(self) -> bool:
        return bool(self._suspects or self._rest)

    def add(self, args: tuple[Any, ...]) -> None:
        """One more call; with the lock held."""
        self._rest.append((self._count, args))
        self._count += 1

    def next_chunk(self) -> Chunk | None:
        """What to hand over next; with the lock held."""
        suspects, rest = self._suspects, self._rest  # the same for all that follows, whoever leaves meanwhile
        if suspects:
            return Chunk(self, [suspects.popleft()])
        size = min(MOST_CALLS, int(1 / self._part) if self._part else 1, len(rest) // self._fair)
        return Chunk(self, [rest.popleft() for _ in range(max(1, size))]) if rest else None

    def put_back(self, items: list[Item], suspect: bool = False) -> None:
        """Calls that were not begun, or were under suspicion; with the lock held."""
        if not self._left:
            (self._suspects if suspect else self._rest).extendleft(reversed(items))

    def learn(self, part: float) -> None:
        """How much of a chunk a call was; with the lock held."""
        self._part = (self._part + part) / 2 if self._part else part

    def settle(self, outcomes: Iterable[tuple[int, tuple[bool, Any]]]) -> None:
        """What became of some calls."""
        with self._changed:
            if not self._left:
                self._outcomes.update(outcomes)
            if self._awaited in self._outcomes:
                self._changed.notify()

    def end(self, exc: BaseException) -> None:
        """Every call that waits ends with an error; with the lock held."""
        ended = [*self._suspects, *self._rest]
        self._leave()
        self.settle([(n, (False, exc)) for n, _ in ended])

    def results(self, deadline: float | None) -> Iterator[Any]:
        """The results in order. Who stops taking them cancels what waits."""
        try:
            for n in range(self._count):
                yield self._take(n, deadline)
        finally:
            with self._changed:
                self._left = True
                self._outcomes.clear()
            self._leave()

    def _leave(self) -> None:
        self._rest, self._suspects = deque(), deque()

    def _take(self, n: int, deadline: float | None) -> Any:
        if n not in self._outcomes:
            with self._changed:
                self._awaited = n
                left = None if deadline is None else deadline - time.monotonic()
                if not self._changed.wait_for(lambda: n in self._outcomes, left):
                    raise TimeoutError
        success, value = self._outcomes.pop(n)
        if success:
            return value
        try:
            raise value
        finally:
            del value  # or it and this frame would keep each other


class Chunk:
    """Calls that travel together.

    Args:
        mapped: Whose they are.
        items: The calls.
    """

    def __init__(self, mapped: Mapped, items: list[Item]) -> None:
        self.mapped, self._items, self._bytes = mapped, items, 0
        self.many = len(items) > 1

    def __reduce__(self) -> tuple[Any, ...]:
        """The calls that can be packed; the others end here. Not with the lock held: it runs code of the user's."""
        packer, packed, items = Packer(), list[Any](), list[Item]()
        for item in self._items:
            try:
                packed.append(nested((self.mapped.fn, item[1], {}), packer))
            except BaseException as exc:  # noqa: BLE001 - as in the pool: it is the error of this call, whatever it is
                self.mapped.settle([(item[0], (False, exc))])
                continue
            items.append(item)
        self._items = items
        self._bytes = sum(memoryview(part).nbytes for parts in packed for part in parts)
        return call.arrived, tuple(packed)

    def answer(self, answer: tuple[float, list[Any]]) -> None:
        """All are done."""
        self.mapped.settle([(n, call.outcome(it)) for (n, _), it in zip(self._items, answer[1], strict=True)])

    def set_exception(self, exc: BaseException) -> None:
        """All end with an error."""
        self.mapped.settle([(n, (False, exc)) for n, _ in self._items])

    def learn(self, answer: Any) -> bool:
        """Hear of the end, before the next is handed over; whether some go again. With the lock held."""
        if isinstance(answer, WorkerLost) and self.many:
            self.mapped.put_back(self._items, suspect=True)
            self._items = []
            return True
        if isinstance(answer, tuple) and self._items:
            self.mapped.learn(max(answer[0] / CHUNK_SECONDS, self._bytes / CHUNK_BYTES) / len(self._items))
        return False

    def divide(self, answer: tuple[float, list[Any]]) -> Chunk:
        """Keep the call that runs, put those behind it back; a chunk of those that are done. With the lock held."""
        self.many = False
        done = len(answer[1])
        self.mapped.learn(answer[0] / CHUNK_SECONDS / (done + 1))
        self.mapped.put_back(self._items[done + 1 :])
        before, self._items = Chunk(self.mapped, self._items[:done]), self._items[done : done + 1]
        return before


class Sent(pool.ApplyResult):  # type: ignore[type-arg]
    """The pool's result of a chunk.

    Args:
        owner: The pool.
        chunk: The chunk.
        callbacks: For its answer, its error, and its answer so far if it was divided.
    """

    def __init__(self, owner: Any, chunk: Chunk, *callbacks: Callable[[Any], object]) -> None:
        *of_the_end, self._divided = callbacks
        super().__init__(owner, *of_the_end)
        task: tuple[Any, ...] = (self._job, 0, perform, (chunk,), {})  # type: ignore[attr-defined]
        owner._taskqueue.put(([Many(task) if chunk.many else task], None))

    def _set(self, index: int, outcome: tuple[bool, Any]) -> None:
        if index == taken.DIVIDED:
            self._divided(outcome[1])
        else:
            super()._set(index, outcome)  # type: ignore[misc]


def perform(calls: Iterable[Any]) -> tuple[float, list[Any]]:
    """In a worker: run the calls of a chunk; how long it took, and their packed outcomes."""
    return _Begun(calls).run()


class _Begun:
    """In a worker: a chunk that runs."""

    def __init__(self, calls: Iterable[Any]) -> None:
        self._rest = deque(calls)
        self._many = len(self._rest) > 1
        self._runs: Any = None
        self._as_it_came: Any = None
        self._done: list[Any] = []
        self._turn = threading.Lock()
        self._begun = time.perf_counter()

    def run(self) -> tuple[float, list[Any]]:
        """Run what is not given back; what was not sent before."""
        packer, counted = Packer(kind=byvalue.ResultPickler), self._begun
        self._next()
        if self._many and taken.here is not None:
            taken.here.share(self)
        while self._runs is not None:
            self._next(self._kept(call.perform(self._runs, packer)))
            if self._many:
                before, counted = counted, time.perf_counter()
                COUNTER.call(counted - before, True)
        return self._so_far()

    def _next(self, *done: Any) -> None:
        with self._turn:  # excluded: being divided when one has ended, and is not among those that are done
            self._done += done
            self._runs = self._rest.popleft() if self._rest else None
            self._as_it_came = self._runs and self._kept(self._runs)

    def _kept(self, packed: tuple[Any, ...]) -> tuple[Any, ...]:
        """What is packed, until the chunk is answered. Excluded: an array that a call has changed by then."""
        if len(packed) == 1 or not self._many:
            return packed
        return packed[0], *(pickle.PickleBuffer(bytearray(part)) for part in packed[1:])

    def _so_far(self) -> tuple[float, list[Any]]:
        return time.perf_counter() - self._begun, self._done

    def divide(self) -> tuple[Any, Any] | None:
        """Keep the call that runs: what is done, and the call of a chunk that is left; None if there is nothing else."""
        with self._turn:
            if self._runs is None or not (self._rest or self._done):
                return None
            so_far, self._done = self._so_far(), []
            self._rest.clear()
            return so_far, (perform, ((tuple(map(pickle.PickleBuffer, self._as_it_came)),),))
