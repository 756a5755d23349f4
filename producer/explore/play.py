"""`producer explore --play`: the learner is the scheduler, and wins by breaking the program.

Each choice runs the program once more from its start, up to the next one; so one is taken back by running it with one less.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from lab.errors import ExitCode
from lab.explored.naming import text_of
from lab.explored.scheduler import Scheduler, Worker
from lab.explored.search import Explorer, Outcome, said_by
from producer import output
from producer.explore import grid
from producer.explore.command import write_schedule
from producer.explore.program import Program
from producer.explore.report import KINDS, drawn

if TYPE_CHECKING:
    from lab.explored.search import Run

HELP = "Type a number: whose step is next. u: take the last one back. s: all steps so far. q: quit."
SHOWN = 3


class Frontier:
    """Choices that were made, and what there is to choose after them.

    Args:
        choices: Those that were made.
    """

    def __init__(self, choices: list[str]) -> None:
        self._choices, self._at = choices, 0
        self.options: list[tuple[str, str]] = []
        self.shared: list[str] = []

    def choose(self, ready: list[Worker], scheduler: Scheduler) -> Worker | None:
        """The next one of the choices; None after the last."""
        by_key = {worker.key: worker for worker in ready}
        if self._at < len(self._choices):
            self._at += 1
            return by_key[self._choices[self._at - 1]]
        for worker in ready:
            op = worker.pending
            assert op is not None
            label = scheduler.objects[op.touches[0].key].label_of(op.touches[0].part) if op.touches else ""
            self.options.append((worker.key, f"{op.kind} {label}   (line {op.where[1]}: {text_of(op.where)})"))
        self.shared = [f"{one.label} = {one.show()}" for one in scheduler.objects.values() if one.kind != "Process"]
        return None


def play(name: str, args: tuple[str, ...], max_steps: int, save: str | None) -> ExitCode:
    """Let the learner choose until the program has ended, or is broken.

    Args:
        name: Path of a script, or name of a concept.
        args: The script's arguments.
        max_steps: Steps after which a run is given up.
        save: File for the order that was played.

    Raises:
        LabError: It cannot be explored.
    """
    program = Program(name, args)
    program.prepare()
    explorer = Explorer(program.run, program.judge, max_steps)
    usual = explorer.serial()
    output.write(f"{name}: you are the scheduler. Break it: a wrong result, a deadlock, no progress.\n{HELP}\n")
    choices: list[str] = []
    asked: list[int] = []
    while True:
        frontier = Frontier(choices)
        run, over = explorer.upto(frontier)
        if over:
            won = _ended(run, usual, program)
            if save:
                write_schedule(run, program, save)
                output.write(f"Saved to {save}.\n")
            if won or not (asked and _yes("Take the last choice back, and try again? [y/n] ")):
                return ExitCode.OK
            choices = choices[: asked.pop()]
            continue
        if len(frontier.options) == 1:  # nothing to choose
            choices.append(frontier.options[0][0])
            continue
        _show(run, frontier)
        answer = _ask(len(choices) + 1)
        if answer in ("q", None):
            return ExitCode.OK
        if answer == "u":
            choices = choices[: asked.pop()] if asked else choices
        elif answer == "s":
            output.write_rich([*grid.picture(run, program)])
        elif answer.isdecimal() and 1 <= int(answer) <= len(frontier.options):
            asked.append(len(choices))
            choices.append(frontier.options[int(answer) - 1][0])
        else:
            output.write(f"{HELP}\n")


def _show(run: Run, frontier: Frontier) -> None:
    rows = grid.rows_of(run)
    lines = [""]
    lines += [f"  {row.number:>3}  {row.worker}  line {row.where[1]}  {row.does}" for row in rows[-SHOWN:]]
    lines.append("  shared: " + ("; ".join(frontier.shared) or "nothing"))
    lines += [f"  [{number}] {key}  {what}" for number, (key, what) in enumerate(frontier.options, start=1)]
    output.write("\n".join(lines) + "\n")


def _ask(step: int) -> str | None:
    """What is answered; None at the end of the input, and empty for an empty line."""
    output.write(f"step {step}> ")
    line = sys.stdin.readline()
    return line.strip().lower() if line else None


def _yes(question: str) -> bool:
    output.write(question)
    return sys.stdin.readline().strip().lower() in ("y", "yes", "u")


def _ended(run: Run, usual: set[Outcome], program: Program) -> bool:
    """Say how it ended; whether that is a win."""
    outcome = run.outcome
    output.write_rich(drawn(run, program))
    known = said_by(usual, outcome)
    won = outcome.bad or (bool(usual) and run.meddled and not known)
    if won:
        output.write(
            f"You have broken it, in {output.counted(len(run.choices), 'step')}:"
            f" {KINDS[outcome.kind].lower()} {outcome.text}\n"
        )
    else:
        why = "so it can end without a preemption as well" if known else "nobody came between what another one does"
        why = why if known or not run.meddled else "whether it should cannot be told, as there are too many orders"
        output.write(f"It ends with {outcome.text}: not broken, as {why}.\n")
    return won
