"""Pool: a team of explored processes that take chunks from a queue.

Differs from multiprocessing: workers that die are not replaced, and callbacks run in the process that waits for the result.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from multiprocessing import TimeoutError as PoolTimeout
from multiprocessing import pool
from typing import Any

from lab.explored.process import Process
from lab.explored.queues import SimpleQueue
from lab.explored.scheduler import active
from lab.explored.shared import Packed, Shared

_ENOUGH = None
_Pool: Any = pool.Pool
_starmapstar: Any = vars(pool)["starmapstar"]  # not among the stubs


class _Answers(Shared):
    """What has come back, by number of the chunk."""

    kind = "results"

    def __init__(self) -> None:
        super().__init__()
        self._chunks: dict[int, Packed] = {}

    def state(self) -> Any:
        """Which chunks have come back, with what."""
        return tuple((number, chunk.state()) for number, chunk in sorted(self._chunks.items()))

    def show(self) -> str:
        """How many chunks have come back."""
        return f"{len(self._chunks)} back"

    def put(self, number: int, answer: Any) -> None:
        """Bring a chunk back."""
        packed = Packed(answer)
        self._do("answer", lambda: self._chunks.__setitem__(number, packed), part=number)

    def has(self, numbers: range) -> bool:
        """Whether all of them are back; no operation."""
        return all(number in self._chunks for number in numbers)

    def wait(self, numbers: range, timeout: float | None) -> bool:
        """Wait for them."""
        also = tuple(self.touch(False, number) for number in numbers[1:])
        if not numbers:
            return True
        part = numbers[0]
        return bool(
            self._do(
                "wait", lambda: True, lambda: self.has(numbers), writes=False, part=part, also=also, timeout=timeout
            )
        )

    def first_of(self, numbers: list[int]) -> int:
        """Wait for one of them; its number."""

        def found() -> int:
            return next(number for number in self._chunks if number in numbers)

        return int(self._do("wait", found, lambda: any(number in self._chunks for number in numbers), writes=False))

    def take(self, number: int) -> list[tuple[bool, Any]]:
        """What one brought back."""
        answer: list[tuple[bool, Any]] = self._chunks[number].open()
        return answer


def _work(
    tasks: SimpleQueue, answers: _Answers, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]
) -> None:
    if initializer is not None:
        initializer(*initargs)
    while (task := tasks.get()) is not _ENOUGH:
        number, function, calls = task
        answers.put(number, [_call(function, args, kwargs) for args, kwargs in calls])


def _call(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[bool, Any]:
    try:
        return True, function(*args, **kwargs)
    except Exception as exc:  # noqa: BLE001 - it is the caller's
        return False, exc


class AsyncResult:
    """What a call, or a map, will give."""

    def __init__(self, pool: Pool, numbers: range, single: bool, callback: Any, error_callback: Any) -> None:
        self._pool, self._numbers, self._single = pool, numbers, single
        self._callback, self._error_callback, self._known = callback, error_callback, False

    def wait(self, timeout: float | None = None) -> None:
        """Wait until it is there, at most ``timeout`` seconds."""
        self._pool._answers.wait(self._numbers, timeout)

    def ready(self) -> bool:
        """Whether it is there."""
        return bool(self._pool._answers._do("ready", lambda: self._pool._answers.has(self._numbers), writes=False))

    def get(self, timeout: float | None = None) -> Any:
        """The result, or what the function raised.

        Raises:
            multiprocessing.TimeoutError: It was not there in time.
        """
        if not self._pool._answers.wait(self._numbers, timeout):
            raise PoolTimeout
        outcomes = [outcome for number in self._numbers for outcome in self._pool._answers.take(number)]
        failed = next((value for well, value in outcomes if not well), None)
        first, self._known = not self._known, True
        if failed is not None:
            if first and self._error_callback:
                self._error_callback(failed)
            raise failed
        value = outcomes[0][1] if self._single else [value for _, value in outcomes]
        if first and self._callback:
            self._callback(value)
        return value

    def successful(self) -> bool:
        """Whether the function returned.

        Raises:
            ValueError: It has not ended.
        """
        if not self.ready():
            raise ValueError(f"{self!r} not ready")
        return all(well for number in self._numbers for well, _ in self._pool._answers.take(number))


class Results:
    """The results of an imap, one by one; one that is an exception is raised, and the next one follows."""

    def __init__(self, answers: _Answers, numbers: range, ordered: bool) -> None:
        self._answers, self._left, self._ordered = answers, list(numbers), ordered
        self._here: list[tuple[bool, Any]] = []

    def __iter__(self) -> Results:
        return self

    def __next__(self) -> Any:
        return self.next()

    def next(self, timeout: float | None = None) -> Any:
        """The next one.

        Raises:
            multiprocessing.TimeoutError: It was not there in time.
            StopIteration: There is none.
        """
        while not self._here:
            if not self._left:
                raise StopIteration
            number = self._left[0]
            if not self._ordered:
                number = self._answers.first_of(self._left)
            elif not self._answers.wait(range(number, number + 1), timeout):
                raise PoolTimeout
            self._left.remove(number)
            self._here = self._answers.take(number)
        well, value = self._here.pop(0)
        if not well:
            raise value
        return value


class Pool:
    """A team of processes."""

    apply, map, starmap = _Pool.apply, _Pool.map, _Pool.starmap
    map_async, starmap_async = _Pool.map_async, _Pool.starmap_async

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
    ) -> None:
        if processes is not None and processes < 1:
            raise ValueError("Number of processes must be at least 1")
        del maxtasksperchild
        active().unforced = "a Pool"
        self._tasks, self._answers = SimpleQueue(), _Answers()
        self._tasks._items.label = "tasks"
        self._open, self._numbers = True, itertools.count()
        self._pending: list[AsyncResult] = []
        self._workers = [
            Process(target=_work, args=(self._tasks, self._answers, initializer, tuple(initargs)), daemon=True)
            for _ in range(processes or 2)
        ]
        for worker in self._workers:
            worker.start()

    def _send(self, function: Any, chunks: list[list[Any]], single: bool, callback: Any, failed: Any) -> AsyncResult:
        if not self._open:
            raise ValueError("Pool not running")
        numbers = [next(self._numbers) for _ in chunks]
        for number, calls in zip(numbers, chunks, strict=True):
            try:
                self._tasks.put((number, function, calls))
            except Exception as exc:  # noqa: BLE001 - it is told to whoever asks for the result, as what does not pickle is
                self._answers.put(number, [(False, exc)])
        span = range(numbers[0], numbers[-1] + 1) if numbers else range(0)
        result = AsyncResult(self, span, single, callback, failed)
        if callback or failed:
            self._pending.append(result)
        return result

    def _chunks(self, calls: list[Any], chunksize: int | None) -> list[list[Any]]:
        if chunksize is None:
            chunksize, extra = divmod(len(calls), len(self._workers) * 4)
            chunksize += bool(extra)
        size = max(chunksize, 1)
        return [calls[at : at + size] for at in range(0, len(calls), size)]

    def apply_async(
        self, func: Any, args: Iterable[Any] = (), kwds: Any = None, callback: Any = None, error_callback: Any = None
    ) -> AsyncResult:
        """Call a function in a worker."""
        return self._send(func, [[(tuple(args), dict(kwds or {}))]], True, callback, error_callback)

    def _map_async(
        self,
        func: Any,
        iterable: Iterable[Any],
        mapper: Any,
        chunksize: int | None = None,
        callback: Any = None,
        error_callback: Any = None,
    ) -> AsyncResult:
        calls: list[Any] = [(tuple(item) if mapper is _starmapstar else (item,), {}) for item in iterable]
        return self._send(func, self._chunks(calls, chunksize), False, callback, error_callback)

    def imap(self, func: Any, iterable: Iterable[Any], chunksize: int = 1) -> Iterator[Any]:
        """Results one by one, in the order of the items."""
        return Results(self._answers, self.map_async(func, iterable, chunksize)._numbers, ordered=True)

    def imap_unordered(self, func: Any, iterable: Iterable[Any], chunksize: int = 1) -> Iterator[Any]:
        """Results one by one, as they come."""
        return Results(self._answers, self.map_async(func, iterable, chunksize)._numbers, ordered=False)

    def close(self) -> None:
        """Take no more calls."""
        if self._open:
            self._open = False
            for _ in self._workers:
                self._tasks.put(_ENOUGH)

    def terminate(self) -> None:
        """End the workers where they stand."""
        self._open = False
        for worker in self._workers:
            worker.terminate()

    def join(self) -> None:
        """Wait for the workers.

        Raises:
            ValueError: The pool is neither closed nor terminated.
        """
        if self._open:
            raise ValueError("Pool is still running")
        for result in self._pending:
            if not result._known:
                with suppress(Exception):  # its callback has been told
                    result.get()
        for worker in self._workers:
            worker.join()

    def __enter__(self) -> Pool:
        if not self._open:
            raise ValueError("Pool not running")
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.terminate()
