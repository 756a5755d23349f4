"""The search through the orders of a program: all of them, those with few preemptions, or as many as a seed draws.

All of them are searched depth first, each run from the start, with two reductions that leave no result out: a choice is made
differently only where two steps that depend on each other could have changed places (dynamic partial order reduction,
Flanagan and Godefroid 2005), and what has been tried is not tried again as long as nothing that depends on it has happened
(sleep sets). Each run then stands for all orders that differ in independent steps only, and these are counted.

A bound on preemptions leaves orders out, and goes with neither reduction: then each run is one order. What is too large is
drawn: PCT (Burckhardt and others 2010) gives workers random priorities and lowers one at random a few times.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from lab.explored.meddling import DATA, meddled
from lab.explored.operation import Operation, Place, Step, dependent
from lab.explored.orders import MOST_STATES, History, interleavings
from lab.explored.scheduler import CannotExplore, Scheduler, Strategy, Worker

DEPTH = 3
"""Priority changes of a drawn run, and one: bugs that need so many steps in a certain order are found with a known chance."""


@dataclass(frozen=True)
class Outcome:
    """How a run went.

    Attributes:
        kind: ``result``, ``claim`` (an assert, or a claim of a concept), ``raised``, ``deadlock``, ``no progress``,
            ``too long``, ``endless``.
        text: The result, or what went wrong.
        lines: The lines of a result, sorted, whoever printed them.
    """

    kind: str
    text: str
    lines: tuple[str, ...] = field(default=(), compare=False)

    @property
    def bad(self) -> bool:
        """Whether no program should end so."""
        return self.kind != "result"

    @property
    def said(self) -> tuple[str, ...]:
        """What it says, without the order in which it is said."""
        return self.lines or (self.text,)


@dataclass
class Run:
    """One run.

    Attributes:
        outcome: How it went.
        choices: Whose turn it was, at each choice.
        trace: Its steps.
        orders: How many orders it stands for; None when they were not counted.
        preemptions: How often a worker that could have gone on had to stand back.
        cycle: How many steps are repeated for ever, at the end.
        holds: At a deadlock, for each worker: what it is about to do, where; what it holds, since where.
        unforced: What it uses whose turns cannot be forced on a place; empty if all can.
        meddled: Whether somebody came between what another one does to what is shared, as far as that was looked at.
    """

    outcome: Outcome
    choices: list[str]
    trace: list[Step]
    orders: int | None = None
    preemptions: int = 0
    cycle: int = 0
    holds: list[Blocked] = field(default_factory=list)
    unforced: str = ""
    meddled: bool = False


@dataclass
class Blocked:
    """A worker that cannot go on.

    Attributes:
        worker: Its key.
        kind, what, where: The operation, what it waits for, and the line.
        holds: What it holds, and the lines where it took it.
        holder: Who holds what it waits for.
    """

    worker: str
    kind: str
    what: str
    where: Place
    holds: list[tuple[str, Place]] = field(default_factory=list)
    holder: str = ""


@dataclass
class Node:
    """A choice on the path from the start.

    Attributes:
        ready: The workers that could go on, and what each was about to do.
        waiting: Those that could not.
        chosen: Whose turn it is now.
        last: Whose turn it was before.
        todo: Those that are to be tried.
        done: Those that were.
        sleep: Those that need not be, with what they were about to do.
        preemptions: How many came before.
    """

    ready: dict[str, Operation]
    waiting: set[str]
    chosen: str
    last: str
    todo: set[str]
    done: set[str] = field(default_factory=set)
    sleep: dict[str, Operation] = field(default_factory=dict)
    preemptions: int = 0

    def costs(self, worker: str) -> int:
        """1 if it is a preemption to let a worker go on."""
        return int(worker != self.last and self.last in self.ready)


class Tree:
    """A depth-first search, as a strategy for one run after the other.

    Args:
        reduced: Whether runs that cannot differ in result are left out.
        bound: At most so many preemptions; not with ``reduced``.
    """

    def __init__(self, reduced: bool = True, bound: int | None = None) -> None:
        self.reduced, self.bound = reduced, bound
        self.path: list[Node] = []
        self._depth = 0

    def begin(self) -> None:
        """Before each run."""
        self._depth = 0

    def choose(self, ready: list[Worker], scheduler: Scheduler) -> Worker | None:
        """The choice of the path as far as it goes; beyond, who went on last, else the first that is not asleep."""
        by_key = {worker.key: worker for worker in ready}
        if self._depth == len(self.path):
            node = self._new(ready, scheduler)
            if node is None:
                return None
            self.path.append(node)
        node = self.path[self._depth]
        if node.chosen not in by_key:
            raise CannotExplore(
                "The program took other steps under the same choices.",
                "What it does must depend on nothing but its own operations: no real time, no files that it changes,"
                " no state kept in modules from one run to the next.",
            )
        self._depth += 1
        return by_key[node.chosen]

    def _new(self, ready: list[Worker], scheduler: Scheduler) -> Node | None:
        ops = {worker.key: worker.pending for worker in ready if worker.pending is not None}
        sleep: dict[str, Operation] = {}
        last, preemptions = "", 0
        if self.path:
            before = self.path[-1]
            last = before.chosen
            op = before.ready[before.chosen]
            preemptions = before.preemptions + before.costs(before.chosen)
            sleep = {
                key: asleep
                for key, asleep in before.sleep.items()
                if key != before.chosen and not dependent(key, asleep, before.chosen, op)
            }
        awake = [key for key in ops if key not in sleep]
        if not awake:
            return None
        chosen = last if last in awake else awake[0]
        waiting = {worker.key for worker in scheduler.workers.values() if worker.pending and worker.key not in ops}
        todo = {chosen} if self.reduced else set(awake)
        return Node(ops, waiting, chosen, last, todo, sleep=sleep, preemptions=preemptions)

    def end(self, scheduler: Scheduler, history: History | None) -> bool:
        """After each run: learn from its history if ``reduced``, and turn to the next path; whether there is one."""
        if history is not None:
            self._learn(history, scheduler)
        while self.path:
            node = self.path[-1]
            node.done.add(node.chosen)
            if self.reduced:
                node.sleep[node.chosen] = node.ready[node.chosen]
            options = [key for key in node.ready if key in node.todo - node.done and key not in node.sleep]
            if self.bound is not None:
                options = [key for key in options if node.preemptions + node.costs(key) <= self.bound]
            if options:
                node.chosen = options[0]
                return True
            self.path.pop()
        return False

    def _learn(self, history: History, scheduler: Scheduler) -> None:
        trace = history.trace
        for index, worker, clock in history.races(scheduler.stuck | scheduler.cut_off):
            choice = trace[index].choice
            if choice is None or choice >= len(self.path):
                continue
            node = self.path[choice]
            # Who could go on there and leads to the later step: its worker, or one whose steps in between it builds on.
            leading = {
                trace[k].worker
                for k in range(index + 1, len(trace))
                if trace[k].worker in node.ready and history.knew(clock, k)
            }
            if worker in node.ready:
                leading.add(worker)
            if leading & node.todo:
                continue
            if leading:
                node.todo.add(worker if worker in leading else min(leading))
            elif worker not in node.waiting:
                node.todo.update(node.ready)
            # else it waited there, for this very step or for one that is a pair of its own with it


class Drawn:
    """Seeded priorities (PCT).

    Args:
        seed: Of the whole search.
        number: Of this run.
        length: How many choices a run has, about.
    """

    def __init__(self, seed: int, number: int, length: int) -> None:
        self._random = random.Random(f"{seed}/{number}")
        self._priorities: dict[str, float] = {}
        self._changes = {self._random.randrange(max(length, 1)): at for at in range(DEPTH - 1)}

    def choose(self, ready: list[Worker], scheduler: Scheduler) -> Worker | None:
        """The ready worker of the highest priority."""
        for worker in ready:
            self._priorities.setdefault(worker.key, 1 + self._random.random())
        best = max(ready, key=lambda worker: self._priorities[worker.key])
        if scheduler.choices in self._changes:
            self._priorities[best.key] = -self._changes.pop(scheduler.choices)
            best = max(ready, key=lambda worker: self._priorities[worker.key])
        return best


class Given:
    """Choices that are known already; beyond them, who went on last, else the first."""

    def __init__(self, choices: list[str]) -> None:
        self._choices, self._at, self._last = choices, 0, ""

    def choose(self, ready: list[Worker], scheduler: Scheduler) -> Worker | None:
        """The next one of the choices."""
        keys = [worker.key for worker in ready]
        wanted = self._choices[self._at] if self._at < len(self._choices) else self._last
        self._at += 1
        if wanted not in keys:
            if self._at <= len(self._choices):
                raise CannotExplore(
                    f"{wanted} cannot go on at choice {self._at}, as it could when this order was found."
                )
            wanted = keys[0]
        self._last = wanted
        return ready[keys.index(wanted)]


@dataclass
class Exploration:
    """What a search found.

    Attributes:
        runs: How many orders were run to their end.
        complete: Whether all of them were, as far as the bound goes.
        drawn: How many of the runs were drawn by the seed.
        orders: How many interleavings the runs stand for, when all were searched and counted.
        largest: In how many orders the choices of the longest run could be put if nothing had to wait for anything.
        bound, seed, limit: What was asked for.
        found: Outcomes, and how many runs went so.
        weights: Outcomes, and how many interleavings go so, if they were counted.
        examples: The first run of each outcome with the fewest preemptions and steps.
        serial: The results of the orders without a preemption.
        all_serial: Whether all of those were tried.
        clean: The outcomes of runs in which nobody meddled.
    """

    runs: int = 0
    complete: bool = False
    drawn: int = 0
    orders: int | None = None
    largest: int = 0
    bound: int | None = None
    seed: int = 0
    limit: int = 0
    found: Counter[Outcome] = field(default_factory=Counter)
    weights: Counter[Outcome] = field(default_factory=Counter)
    examples: dict[Outcome, Run] = field(default_factory=dict)
    serial: set[Outcome] = field(default_factory=set)
    all_serial: bool = True
    clean: set[Outcome] = field(default_factory=set)

    @property
    def wrong(self) -> list[Outcome]:
        """The outcomes that no program should have, and the results that come of nothing but meddling.

        Such a result says what no order without a preemption says, be it in another order. Where these orders are too many
        to try all, and those that were tried differ, no result is called wrong.
        """
        known = bool(self.serial) and (self.all_serial or len(self.serial) == 1)
        return [
            one for one in self.found if one.bad or (known and one not in self.clean and not said_by(self.serial, one))
        ]

    @property
    def results(self) -> list[Outcome]:
        """The outcomes with which a program may end."""
        return [one for one in self.found if not one.bad]

    @property
    def bad(self) -> int:
        """How many runs went as none should."""
        return sum(number for one, number in self.found.items() if one.bad)

    def add(self, run: Run) -> None:
        """Take note of a run."""
        self.runs += 1
        self.found[run.outcome] += 1
        self.weights[run.outcome] += run.orders or 0
        if not run.meddled:
            self.clean.add(run.outcome)
        self.largest = max(self.largest, interleavings(run.trace))
        best = self.examples.get(run.outcome)
        if best is None or (run.preemptions, len(run.choices)) < (best.preemptions, len(best.choices)):
            self.examples[run.outcome] = run


def said_by(outcomes: Iterable[Outcome], one: Outcome) -> bool:
    """Whether one of some outcomes says the same, in whatever order."""
    return any(one.said == other.said for other in outcomes)


Judge = Callable[[Scheduler], Outcome]
LONGEST = 150
"""Choices of a run; a search depth first would get nowhere in a longer one, so all of its orders are drawn."""


class _FromTheBeginning(Exception):
    """What was found so far was found under another idea of what is a choice."""


class Explorer:
    """Searches one program.

    Args:
        program: Runs it, from its very start; called once a run.
        judge: Says how a run went, at its end.
        max_steps: Choices after which a run is given up.
        most_states: A run with more cuts than these is not worth counting its orders.
        enough: So many runs that went wrong are enough to know; None if all are wanted.
        compared: Whether results are compared with those of whole processes; needless where ``judge`` knows what is right.
        told: Called after each run with how many there were.
    """

    def __init__(
        self,
        program: Callable[[], Any],
        judge: Judge | None = None,
        max_steps: int = 2000,
        most_states: int = MOST_STATES,
        enough: int | None = None,
        compared: bool = True,
        told: Callable[[int], object] = lambda runs: None,
    ) -> None:
        self._program, self._judge, self._max_steps = program, judge or outcome_of, max_steps
        self._most_states, self._enough, self._compared = most_states, enough, compared
        self._ends_matter = False
        self._told, self._runs = told, 0

    def explore(self, bound: int | None = None, seed: int = 0, limit: int = 2000) -> Exploration:
        """Search.

        Args:
            bound: Only orders with at most so many preemptions.
            seed: For what is drawn.
            limit: At most so many runs.

        Raises:
            CannotExplore: The program does what cannot be ordered, or nothing was explored.
        """
        try:
            return self._explore(Exploration(bound=bound, seed=seed, limit=limit))
        except _FromTheBeginning:
            return self._explore(Exploration(bound=bound, seed=seed, limit=limit))

    def _explore(self, found: Exploration) -> Exploration:
        if not found.limit:
            raise CannotExplore("0 orders were explored.", "Allow more of them with --limit.")
        reduced = found.bound is None
        tree = Tree(reduced, found.bound)
        half, length = found.limit if not reduced else (found.limit + 1) // 2, 1
        if reduced:
            first = self._run(Given([]))
            if first.verdict == "endless":
                found.add(self._made(first))
                return found
            half, length = 0 if first.choices > LONGEST else half, first.choices
        found.complete = self._search(tree, found, half)
        if found.complete:
            found.orders = self._counted(found)
        else:
            self._draw(found, found.limit - found.runs, length)
        if not found.runs:
            raise CannotExplore("0 orders were explored.", "Allow more of them with --limit.")
        if self._compared and not any(outcome.kind == "endless" for outcome in found.found):
            found.serial, found.all_serial = self._serial(20 if half == 0 else 200)
        return found

    def _search(self, tree: Tree, found: Exploration, limit: int) -> bool:
        attempts = 0
        while found.runs < limit and attempts < 10 * limit and not self._known(found):
            attempts += 1
            tree.begin()
            scheduler = self._run(tree)
            history = History(scheduler.trace) if tree.reduced else None
            if scheduler.verdict != "given up":
                run = self._made(scheduler)
                run.orders = history.orders(self._most_states) if history else 1
                found.add(run)
            if scheduler.verdict == "endless":
                return False
            if not tree.end(scheduler, history):
                return True
        return False

    def _known(self, found: Exploration) -> bool:
        """Whether it is known that it goes wrong, and no more runs are worth their time."""
        if any(outcome.kind == "endless" for outcome in found.found):
            return True
        return self._enough is not None and found.bad >= self._enough

    def _counted(self, found: Exploration) -> int | None:
        if found.bound is not None:
            return found.runs
        return sum(found.weights.values()) if all(found.weights[one] for one in found.found) else None

    def _draw(self, found: Exploration, count: int, length: int) -> None:
        length = max((len(run.choices) for run in found.examples.values()), default=length)
        for number in range(count):
            if self._known(found):
                return
            scheduler = self._run(Drawn(found.seed, number, length))
            found.add(self._made(scheduler))
            found.drawn += 1

    def _serial(self, limit: int) -> tuple[set[Outcome], bool]:
        """The results of the orders without a preemption, and whether all of these were tried.

        Whatever they give is what the program may give.
        """
        serial = Exploration()
        complete = self._search(Tree(reduced=False, bound=0), serial, limit)
        return {one for one in serial.found if not one.bad}, complete

    def serial(self) -> set[Outcome]:
        """The results of the orders without a preemption; empty if it cannot be said."""
        try:
            results, complete = self._serial(200)
        except _FromTheBeginning:
            results, complete = self._serial(200)
        return results if complete or len(results) == 1 else set()

    def shortest(self, outcome: Outcome, known: Run, limit: int = 1000) -> Run:
        """A run of this outcome with as few preemptions as there are, as far as ``limit`` runs can tell; with its details."""
        if outcome.kind == "endless":
            return known
        if len(known.choices) > LONGEST:
            limit = 20
        for bound in range(min(known.preemptions, 3)):
            again = Exploration()
            try:
                self._search(Tree(reduced=False, bound=bound), again, limit)
            except _FromTheBeginning:
                self._ends_matter = False
                break
            if outcome in again.examples:
                known = again.examples[outcome]
                break
        return self.again(known.choices)

    def again(self, choices: list[str]) -> Run:
        """One order once more, with the details that a picture needs."""
        return self._made(self._run(Given(choices), detailed=True, settled=True))

    def upto(self, strategy: Strategy) -> tuple[Run, bool]:
        """A run with its details, and whether it went to its end or was given up by its strategy."""
        scheduler = self._run(strategy, detailed=True, settled=True)
        return self._made(scheduler), scheduler.verdict != "given up"

    def _run(self, strategy: Strategy, detailed: bool = False, settled: bool = False) -> Scheduler:
        scheduler = Scheduler(strategy, self._max_steps, detailed, self._ends_matter)
        scheduler.run(self._program)
        self._runs += 1
        self._told(self._runs)
        if scheduler.saw_ends and not self._ends_matter and not settled:
            # The program asks whether a process is alive, so when one ends is a choice: again, from the beginning.
            self._ends_matter = True
            raise _FromTheBeginning
        return scheduler

    def _made(self, scheduler: Scheduler) -> Run:
        steps = [step for step in scheduler.trace if step.choice is not None]
        data = {key for key, one in scheduler.objects.items() if one.kind in DATA} if self._compared else ()
        return Run(
            self._judge(scheduler),
            [step.worker for step in steps],
            scheduler.trace,
            preemptions=scheduler.preemptions,
            cycle=scheduler.cycle if scheduler.verdict == "no progress" else 0,
            holds=blocked(scheduler) if scheduler.verdict == "deadlock" else [],
            unforced=scheduler.unforced,
            meddled=self._compared and meddled(scheduler.trace, data),
        )


def explore(
    program: Callable[[Any], Any], bound: int | None = None, seed: int = 0, limit: int = 2000, max_steps: int = 2000
) -> Exploration:
    """Search the orders of a program that takes a context.

    Args:
        program: Called with the context, once a run; its result is what it returns, or else what it prints.
        bound: Only orders with at most so many preemptions.
        seed: For what is drawn when there are more than ``limit``.
        limit: At most so many runs.
        max_steps: Choices after which a run is given up.
    """
    from lab.explored.context import ExploredContext

    ctx = ExploredContext()
    return Explorer(lambda: program(ctx), max_steps=max_steps).explore(bound, seed, limit)


def outcome_of(scheduler: Scheduler) -> Outcome:
    """How a run went."""
    failed = [worker for worker in scheduler.workers.values() if worker.error is not None]
    if scheduler.verdict == "deadlock":
        after = "".join(f", after {_raised(worker)}" for worker in failed)
        return Outcome("deadlock", _deadlock_text(scheduler) + after)
    if scheduler.verdict == "no progress":
        return Outcome("no progress", f"goes round and round at {_lines(scheduler.round_lines)}")
    if scheduler.verdict == "too long":
        return Outcome("too long", f"not ended after {scheduler.max_steps} steps")
    if scheduler.verdict == "endless":
        return Outcome("endless", scheduler.endless)
    if failed:
        worker = failed[0]
        return Outcome("claim" if isinstance(worker.error, AssertionError) else "raised", _raised(worker))
    text = result_of(scheduler)
    return Outcome("result", text, (text,) if scheduler.value is not None else tuple(sorted(_lines_of(scheduler))))


def _raised(worker: Worker) -> str:
    error = worker.error
    words = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    at = f" at line {worker.error_at[1]}" if worker.error_at else ""
    return f"{words} in {worker.key}{at}"


def result_of(scheduler: Scheduler) -> str:
    """What a program returned, else what its processes printed, each in its own order, and exit codes that are not 0."""
    if scheduler.value is not None:
        return str(scheduler.value)
    parts = []
    for worker in sorted(scheduler.workers.values(), key=lambda one: one.path):
        text = worker.printed.getvalue().strip()
        if text:
            parts.append(text if worker.key == "main" else f"{worker.key}: {text}")
        if worker.ended and worker.code and not worker.killed:
            parts.append(f"{worker.key} exits with {worker.code}")
    if (main := scheduler.workers["main"]).left is not None:
        parts.append(f"ends by os._exit({main.left})")
    elif main.code:
        parts.append(f"exits with {main.code}")
    return "\n".join(parts) or "(prints nothing)"


def _lines_of(scheduler: Scheduler) -> Iterator[str]:
    """What was printed, line by line, and who ended with which code, without who printed it."""
    for worker in scheduler.workers.values():
        yield from worker.printed.getvalue().strip().splitlines()
        if worker.ended and worker.code and not worker.killed:
            yield f"{worker.key} exits with {worker.code}"
    yield f"{scheduler.workers['main'].code} {scheduler.workers['main'].left}"


def blocked(scheduler: Scheduler) -> list[Blocked]:
    """The workers that cannot go on, those of a circle first and in its order."""
    from lab.explored.synchronize import Lock

    locks = [one for one in scheduler.objects.values() if isinstance(one, Lock) and one.owner is not None]
    found: dict[str, Blocked] = {}
    for key, op in scheduler.stuck.items():
        entry = Blocked(key, op.kind, op.waits_for() if op.waits_for else "", op.where)
        entry.holds = [(lock.label, lock.owner_at) for lock in locks if lock.owner and lock.owner.key == key]
        wanted = [lock for lock in locks if any(touch.key == lock.key for touch in op.touches)]
        entry.holder = wanted[0].owner.key if wanted and wanted[0].owner else ""
        found[key] = entry
    circle = _circle(found)
    return [found[key] for key in circle] + [entry for key, entry in found.items() if key not in circle]


def _circle(found: dict[str, Blocked]) -> list[str]:
    for start in found:
        way = [start]
        while (following := found[way[-1]].holder) in found:
            if following in way:
                return way[way.index(following) :]
            way.append(following)
    return []


def _deadlock_text(scheduler: Scheduler) -> str:
    entries = blocked(scheduler)
    circle = _circle({entry.worker: entry for entry in entries})
    shown = [
        entry for entry in entries if entry.worker in circle or (not circle and entry.kind not in ("join", "exit"))
    ]
    shown = shown or entries
    return "; ".join(_waits(entry) for entry in shown)


def _waits(entry: Blocked) -> str:
    kind = {"acquire": "", "join": "", "exit": ""}.get(entry.kind, f" ({entry.kind})")
    text = f"{entry.worker} waits for {entry.what}{kind} at line {entry.where[1]}"
    if entry.holds:
        text += " and holds " + ", ".join(f"{label} since line {where[1]}" for label, where in entry.holds)
    return text


def _lines(numbers: set[int]) -> str:
    return ("line " if len(numbers) == 1 else "lines ") + ", ".join(map(str, sorted(numbers)))
