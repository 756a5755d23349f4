"""How far a long call has got, on stderr: a bar of rich's around whatever hands out results, in any place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from typing import TYPE_CHECKING, Any, TypeVar, overload

if TYPE_CHECKING:
    from multiprocessing.pool import AsyncResult

    from rich.progress import Progress

T = TypeVar("T")

LOOK = 0.1
"""Seconds between two looks at how much of a map is done."""


@overload
def progress(results: AsyncResult[T], total: int | None = None, label: str = "") -> T: ...


@overload
def progress(results: Iterable[T], total: int | None = None, label: str = "") -> Iterator[T]: ...


def progress(results: Any, total: int | None = None, label: str = "") -> Any:
    """Show how far something has got, where a person sees it: in a terminal or a notebook. Else nothing is shown.

    Args:
        results: What ``Pool.map_async`` (or another that ends in ``_async``) has returned: its value is waited for. Or what
            hands out results one by one: ``Pool.imap``, ``Executor.map``, ``as_completed``, a generator.
        total: How many results there will be; None to find out, which an ``imap`` allows for when it has read its input.
        label: What the bar is about.

    Returns:
        The value, or an iterator over the results.
    """
    if hasattr(results, "ready") and hasattr(results, "get"):
        return _waited_for(results, label)
    return _one_by_one(results, total, label)


def _one_by_one(results: Iterable[T], total: int | None, label: str) -> Iterator[T]:
    if total is None and isinstance(results, Sized):
        total = len(results)
    with _bar() as bar:
        task = bar.add_task(label, total=total)
        for done, result in enumerate(results, 1):
            bar.update(task, completed=done, total=total or getattr(results, "_length", None))
            yield result


def _waited_for(result: Any, label: str) -> Any:
    total = len(result._value) if hasattr(result, "_number_left") else 1
    with _bar() as bar:
        task = bar.add_task(label, total=total)
        while not result.ready():
            result.wait(LOOK)
            left = getattr(result, "_number_left", 1) * getattr(result, "_chunksize", 1)
            bar.update(task, completed=max(0, total - left))
        value = result.get()
        bar.update(task, completed=total)
        return value


def _bar() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(compact=True))
    shown = console.is_jupyter or (console.is_terminal and not console.is_dumb_terminal)
    return Progress(*columns, console=console, refresh_per_second=5, transient=True, disable=not shown)
