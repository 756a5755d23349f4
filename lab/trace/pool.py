"""Pools, traced: each call has a number, under which it is asked for here, begins there, and ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from multiprocessing import util
from typing import Any, Self

from lab import local
from lab.trace.clock import now
from lab.trace.process import Extend
from lab.trace.recorder import RECORDER, Where, begin_of_thread, end_of_thread, end_when_told
from lab.trace.wrapper import Traced, note

_CHUNKS = ("concurrent.", "lab.cluster.")
"""What the functions are of that call a program's for each item of a chunk."""


class Begin:
    """The initializer of a traced pool's workers: begins their record, and then is the one that was given.

    Args:
        where: Where a worker hands in its record.
        initializer: The program's own.
        extend: Has what a worker makes itself be traced as well.
    """

    def __init__(self, where: Where, initializer: Callable[..., object] | None, extend: Extend) -> None:
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        self.where, self.initializer, self.extend = where, initializer, extend

    def __call__(self, *initargs: Any) -> None:
        """Begin."""
        mine = RECORDER.begin(self.where)
        begin_of_thread(local.current_process().name)
        if mine:
            end_when_told()
            self.extend(self.where)
            util.Finalize(None, _end, exitpriority=5)
        if self.initializer is not None:
            self.initializer(*initargs)


def _end() -> None:
    end_of_thread(0)
    RECORDER.close()


class Call:
    """A function as a worker calls it, with the number of the call.

    Args:
        function: The program's.
        pool: The pool's name.
        args: What it is called with, if that is known.
    """

    def __init__(self, function: Any, pool: str, args: tuple[Any, ...] = ()) -> None:
        self.function, self.pool = function, pool
        while True:
            if isinstance(function, partial):
                function, args = function.func, (*function.args, *args)
            elif args and callable(args[0]) and str(getattr(function, "__module__", "")).startswith(_CHUNKS):
                function, args = args[0], ()  # a chunk of a map: the program's function is in it
            else:
                break
        self.name = getattr(function, "__name__", type(function).__name__)

    def __call__(self, number: int, *args: Any, **kwds: Any) -> Any:
        """Call it."""
        note(now(), "begun", self.pool, 0, {"item": number, "call": self.name})
        RECORDER.hasten()
        try:
            result = self.function(*args, **kwds)
        except BaseException as exc:
            note(now(), "done", self.pool, 0, {"item": number, "error": type(exc).__name__})
            raise
        note(now(), "done", self.pool, 0, {"item": number})
        return result


class CallOfOne(Call):
    """The same for functions that are mapped: number and argument come as one."""

    def __call__(self, numbered: Any) -> Any:
        """Call it with the one argument."""
        return super().__call__(*numbered)


class TracedResult(Traced):
    """Around an ``AsyncResult``."""

    def get(self, timeout: float | None = None) -> Any:
        """Wait for the result; an exception of the call ends the wait as well as its value."""
        self.wait(timeout)
        return self._inner.get(timeout if timeout is None else 0)

    def wait(self, timeout: float | None = None) -> None:
        """Wait until it is there."""
        self._wait(self._inner.wait, timeout)
        note(now(), "woken" if self._inner.ready() else "gave up", self._name)


class TracedResults(Traced):
    """Around the iterator that ``imap`` returns."""

    def __iter__(self) -> Self:
        return self

    def next(self, timeout: float | None = None) -> Any:
        """The next result."""
        result = self._wait(self._inner.next, timeout)
        note(now(), "woken", self._name)
        return result

    __next__ = next


class TracedPool(Traced):
    """Around a Pool."""

    def _numbered(self, iterable: Iterable[Any]) -> list[tuple[Any, ...]]:
        items = list(iterable)
        numbers = RECORDER.numbers(len(items))
        note(now(), "asked", self._name, 0, {"item": numbers.start, "count": len(items)})
        return list(zip(numbers, items, strict=True))

    def _one_by_one(self, iterable: Iterable[Any]) -> Iterator[tuple[Any, ...]]:
        for item in iterable:
            number = RECORDER.number()
            note(now(), "asked", self._name, 0, {"item": number, "count": 1})
            yield number, item

    def apply_async(
        self, func: Any, args: Iterable[Any] = (), kwds: Any = None, callback: Any = None, error_callback: Any = None
    ) -> TracedResult:
        """Ask for one call."""
        number = RECORDER.number()
        note(now(), "asked", self._name, 0, {"item": number, "count": 1})
        call = Call(func, self._name)
        return self._result(self._inner.apply_async(call, (number, *args), kwds or {}, callback, error_callback))

    def apply(self, func: Any, args: Iterable[Any] = (), kwds: Any = None) -> Any:
        """Ask for one call, and wait for it."""
        return self.apply_async(func, args, kwds).get()

    def map_async(
        self, func: Any, iterable: Any, chunksize: Any = None, callback: Any = None, error_callback: Any = None
    ) -> Any:
        """Ask for a call with each item."""
        call, items = CallOfOne(func, self._name), self._numbered(iterable)
        return self._result(self._inner.map_async(call, items, chunksize, callback, error_callback))

    def map(self, func: Any, iterable: Any, chunksize: Any = None) -> Any:
        """Ask, and wait for all."""
        return self.map_async(func, iterable, chunksize).get()

    def starmap_async(
        self, func: Any, iterable: Any, chunksize: Any = None, callback: Any = None, error_callback: Any = None
    ) -> Any:
        """Ask for a call with the arguments in each item."""
        call = Call(func, self._name)
        items = [(number, *args) for number, args in self._numbered(iterable)]
        return self._result(self._inner.starmap_async(call, items, chunksize, callback, error_callback))

    def starmap(self, func: Any, iterable: Any, chunksize: Any = None) -> Any:
        """Ask, and wait for all."""
        return self.starmap_async(func, iterable, chunksize).get()

    def imap(self, func: Any, iterable: Any, chunksize: int = 1) -> Any:
        """Ask as the workers get on."""
        return self._results(self._inner.imap(CallOfOne(func, self._name), self._one_by_one(iterable), chunksize))

    def imap_unordered(self, func: Any, iterable: Any, chunksize: int = 1) -> Any:
        """The same, in whatever order results come."""
        call = CallOfOne(func, self._name)
        return self._results(self._inner.imap_unordered(call, self._one_by_one(iterable), chunksize))

    def _result(self, inner: Any) -> TracedResult:
        return TracedResult(inner, self._name)

    def _results(self, inner: Any) -> Any:
        # with chunks, the stdlib returns a generator, which has no next() that could be given a timeout
        return TracedResults(inner, self._name) if hasattr(inner, "next") else self._each(inner)

    def _each(self, results: Iterator[Any]) -> Iterator[Any]:
        while True:
            try:
                result = self._wait(next, results)
            except StopIteration:
                return
            note(now(), "woken", self._name)
            yield result

    def join(self) -> None:
        """Wait for the workers to leave."""
        self._wait(self._inner.join)
        note(now(), "woken", self._name)

    def __enter__(self) -> Self:
        self._inner.__enter__()
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self._inner.__exit__(*exc_info)
