"""The locked counter as a job: the same additions without a lock, under one, and as one atomic step.

A read and a write are two steps. Between those of one adder lie those of another, and then one update is lost; the window
between them is held open on purpose (``WINDOW``), so that it shows every time. Under the lock nobody else is in between,
and an atomic addition has no in-between.

Every addition has a *mark* of its own, so that a chunk that is done again, because its worker died before it could say
that it was done, adds nothing twice where counting is exact at all.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from typing import Any, Protocol

import lab
from lab.jobs.job import Arguments, BadArgument, Chunk, Job, Number, Progress, bounded

MODES = ("plain", "locked", "atomic")
WINDOW = 0.001
MOST_TIMES = 1_000


class Cell(Protocol):
    """A shared number, wherever it is kept."""

    def get(self) -> int:
        """Read it."""

    def set(self, value: int) -> None:
        """Write it."""

    def lock(self) -> AbstractContextManager[Any]:
        """Keep everyone else out, as long as they ask too."""

    def set_once(self, value: int, mark: str) -> None:
        """Under the lock: write it together with the mark, unless the mark is known."""

    def add_once(self, mark: str) -> None:
        """Add one in one step, unless the mark is known."""


def split(adders: int, times: int) -> list[Chunk]:
    """Adders as ``(mode, number of the adder, times)``."""
    return [(mode, adder, times) for adder in range(adders) for mode in MODES]


def add(cell: Cell, mode: str, adder: int, times: int) -> int:
    """Add one to a cell, ``times`` times; returns ``times``.

    Raises:
        BadArgument: An argument is out of bounds.
    """
    if mode not in MODES:
        raise BadArgument(f"mode is {mode!r}; it has to be one of {', '.join(MODES)}.")
    for i in range(bounded("times", times, 1, MOST_TIMES)):
        mark = f"{adder}:{i}"
        if mode == "plain":
            value = cell.get()
            time.sleep(WINDOW)  # here another adder reads the same value
            cell.set(value + 1)
        elif mode == "locked":
            with cell.lock():
                cell.set_once(cell.get() + 1, mark)
        else:
            cell.add_once(mark)
    return times


class HostCell:
    """A cell in the memory of this host: a Value and a Lock of multiprocessing. No chunk is done twice here.

    Args:
        ctx: Context of a place on this host.
    """

    def __init__(self, ctx: Any) -> None:
        self._value, self._lock = ctx.Value("q", 0), ctx.Lock()

    def get(self) -> int:
        """Read it."""
        return int(self._value.value)

    def set(self, value: int) -> None:
        """Write it."""
        self._value.value = value

    def lock(self) -> AbstractContextManager[Any]:
        """The lock, to enter."""
        lock: AbstractContextManager[Any] = self._lock
        return lock

    def set_once(self, value: int, mark: str) -> None:
        """Write it."""
        self.set(value)

    def add_once(self, mark: str) -> None:
        """Add one."""
        lab.atomic_add(self._value, 1)


_cells: dict[str, HostCell] = {}


def _use(cells: dict[str, HostCell]) -> None:
    _cells.update(cells)


def _add_here(chunk: Chunk) -> int:
    mode, adder, times = chunk
    return add(_cells[mode], mode, adder, times)


def here(ctx: Any, arguments: Arguments, workers: int, progress: Progress) -> dict[str, int]:
    """All adders on a pool of this host, over cells that its workers are given when they start."""
    cells = {mode: HostCell(ctx) for mode in MODES}
    chunks = split(**arguments)
    with ctx.Pool(min(workers, len(chunks)), _use, (cells,)) as pool:
        added = 0
        for done, times in enumerate(pool.imap_unordered(_add_here, chunks), 1):
            added += times
            progress(done, len(chunks))
    return {**{mode: cell.get() for mode, cell in cells.items()}, "expected": added // len(MODES)}


def read(parts: list[dict[str, int]]) -> dict[str, int]:
    """The values of the cells, which is what their host has put together."""
    (values,) = parts
    return values


def show(_arguments: Arguments, result: Any) -> list[str]:
    """What each way has counted, and lost."""
    lost = {mode: result["expected"] - result[mode] for mode in MODES}
    return [f"{mode:6}  {result[mode]:6} of {result['expected']}, {lost[mode]} lost" for mode in MODES]


JOB = Job(
    summary="Count without a lock, under one, and atomically.",
    parameters=(
        Number("adders", 4, 1, 100, "Chunks that add at the same time, for each of the three ways."),
        Number("times", 50, 1, MOST_TIMES, "Additions of one chunk."),
    ),
    split=split,
    work=add,
    merge=read,
    show=show,
    here=here,
)
