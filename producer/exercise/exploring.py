"""An answer, graded in every interleaving of its steps, as far as a bound goes."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from lab.errors import LabError
from lab.explored.scheduler import Scheduler
from lab.explored.search import Exploration, Explorer, Outcome, Run, outcome_of
from lab.program import source
from producer.exercise import claims
from producer.exercise.claims import LATE, NOT_READ, Fault, Note, line_of_last_print
from producer.exercise.exercise import Args, Exercise
from producer.exercise.history import History
from producer.explore.command import shortest
from producer.explore.program import Program

LIMIT = 300
"""Runs, at most, with one set of arguments."""
STEPS = 250
"""Of one run, at most: ten times what an answer needs; whoever asks again and again would go on for ever."""
LARGE_STEPS = 4000
"""Of one run of a size as it is run in the places."""
LARGE = 60
"""Runs of that size: an answer that is right only for the sizes that were tried in every order is not right."""
LOOP = 50
"""The last steps of a run that does not end, in which the loop is."""
COUNTED = 1000
"""Cuts of a run up to which its orders are counted: what is to be known is whether one of them goes wrong."""
ENOUGH = 60
"""Runs that went wrong, after which it is known that it does."""
_LINE = re.compile(r"\blines? (\d+)")


@dataclass
class Explored:
    """An answer with one set of arguments, in every order, or in some.

    Attributes:
        args: The arguments.
        found: What the exploration found.
        fault: The first thing that went wrong in the shortest bad order; None if nothing did.
        note: What is said of such an answer.
        program: The answer.
        run: That order, to be drawn and saved.
        orders: Of which orders this is said: ``every order`` or ``some orders``.
    """

    args: Args
    found: Exploration | None
    program: Program | None = None
    fault: Fault | None = None
    note: Note | None = None
    run: Run | None = None
    orders: str = "every order"

    @property
    def scope(self) -> str:
        """Of what it is said, in words."""
        return ", with ".join((self.orders, *([" ".join(self.args)] if self.args else [])))


@dataclass
class _Judge:
    """Judges one run after the other by the exercise's claims, and remembers what a sentence stands for."""

    exercise: Exercise
    args: Args
    source: str
    faults: dict[str, Fault] = field(default_factory=dict)
    last: History | None = None
    plain: Outcome = field(default_factory=lambda: Outcome("result", ""))

    def __call__(self, scheduler: Scheduler) -> Outcome:
        outcome = self.plain = outcome_of(scheduler)
        history = self.last = History.explored(scheduler, self.source)
        fault = self._first(history, outcome, scheduler.workers["main"].left)
        if fault is None:
            return Outcome("result", "as it should")
        kind = outcome.kind if outcome.bad and fault.name == outcome.kind else "claim"
        self.faults[str(fault)] = fault
        return Outcome(kind, str(fault))

    def _first(self, history: History, outcome: Outcome, left: int | None) -> Fault | None:
        """The first thing that went wrong: what was done before what was not, and that before what was printed."""
        claimed = list(self.exercise.grader.claims(history, self.args))
        done = [fault for fault in claimed if fault.at < LATE]
        if done:
            return min(done, key=lambda fault: fault.at)
        if left is not None:
            at = next(op.line for op in reversed(history.ops) if op.does == "exit")
            return Fault("left", f"os._exit({left}) ends the program here, whatever is left to do", at)
        if outcome.kind == "too long":
            lines = Counter(op.line for op in history.ops[-LOOP:])
            return Fault(outcome.kind, f"it does not end: {outcome.text}", lines.most_common(1)[0][0])
        if outcome.bad:
            kind = "raised" if outcome.kind == "claim" else outcome.kind  # an assert that fails is an exception
            return Fault(kind, _spoken(outcome), _line_in(outcome.text))
        wrong = wrong_output(self.exercise, self.args, outcome.text, self.source)
        if claimed and not (wrong and claimed[0].name == NOT_READ):  # it did print what it has read
            return claimed[0]
        return wrong


def wrong_output(exercise: Exercise, args: Args, printed: str, program: str) -> Fault | None:
    """What is wrong with what was printed, if anything is."""
    expected = exercise.grader.expected(args)
    if printed.strip() == expected:
        return None
    return Fault(
        "output", f"{_short(printed)} is printed, where {_short(expected)} is right", line_of_last_print(program)
    )


def _short(text: str) -> str:
    return repr(text) if len(text) <= 60 else repr(text[:57]) + " ..."


def _spoken(outcome: Outcome) -> str:
    text = outcome.text
    if outcome.kind == "deadlock":
        return f"deadlock: {text}"
    return f"no progress: it {text}" if outcome.kind == "no progress" else text


def _line_in(text: str) -> int:
    found = _LINE.search(text)
    return int(found[1]) if found else 0


def explore(
    exercise: Exercise, file: Path, args: Args, seed: int = 0, limit: int = LIMIT, steps: int = STEPS
) -> Explored:
    """Grade an answer with one set of arguments.

    Args:
        exercise: Whose answer it is.
        file: The answer.
        args: What it finds in ``sys.argv[1:]``.
        seed: For what is drawn when there are too many orders.
        limit: Runs, at most.
        steps: Of one run, at most.
    """
    text = file.read_text(encoding="utf-8-sig")
    try:
        if (seen := exercise.changed(text) or claims.at_the_top(text) or claims.not_looked(text)) is not None:
            return Explored(args, None, fault=seen, note=note(exercise, History([], [], True, text), seen))
    except (SyntaxError, ValueError) as exc:
        return Explored(args, None, fault=Fault("syntax", f"this is not Python: {exc}", getattr(exc, "lineno", 0) or 0))
    judge = _Judge(exercise, args, text)
    with source.restored():
        program = Program(str(file), args)
        try:
            program.prepare()
            explorer = Explorer(program.run, judge, steps, COUNTED, ENOUGH, compared=False)
            found = explorer.explore(None, seed, limit)
            run = shortest(explorer, found)
        except LabError as exc:
            return Explored(args, None, program, Fault("cannot be explored", exc.message, _line_in(exc.message)))
    graded = Explored(args, found, program)
    if run is not None:
        assert judge.last is not None
        graded.run = replace(run, outcome=judge.plain)  # a replay compares what happens, and knows no claims
        graded.fault = judge.faults[run.outcome.text]
        graded.note = note(exercise, judge.last, graded.fault)
    return graded


def note(exercise: Exercise, history: History, fault: Fault) -> Note | None:
    """What is said of an answer that went wrong so; None if nothing is known of it."""
    return next((one for one in exercise.grader.notes if one.fits(history, fault)), None)
