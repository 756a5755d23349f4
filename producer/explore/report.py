"""What an exploration found, for people and for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lab.explored.search import DEPTH, Blocked, Exploration, Outcome, Run
from producer import output
from producer.explore import grid

if TYPE_CHECKING:
    from rich.console import RenderableType

    from producer.explore.program import Program

MOST_SHOWN = 12
KINDS = {
    "result": "ends with",
    "claim": "FAILS",
    "raised": "RAISES",
    "deadlock": "DEADLOCK",
    "no progress": "NO PROGRESS",
    "too long": "TOO LONG",
    "endless": "NO END",
}


def explored(found: Exploration) -> str:
    """How much was explored, of how much, in which way."""
    runs = output.counted(found.runs, "run")
    if found.complete and found.bound is None:
        if found.orders is None:
            return f"Explored: all interleavings, in {runs}; too long to be counted one by one."
        if not starts(found):
            return f"Explored: there is nothing to interleave, as no process is started; {runs}."
        orders = "the only interleaving" if found.orders == 1 else f"all {found.orders:,} interleavings"
        return f"Explored: {orders}, in {runs} (equivalent orders are run once)."
    if found.complete:
        orders = "the only interleaving" if found.runs == 1 else f"all {found.runs:,} interleavings"
        return f"Explored: {orders} with at most {output.counted(found.bound or 0, 'preemption')}."
    first = found.runs - found.drawn
    how = (
        "depth first"
        if found.bound is None
        else f"depth first with at most {output.counted(found.bound, 'preemption')}"
    )
    return (
        f"Explored: {runs}, {first:,} {how} and {found.drawn:,} drawn (PCT, seed {found.seed}, depth {DEPTH}),\n"
        f"of at most {_large(found.largest)} interleaving{'s' * (found.largest != 1)}."
        " Not all: what was not seen may still happen."
    )


def settings(found: Exploration) -> str:
    """Bound, seed and limit."""
    bound = "none" if found.bound is None else str(found.bound)
    return f"Bound on preemptions: {bound}. Seed: {found.seed}. Limit: {output.counted(found.limit, 'run')}."


def starts(found: Exploration) -> bool:
    """Whether a process was started in any run."""
    return any(step.kind == "start" for run in found.examples.values() for step in run.trace)


def _large(number: int) -> str:
    return f"{number:,}" if number < 10**9 else f"10^{len(str(number)) - 1}"


def counts(found: Exploration) -> list[tuple[Outcome, int]]:
    """Outcomes with how often each comes, most frequent first; by interleavings if these were counted."""
    numbers = found.weights if found.orders is not None and found.bound is None else found.found
    return sorted(numbers.items(), key=lambda item: (-item[1], item[0].kind, item[0].text))


def remark(outcome: Outcome, found: Exploration) -> str:
    """What is wrong with a result."""
    if outcome in found.wrong and not outcome.bad:
        tried = "" if found.all_serial else " that was tried"
        return f"no order of whole processes, one after the other,{tried} gives this"
    return ""


def show(found: Exploration, program: Program, bad: Run | None) -> list[RenderableType]:
    """The report for a terminal."""
    from rich.table import Table
    from rich.text import Text

    of = found.orders if found.orders is not None and found.bound is None else found.runs
    parts: list[RenderableType] = [
        Text(f"{program.name}: in every order", style="bold"),
        explored(found),
        settings(found),
        *program.notes,
        "",
    ]
    table = Table.grid(padding=(0, 2))
    for _ in range(2):
        table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    known = counts(found)
    for outcome, number in known[:MOST_SHOWN]:
        text = Text(KINDS[outcome.kind] + "  ", style="bold red" if outcome.bad else "")
        text.append(outcome.text, style="" if outcome.bad else "bold")
        if note := remark(outcome, found):
            text.append(f"  <- {note}", style="yellow")
        table.add_row(f"{number:,} of {of:,}", f"{100 * number / of:.1f}%", text)
    parts.append(table)
    if len(known) > MOST_SHOWN:
        parts.append(f"... and {len(known) - MOST_SHOWN} more; all of them: --json")
    if bad is None:
        parts += ["", all_well(found)]
        return parts
    heading = Text("Who waits for whom", style="bold")
    return [*parts, "", Text(title(bad), style="bold"), *drawn(bad, program, heading)]


def all_well(found: Exploration) -> str:
    """That nothing is wrong, and of how much that is said."""
    well = "any of them." if found.complete else "those that were tried; others were not."
    return f"Nothing went wrong in {well}{by_order(found)}"


def by_order(found: Exploration) -> str:
    """What of the output is a matter of the order, if anything is."""
    results = found.results
    if len(results) < 2:
        return ""
    if len({one.said for one in results}) == 1:
        return f"\nThe order of output depends on the schedule: {len(results)} results, of the same lines."
    return (
        f"\nWhat is printed depends on the schedule: {len(results)} results. If some of them are wrong, only an assert"
        " can say so."
    )


def title(run: Run, wrong: bool = True) -> str:
    """What an order that is shown is; ``wrong`` if its result is one that should not be."""
    ends = f"ends with {run.outcome.text}" if run.outcome.kind == "result" else KINDS[run.outcome.kind].lower()
    which = "The shortest that was found" if run.outcome.bad or wrong else "One of them"
    return (
        f"{which}: {ends} ({output.counted(len(run.choices), 'step')}, {output.counted(run.preemptions, 'preemption')})"
    )


def drawn(run: Run, program: Program, heading: RenderableType = "Who waits for whom") -> list[RenderableType]:
    """One order as a grid, and at a deadlock who waits for whom, under a heading."""
    parts = grid.picture(run, program)
    return [*parts, heading, *circle(run.holds, program)] if run.holds else parts


def circle(entries: list[Blocked], program: Program) -> list[str]:
    """Who waits for whom, a line each."""
    from lab.explored.naming import text_of

    def at(where: tuple[str, int]) -> str:
        file = program.short(where[0])
        return f"{file + ':' if file else 'line '}{where[1]} ({text_of(where)})"

    lines = []
    for entry in entries:
        kind = f" ({entry.kind})" if entry.kind not in ("acquire", "join", "exit") else ""
        holder = f", held by {entry.holder}" if entry.holder else ""
        what = "its children to end" if entry.kind == "exit" else f"{entry.what}{kind}{holder}"
        lines.append(f"  {entry.worker} waits for {what}, at {at(entry.where)}")
        lines += [f"    and holds {label}, since {at(where)}" for label, where in entry.holds]
    return lines


def as_json(found: Exploration, program: Program, bad: Run | None) -> dict[str, Any]:
    """The report as data."""
    return {
        "program": program.name,
        "notes": program.notes,
        "explored": found.runs,
        "complete": found.complete,
        "interleavings": found.orders,
        "interleavings at most": None if found.complete else found.largest,
        "drawn": found.drawn,
        "bound": found.bound,
        "seed": found.seed,
        "limit": found.limit,
        "depends on the order": len(found.results) > 1,
        "same lines": len({one.said for one in found.results}) == 1,
        "outcomes": [
            {
                "kind": outcome.kind,
                "text": outcome.text,
                "runs": found.found[outcome],
                "interleavings": found.weights[outcome] if found.orders is not None else None,
                "wrong": outcome in found.wrong,
            }
            for outcome, _ in counts(found)
        ],
        "shortest": None
        if bad is None
        else {
            "kind": bad.outcome.kind,
            "text": bad.outcome.text,
            "preemptions": bad.preemptions,
            "steps": grid.as_json(bad, program),
            "blocked": [
                {
                    "worker": one.worker,
                    "operation": one.kind,
                    "object": one.what,
                    "line": one.where[1],
                    "held by": one.holder,
                }
                for one in bad.holds
            ],
        },
    }
