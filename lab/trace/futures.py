"""Executors of ``concurrent.futures``, traced: a future is a call like one of a pool's.

Seen is who waits in ``result``, ``exception``, ``wait`` and ``as_completed``, and for which calls; not who waits in an event
loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from functools import cache
from itertools import islice
from typing import Any

from lab.trace.clock import now
from lab.trace.pool import Begin, Call
from lab.trace.recorder import RECORDER
from lab.trace.wrapper import note

MOST = 100
"""Calls that an event names of those that are waited for."""


def traced_executor(base: Any, begin: Callable[[Any], Begin], new_name: Callable[[str], str], bare: Any) -> type:
    """The class of traced executors of a place: its own one, which says what it is asked for.

    Args:
        base: The place's class.
        begin: Makes the initializer of its workers of the program's own.
        new_name: Names an executor.
        bare: Takes the tracing off a context.
    """

    class TracedExecutor(base):  # type: ignore[misc]
        """An executor that is traced."""

        maps_together = False  # each call has events of its own

        def __init__(
            self,
            max_workers: int | None = None,
            mp_context: Any = None,
            initializer: Any = None,
            initargs: tuple[Any, ...] = (),
            **options: Any,
        ) -> None:
            begins = begin(initializer)  # first: what is refused has no name
            self._traced = new_name("Executor")
            super().__init__(max_workers, bare(mp_context), begins, initargs, **options)

        def _numbered(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Call, tuple[Any, ...]]:
            number = RECORDER.number()
            note(now(), "asked", self._traced, 0, {"item": number, "count": 1})
            return Call(fn, self._traced, args), (number, *args)

        def _watched(self, future: Any, number: int) -> Any:
            future.__class__ = _traced_future(future.__class__)
            future._traced, future._number = self._traced, number
            return future

        if hasattr(base, "_submit"):  # through which a map of the cluster's goes too

            def _submit(self, future: Any, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
                call, args = self._numbered(fn, args)
                return self._watched(super()._submit(future, call, args, kwargs), args[0])

        else:

            def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
                call, args = self._numbered(fn, args)
                return self._watched(super().submit(call, *args, **kwargs), args[0])

    TracedExecutor.__name__, TracedExecutor.__qualname__ = base.__name__, base.__qualname__
    return TracedExecutor


@cache
def _traced_future(base: Any) -> Any:
    class TracedFuture(base):  # type: ignore[misc]
        """A future whose waiters are traced."""

        _traced: str
        _number: int

        def result(self, timeout: float | None = None) -> Any:
            return self._awaited(super().result, timeout)

        def exception(self, timeout: float | None = None) -> Any:
            return self._awaited(super().exception, timeout)

        def _awaited(self, ask: Callable[[float | None], Any], timeout: float | None) -> Any:
            if self.done():
                return ask(timeout)
            note(now(), "waits", self._traced, 0, {"items": [self._number]})
            try:
                return ask(timeout)
            finally:
                _woken(self._traced, [self])

    TracedFuture.__name__, TracedFuture.__qualname__ = base.__name__, base.__qualname__
    return TracedFuture


def _woken(name: str, awaited: Iterable[Any]) -> None:
    """Note the end of a wait: which of the calls have ended, or that it was given up."""
    ended = list(islice((future._number for future in awaited if future.done()), MOST))
    note(now(), "woken" if ended else "gave up", name, 0, {"items": ended} if ended else None)


def _awaited(fs: Iterable[Any]) -> list[Any]:
    """The traced ones among futures that are not done."""
    return [future for future in fs if hasattr(future, "_traced") and not future.done()]


def wait(fs: Iterable[Any], timeout: float | None = None, return_when: str = futures.ALL_COMPLETED) -> Any:
    """``concurrent.futures.wait``, traced."""
    fs = list(fs)
    awaited = _awaited(fs)
    if not awaited or (return_when == futures.FIRST_COMPLETED and any(future.done() for future in fs)):
        return futures.wait(fs, timeout, return_when)
    name = awaited[0]._traced
    note(now(), "waits", name, 0, {"items": [future._number for future in awaited[:MOST]]})
    try:
        return futures.wait(fs, timeout, return_when)
    finally:
        _woken(name, awaited)


def as_completed(fs: Iterable[Any], timeout: float | None = None) -> Iterator[Any]:
    """``concurrent.futures.as_completed``, traced."""
    fs = set(fs)
    pending = {future._number: future for future in _awaited(fs)}
    name = next(iter(pending.values()))._traced if pending else ""
    ended: list[None] = []  # one for each that is done: an append is one step, in whichever thread
    for future in pending.values():
        future.add_done_callback(lambda _: ended.append(None))
    given, before = 0, len(fs) - len(pending)
    found = futures.as_completed(fs, timeout)
    while True:
        waits = bool(pending) and given >= before + len(ended)
        if waits:
            note(now(), "waits", name, 0, {"items": list(islice(pending, MOST))})
        future = None
        try:
            future = next(found, None)
        finally:
            if waits:
                _woken(name, [future] if hasattr(future, "_traced") else [])
        if future is None:
            return
        given += 1
        pending.pop(getattr(future, "_number", None), None)
        yield future
        del future  # as the standard library's, keep it no longer than whoever asked


FUNCTIONS = {"wait": wait, "as_completed": as_completed}
"""What a traced script finds in ``concurrent.futures`` in place of the standard library's."""
