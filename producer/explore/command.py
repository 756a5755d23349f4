"""`producer explore`: search, report, save."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from lab.errors import ExitCode
from lab.explored.search import Exploration, Explorer, Run
from producer import output
from producer.explore import report
from producer.explore.program import Program
from producer.explore.stuck import watched
from producer.progress import Progress

EVERY = 0.2
"""Seconds between two numbers that are shown."""


def explore(
    name: str,
    args: tuple[str, ...],
    bound: int | None,
    seed: int,
    limit: int,
    max_steps: int,
    save: str | None,
    as_json: bool,
    page: str | None = None,
) -> ExitCode:
    """Explore a program and say what was found.

    Args:
        name: Path of a script, or name of a concept.
        args: The script's arguments.
        bound: Only orders with at most so many preemptions.
        seed: For what is drawn when there are too many.
        limit: At most so many runs.
        max_steps: Steps after which a run is given up.
        save: File for the shortest order that goes wrong; without one, for an ordinary one.
        as_json: Whether the report is JSON.
        page: File for the report as a page.

    Raises:
        LabError: It cannot be explored.
    """
    program = Program(name, args)
    program.prepare()
    with watched(name, program.root), _shown(program, None if as_json else sys.stderr) as told:
        explorer = Explorer(program.run, program.judge, max_steps, told=told)
        found = explorer.explore(bound, seed, limit)
        bad = shortest(explorer, found)
        shown = bad or explorer.again(next(iter(found.examples.values())).choices) if save or page else None
    if save and shown:
        write_schedule(shown, program, save)
    if page and shown:
        from producer.explore import steps

        with output.written(page):
            steps.write(page, found, program, shown)
    if as_json:
        output.write_json(report.as_json(found, program, bad))
    else:
        output.write_rich(report.show(found, program, bad))
        if save and shown:
            how = f"To force this order on a real place: producer replay {save} --on processes"
            if shown.unforced:
                how = f"Its order can be read, and not forced on a real place, as it has turns of {shown.unforced}."
            output.write(f"\nSaved to {save}. {how}\n")
        if page:
            output.write(f"\nWritten to {page}: open it in a browser, and go through the steps.\n")
    return ExitCode.CHECK_FAILED if found.wrong else ExitCode.OK


@contextmanager
def _shown(program: Program, stream: TextIO | None) -> Iterator[Callable[[int], None]]:
    """Show, on a terminal, how many runs there were; what is yielded is to be called with their number."""
    progress, shown = Progress(stream), time.monotonic()
    progress.tick(f"{program.name}: in every order ...")

    def told(runs: int) -> None:
        nonlocal shown
        if time.monotonic() - shown >= EVERY:
            shown = time.monotonic()
            progress.tick(f"{program.name}: in every order, {output.counted(runs, 'run')} ...")

    try:
        yield told
    finally:
        progress.clear()


def shortest(explorer: Explorer, found: Exploration) -> Run | None:
    """The shortest run that went wrong: a failure before a result that should not be."""
    if not found.wrong:
        return None
    first = min(
        found.wrong,
        key=lambda one: (not one.bad, found.examples[one].preemptions, len(found.examples[one].choices), one.text),
    )
    return explorer.shortest(first, found.examples[first])


def write_schedule(run: Run, program: Program, file: str) -> None:
    """Write the order of a run to a file.

    Raises:
        OutputFailed: It cannot be written.
    """
    from lab.explored.schedule import Schedule

    with output.written(file):
        Schedule.of(run, program.concept or program.file, list(program.args), program.sources()).write(file)
