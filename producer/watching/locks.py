"""Who holds, who waits, and who waits in a circle."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from lab.errors import ExitCode
from lab.watching.circles import Circle, certain, lasting, waits_at
from lab.watching.stack import Frame, Stack, ask_all
from lab.watching.state import Fleet, Lock, Run
from producer import output
from producer.watching.fleet import Watched, printable, spoken, watched

if TYPE_CHECKING:
    from rich.table import Table

MOST_ASKED = 20
"""Processes that are asked where they are: those of circles first."""

MARKS = {"free": "○ free", "held": "● held", "wanted": "◆ wanted"}
"""A shape for each state, as colours cannot be told apart by everybody, nor on paper."""


@dataclass(frozen=True)
class Found:
    """What there is of locks.

    Attributes:
        fleet: The fleet that they are of.
        circles: Who waits in a circle.
        stacks: Of those who were asked, by run and process.
    """

    fleet: Fleet
    circles: list[Circle]
    stacks: dict[tuple[str, str], Stack]

    def where(self, run: str, process: str) -> Frame | None:
        """The program's line at which a process is, in the thread that waits if there is one."""
        stack = self.stacks.get((run, process))
        if stack is None:
            return None
        return stack.waits_at or next((thread.where for thread in stack.program_threads), None)


def show(as_json: bool) -> int:
    """Write the locks of the fleet to stdout; the exit code.

    Raises:
        LabError: The fleet cannot be reached.
    """
    found = find(watched())
    if as_json:
        output.write_json(_document(found))
    else:
        output.write_rich(_tables(found))
        output.write("".join(printable(line) + "\n" for circle in found.circles for line in told(found, circle)))
    return ExitCode.CHECK_FAILED if found.circles else ExitCode.OK


def find(watched: Watched) -> Found:
    """Look twice, and ask those who hold and wait where they are."""
    before = watched.watcher.look()
    fleet = watched.watcher.look()
    circles = lasting(before, fleet)
    wanted = [(circle.run, link.process) for circle in circles for link in circle.links]
    wanted += [(run.id, name) for run in fleet.runs for lock in run.locks if lock.waiters for name in _involved(lock)]
    known = [each for each in dict.fromkeys(wanted) if (process := fleet.process(*each)) and process.pid]
    stacks = ask_all(watched.settings, watched.store, known[:MOST_ASKED]) if watched.settings.authkey else {}
    return Found(fleet, circles, stacks)


def _involved(lock: Lock) -> list[str]:
    return [name for name in (lock.holder, *(waiter.process for waiter in lock.waiters)) if name]


def told(found: Found, circle: Circle) -> list[str]:
    """A circle in words: who waits at which line for what, and who holds that."""
    sure = certain(circle, found.stacks)
    many = len(circle.links)
    who = "1 process waits for a lock that it holds itself" if many == 1 else f"{many} processes wait for each other"
    lines = ["", f"{'deadlock' if sure else 'circle'} in run {circle.run}: {who}"]
    for link in circle.links:
        process = found.fleet.process(circle.run, link.process)
        at = waits_at(circle, link, found.stacks)
        holder = spoken(found.fleet.process(circle.run, link.holder), link.holder)
        lines.append(f"  {spoken(process, link.process)} waits for {link.lock}, which {holder} holds")
        lines.append(f"    at {at}" if at else "    at a line that could not be asked for")
    lines.append(
        "None of them goes on by itself, unless its wait has a timeout. To end it, kill one: its locks become free."
        if sure
        else "It ends if one of them gives up, or has another thread that lets go. More: producer stack PROCESS"
    )
    return lines


def _tables(found: Found) -> list[Any]:
    parts: list[Any] = []
    for run in found.fleet.runs:
        if run.locks:
            parts += [*([""] if parts else []), f"run {run.id}", table(found, run)]
    return parts or ["No locks are in use on this fleet."]


def table(found: Found, run: Run) -> Table:
    """A row for each lock, semaphore and condition that somebody has used."""
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_row("LOCK", "STATE", "WHO", "AT", style="bold")
    for lock in run.locks:
        state = f"{lock.value} left" if lock.kind == "semaphore" else MARKS[lock.state]
        rows = [("held by ", lock.holder)] if lock.holder else []
        rows += [("waits: ", waiter.process) for waiter in lock.waiters]
        for first, (what, name) in enumerate(rows or [("", "")]):
            who = what + spoken(found.fleet.process(run.id, name), name)
            at = found.where(run.id, name) if name else None
            place = f"{at.file.rpartition('/')[2]}:{at.line}" if at else ""
            names = ("", "") if first else (lock.name, state)
            table.add_row(*names, printable(who), printable(place))
    return table


def _document(found: Found) -> dict[str, Any]:
    runs = [{"run": run.id, "locks": [asdict(lock) | {"state": lock.state} for lock in run.locks]}
            for run in found.fleet.runs]  # fmt: skip
    circles = [
        {
            "run": circle.run,
            "certain": certain(circle, found.stacks),
            "links": [
                asdict(link) | {"at": asdict(at) if (at := waits_at(circle, link, found.stacks)) else None}
                for link in circle.links
            ],
        }
        for circle in found.circles
    ]
    return {"at": found.fleet.at, "runs": runs, "deadlocks": circles}
