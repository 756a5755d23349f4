"""One order as a grid: workers as columns, steps as rows, the line in the cell, what is shared at the right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lab.explored.naming import text_of
from lab.explored.operation import Place, Step, lost
from lab.explored.search import Run

if TYPE_CHECKING:
    from rich.console import RenderableType

    from producer.explore.program import Program

WIDTH = 80
MOST_COLUMNS = 4
"""With more workers their names stand in the cell, in one column."""

MOST_ROWS = 60


@dataclass
class Row:
    """A row of the grid.

    Attributes:
        number: Of the step, from 1; 0 for what never came.
        worker: Whose step it is.
        where: The line.
        does: The operation, and its result.
        mark: ``stale`` and ``destroys`` with the number of the step that it is about; ``waits``.
        state: What it touched, afterwards.
    """

    number: int
    worker: str
    where: Place
    does: str
    mark: str = ""
    state: str = ""


def rows_of(run: Run) -> list[Row]:
    """The rows of a run that has its details."""
    steps = [step for step in run.trace if step.choice is not None or step.expired]
    rows = [
        Row(number, step.worker, step.where, _does(step), state=_state(step))
        for number, step in enumerate(steps, start=1)
    ]
    _mark(steps, rows)
    for blocked in run.holds:
        rows.append(Row(0, blocked.worker, blocked.where, f"{blocked.kind} {blocked.what}".strip(), "waits for ever"))
    return rows


def once(rows: list[Row], cycle: int, most: int = MOST_ROWS) -> tuple[list[Row], str]:
    """The rows with what is repeated for ever only once, or without the middle of what is too long; and what is left out."""
    count = len(rows)

    def same(one: Row, other: Row) -> bool:
        return (one.worker, one.where, one.does) == (other.worker, other.where, other.does)

    while cycle and len(rows) >= 2 * cycle and all(map(same, rows[-cycle:], rows[-2 * cycle : -cycle])):
        rows = rows[:-cycle]
    if len(rows) < count:
        return (
            rows,
            f"and so on for ever: {'this last step' if cycle == 1 else f'these last {cycle} steps'} again and again",
        )
    if count > most:
        half = most // 2
        return [
            *rows[:half],
            *rows[-half:],
        ], f"{count - 2 * half} steps in the middle are left out; all of them: --json"
    return rows, ""


def _does(step: Step) -> str:
    if step.expired:
        return f"{step.kind} {step.label}: time is up"
    return f"{step.kind} {step.label}" + (f": {step.note}" if step.note else "")


def _state(step: Step) -> str:
    return next((f"{label} = {value}" for label, value in step.state.items()), "")


def _mark(steps: list[Step], rows: list[Row]) -> None:
    """Mark reads that are stale when their worker writes, and the writes that destroy what came between."""
    for since, last, at in lost(
        (step.worker, step.kind, step.touches[0][:2] if step.touches else None) for step in steps
    ):
        rows[since].mark = f"stale: {last + 1} changes it"
        rows[at].mark = f"destroys {last + 1}"


def workers_of(rows: list[Row]) -> list[str]:
    """Who does them, parents first."""
    workers = dict.fromkeys(row.worker for row in rows)
    return sorted(workers, key=lambda key: [int(part) for part in key.partition("-")[2].split(":") if part])


def picture(run: Run, program: Program) -> list[RenderableType]:
    """The grid for a terminal."""
    from rich.table import Table
    from rich.text import Text

    rows, left_out = once(rows_of(run), run.cycle)
    workers = workers_of(rows)
    together = len(workers) > MOST_COLUMNS
    columns = ["worker"] if together else workers
    table = Table(width=WIDTH, show_lines=False, pad_edge=False, box=_box(), header_style="bold")
    table.add_column("", justify="right", width=3, no_wrap=True)
    for name in columns:
        table.add_column(name, ratio=3, overflow="fold")
    table.add_column("shared", ratio=2, overflow="fold")
    before: dict[str, Place] = {}
    for row in rows:
        cells = [Text("") for _ in columns]
        cell = cells[0 if together else columns.index(row.worker)]
        if together:
            cell.append(f"{row.worker}  ", style="bold")
        if before.get(row.worker) != row.where:
            file = program.short(row.where[0])
            cell.append(f"{file + ':' if file else ''}{row.where[1]}  {text_of(row.where)}\n", style="dim")
        before[row.worker] = row.where
        cell.append(row.does)
        if row.mark:
            cell.append(f"\n<< {row.mark}", style="bold yellow" if row.mark.startswith("stale") else "bold red")
        table.add_row(str(row.number or ""), *cells, row.state)
    return [table, left_out] if left_out else [table]


def _box() -> Any:
    from rich import box

    return box.SIMPLE_HEAD


def as_json(run: Run, program: Program) -> list[dict[str, Any]]:
    """The grid as data."""
    return [
        {
            "step": row.number or None,
            "worker": row.worker,
            "file": program.short(row.where[0]) or program.name,
            "line": row.where[1],
            "source": text_of(row.where),
            "does": row.does,
            "mark": row.mark,
            "shared": row.state,
        }
        for row in rows_of(run)
    ]
