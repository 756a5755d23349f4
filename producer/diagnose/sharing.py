"""Confusions about what is shared: globals, copies, proxies, counters, random numbers, a lock for each."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

from producer.diagnose.finding import Finding, at, found
from producer.diagnose.things import Script, Thing, Things, constant
from producer.diagnose.walk import LOCKS, Program, Step, Worker

CHANGES = frozenset(
    {
        "append",
        "add",
        "extend",
        "insert",
        "update",
        "pop",
        "popleft",
        "appendleft",
        "remove",
        "clear",
        "setdefault",
        "discard",
        "sort",
        "reverse",
        "popitem",
        "subtract",
        "__setitem__",
    }
)
DRAWS = frozenset(
    {
        "random",
        "randint",
        "randrange",
        "choice",
        "choices",
        "sample",
        "shuffle",
        "uniform",
        "gauss",
        "normalvariate",
        "expovariate",
        "betavariate",
        "getrandbits",
        "triangular",
        "rand",
        "randn",
        "normal",
        "integers",
        "permutation",
        "standard_normal",
        "exponential",
        "poisson",
        "binomial",
        "random_sample",
        "bytes",
    }
)
WHO = ("current_thread", "get_ident", "get_native_id", "current_process", "getpid")
OF_PROCESSES = (*LOCKS, "event", "barrier", "queue", "value", "array")


def look(program: Program) -> Iterator[Finding]:
    """Everything of this kind that a script has."""
    yield from stays_there(program)
    yield from managed(program)
    yield from counters(program)
    yield from random_numbers(program)
    yield from lock_each(program)


def functions(steps: Iterable[Step]) -> set[ast.AST]:
    """The functions that steps stand in."""
    return {step.function for step in steps}


def begun(program: Program, worker: Worker) -> int:
    """The number of the main process's step by which a worker exists."""
    return next((n for n, step in enumerate(program.main) if step.node is worker.node), -1)


def made_by(script: Script, thing: Thing, steps: list[Step]) -> bool:
    """Whether a thing is made by who does the steps."""
    above = set(script.above(thing.node)) - {script.tree}
    return any(step.function in above for step in steps)


# what a child changes stays in the child


def stays_there(program: Program) -> Iterator[Finding]:
    """A child changes a global, or what it was handed, and its parent looks at its own."""
    told: set[object] = set()
    for worker in program.of_processes():
        start = begun(program, worker)
        if start < 0:
            continue
        theirs = functions(worker.steps) | {worker.function.node}
        after = [step for step in program.main[start + 1 :] if step.function not in theirs]
        for step in worker.steps:
            for key, name, reads in _changed(program, worker, step):
                read = next((later for later in after if reads(later) and not _handed(program, later)), None)
                if read is not None and key not in told:
                    told.add(key)
                    yield found(
                        "global",
                        step.node,
                        f"This changes {name} in the child's own memory; what is looked at in line {at(read.node)}"
                        " is the parent's,"
                        " which stays as it was.",
                        sure=True,
                    )


def _changed(program: Program, worker: Worker, step: Step) -> Iterator[tuple[object, str, Callable[[Step], bool]]]:
    script = program.script
    if step.what in ("global", "global update"):
        target = step.node.target if isinstance(step.node, ast.AugAssign) else step.node
        name = getattr(target, "id", "")

        def reads(later: Step) -> bool:
            return (
                isinstance(later.node, ast.Name)
                and later.what == "use"
                and later.node.id == name
                and script.variable(name, script.scopes[later.node])[0] is script.tree
            )

        yield name, f"the global {name!r}", reads
        return
    attribute = _written_attribute(step)
    for thing in step.things:
        if step.what in ("write", "update") and attribute and thing.kind in ("instance", "process"):
            record = script.record(thing)
            if made_by(script, thing, worker.steps):
                continue

            def looks(later: Step, record: Thing = record) -> bool:
                return later.what == f".{attribute}" and any(script.record(t) is record for t in later.things)

            yield (record, attribute), f"the attribute {attribute!r}", looks
        elif thing.kind == "list" and (step.what in CHANGES or step.what in ("write", "update")) and not thing.home:
            if made_by(script, thing, worker.steps) or _sets_up(program, thing):
                continue

            def uses(later: Step, thing: Thing = thing) -> bool:
                return later.what == "use" and thing in later.things and not _changes_only(script, later.node)

            yield thing, f"the object of line {at(thing.node)}", uses


def _written_attribute(step: Step) -> str:
    node = step.node
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AugAssign) else []
    return next((target.attr for target in targets if isinstance(target, ast.Attribute)), "")


def _sets_up(program: Program, thing: Thing) -> bool:
    """Whether it is an initializer that gives each worker a thing of its own."""
    return any(
        thing in step.things and step.what == "make"
        for worker in program.workers
        if worker.initializes
        for step in worker.steps
    )


def _changes_only(script: Script, node: ast.AST) -> bool:
    """Whether a name is used only to change what it stands for."""
    up = script.parents.get(node)
    return isinstance(up, ast.Attribute) and up.attr in CHANGES and isinstance(script.parents.get(up), ast.Call)


def _handed(program: Program, step: Step) -> bool:
    """Whether a name is used only to be handed to a worker."""
    starts = {worker.node for worker in program.workers}
    return any(up in starts for up in program.script.above(step.node))


# managers


def managed(program: Program) -> Iterator[Finding]:
    """What a proxy hands out is a copy; what is done to it is lost, unless it is assigned back."""
    script = program.script
    told: Things = set()
    for _, steps in program.actors:
        for number, step in enumerate(steps):
            copies = step.to("copy")
            changes = step.what in CHANGES or (step.what in ("write", "update"))
            if not copies or not changes or copies & told:
                continue
            proxies = {copy.of for copy in copies}
            rest = [later for later in steps[number + 1 :] if later.function is step.function]
            back = any(later.what == "write" and later.things & proxies and _same_key(later, copies) for later in rest)
            named = _receiver(step.node)
            used = named and any(
                later.what == "use"
                and isinstance(later.node, ast.Name)
                and later.node.id == named
                and later.things & copies
                and not _changes_only(script, later.node)
                and step.node not in script.above(later.node)
                for later in rest
            )
            if back or used or len(step.things) != len(copies):
                continue
            told |= copies
            yield found(
                "managed",
                step.node,
                "A manager's proxy hands out a copy, and this changes the copy: the manager never hears of it."
                " Assign it back, or put a"
                " managed list or dict there.",
                sure=True,
            )


def _same_key(step: Step, copies: Things) -> bool:
    """Whether what is assigned may be under the key from which a copy was taken."""
    keys = {ast.unparse(copy.node.slice) for copy in copies if isinstance(copy.node, ast.Subscript)}
    targets = [target for target in getattr(step.node, "targets", []) if isinstance(target, ast.Subscript)]
    return not keys or not targets or any(ast.unparse(target.slice) in keys for target in targets)


def _receiver(node: ast.AST) -> str:
    """The name of what is changed, where it has one."""
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name))):
            return name
        case (
            ast.Assign(targets=[ast.Subscript(value=ast.Name(id=name)), *_])
            | ast.AugAssign(target=ast.Subscript(value=ast.Name(id=name)))
        ):
            return name
    return ""


# counters


def counters(program: Program) -> Iterator[Finding]:
    """Read, change, write, and not under one lock from before the read until after the write."""
    by_thing: dict[tuple[object, str], list[tuple[Worker, Step, frozenset[Thing]]]] = {}
    for worker in program.workers:
        for number, step in enumerate(worker.steps):
            for key in _updated(program.script, worker, worker.steps, number):
                held = frozenset(
                    thing for thing in _held(worker.steps, number, key[0]) if _excludes(program, worker, thing)
                )
                by_thing.setdefault(key, []).append((worker, step, held))
    for updates in by_thing.values():
        updates = [each for each in updates if not _by_one_of_all(program.script, each[1])]
        if not updates or _in_turn(updates):
            continue
        if len({thing for _, step, _ in updates for thing in step.to("instance")}) > 1:
            continue  # it is not known to be the same one
        if not _together(program, [worker for worker, _, _ in updates]):
            continue
        common = frozenset.intersection(*(held for _, _, held in updates))
        if common:
            continue
        worker, step, held = min(updates, key=lambda each: (len(each[2]), at(each[1].node)))
        yield found(
            "counter",
            step.node,
            f"This reads, changes and writes back {_under_what(program, worker, step, held)}: what another one"
            " writes in between may be"
            " overwritten.",
            sure=False,
        )


def _under_what(program: Program, worker: Worker, step: Step, held: frozenset[Thing]) -> str:
    """Under what an update is, of which no lock is known that keeps all others out."""
    if held:
        return "not under the one lock that the others hold"
    if not step.held:
        return "under no lock that can be seen here"
    if any(_excludes(program, worker, lock) for lock in step.held):
        return "in two locked pieces"
    return "under what may let others in"


def _by_one_of_all(script: Script, step: Step) -> bool:
    """Whether one of those who meet at a barrier is chosen for a step: ``if barrier.wait() == 0``."""
    tests = [up.test for up in script.above(step.node) if isinstance(up, ast.If)]
    names = {part.id for test in tests for part in ast.walk(test) if isinstance(part, ast.Name)}
    return any(
        isinstance(part, ast.Call)
        and isinstance(part.func, ast.Attribute)
        and part.func.attr == "wait"
        and any(thing.kind == "barrier" for thing in script.things(part.func.value))
        for expression in [*tests, *_sources(step.function, names)]
        for part in ast.walk(expression)
    )


def _in_turn(updates: list[tuple[Worker, Step, frozenset[Thing]]]) -> bool:
    """Whether two workers hand over to each other, so that their updates never meet. Excluded: several that do the same."""
    workers = list({id(worker): worker for worker, _, _ in updates}.values())
    if len(workers) != 2 or any(worker.many for worker in workers):
        return False
    one, other = ([step for worker, step, _ in updates if worker is each] for each in workers)
    there = _told(workers[0], one, workers[1], other)
    back = _told(workers[1], other, workers[0], one)
    round_and_round = any(a is not b for a in there for b in back)
    return round_and_round or any(there[thing] for thing in there) or any(back[thing] for thing in back)


def _told(first: Worker, updates: list[Step], then: Worker, waiting: list[Step]) -> dict[Thing, bool]:
    """What one tells after his updates and the other waits for before his own; and whether that is only when all is done."""
    tells, waits = {"event": "set", "semaphore": "release"}, {"event": "wait", "semaphore": "acquire"}
    last = max(first.steps.index(step) for step in updates)
    begin = min(then.steps.index(step) for step in waiting)
    awaited = {
        t for step in then.steps[:begin] for t in step.things if step.what == waits.get(t.kind) and not step.polite
    }
    found_: dict[Thing, bool] = {}
    for step in first.steps[last + 1 :]:
        for thing in step.things & awaited:
            if len(step.things) == 1 and not thing.many and step.what == tells[thing.kind]:
                closed = thing.kind == "event" or _starts_at(thing) == 0
                once = all(len(step.loops) < len(each.loops) or not each.loops for each in updates)
                found_[thing] = closed and once
    return found_


def _starts_at(semaphore: Thing) -> object:
    args = semaphore.node.args if isinstance(semaphore.node, ast.Call) else []
    return constant(args[0]) if args else 1


def _updated(script: Script, worker: Worker, steps: list[Step], number: int) -> Iterator[tuple[object, str]]:
    """What a step reads, changes and writes back, of what others see too."""
    step = steps[number]
    shared = worker.home == "threads"
    if step.what == "global update" and shared:
        node = step.node
        if isinstance(node, ast.AugAssign) and not step.to("list"):
            yield script.tree, getattr(node.target, "id", "")
        return
    if step.what == "global" and shared:
        assign = script.parents.get(step.node)
        name = getattr(step.node, "id", "")
        if isinstance(assign, ast.Assign) and _reads_name(step, assign.value, name):
            yield script.tree, name
        return
    if step.what not in ("update", "write"):
        return
    target = step.node.target if isinstance(step.node, ast.AugAssign) else getattr(step.node, "targets", [None])[0]
    for thing in step.things:
        if step.what == "write" and _read_at(steps, number, thing) is None:
            continue
        if thing.kind == "value" and isinstance(target, ast.Attribute) and target.attr == "value":
            yield thing, "value"
        elif (
            thing.kind in ("array", "proxy") and isinstance(target, ast.Subscript) and _same_place(worker, step, target)
        ):
            yield thing, ast.unparse(target.slice)
        elif (
            shared and _is_dict(script, thing) and isinstance(target, ast.Subscript) and _same_key_for_all(step, target)
        ):
            if _same_place(worker, step, target) and not made_by(script, thing, steps) and not thing.many:
                yield thing, ast.unparse(target.slice)
        elif thing.kind == "namespace" and isinstance(target, ast.Attribute):
            yield thing, target.attr
        elif (
            shared
            and thing.kind in ("instance", "class")
            and isinstance(target, ast.Attribute)
            and not made_by(script, thing, steps)
            and not thing.many
            and len(step.things) == 1  # known to be one and the same
        ):
            yield script.record(thing), target.attr


def _same_place(worker: Worker, step: Step, target: ast.Subscript) -> bool:
    """Whether several workers may mean the same element: not if each was given a number of its own."""
    names = {part.id for part in ast.walk(target.slice) if isinstance(part, ast.Name)}
    own = {arg.arg for arg in getattr(getattr(worker.function.node, "args", None), "args", [])}
    return not names & own or (
        worker.how in ("pool", "executor") and any(thing.kind == "proxy" for thing in step.things)
    )


def _is_dict(script: Script, thing: Thing) -> bool:
    """Whether a thing is a plain dict."""
    node = thing.node
    if thing.kind != "list" or thing.home:
        return False
    name = getattr(node.func, "id", "") or script.dotted(node.func) if isinstance(node, ast.Call) else ""
    return isinstance(node, (ast.Dict, ast.DictComp)) or name.rpartition(".")[2] in ("dict", "defaultdict", "Counter")


def _same_key_for_all(step: Step, target: ast.Subscript) -> bool:
    """Whether several may come to the same key.

    Excluded: a number of a range, of which each may have its own part; and what tells who one is.
    """
    names = {part.id for part in ast.walk(target.slice) if isinstance(part, ast.Name)}
    if any(each in ast.unparse(source) for source in [target.slice, *_sources(step.function, names)] for each in WHO):
        return False
    loops = (part for part in ast.walk(step.function) if isinstance(part, (ast.For, ast.comprehension)))
    return not any(
        names & {part.id for part in ast.walk(loop.target) if isinstance(part, ast.Name)}
        and isinstance(loop.iter, ast.Call)
        and getattr(loop.iter.func, "id", "") in ("range", "enumerate")
        for loop in loops
    )


def _reads_name(step: Step, value: ast.expr, name: str) -> bool:
    names = {part.id for part in ast.walk(value) if isinstance(part, ast.Name)}
    if name in names:
        return True
    return any(
        name in {p.id for p in ast.walk(source) if isinstance(p, ast.Name)} for source in _sources(step.function, names)
    )


def _sources(function: ast.AST, names: set[str]) -> Iterator[ast.expr]:
    """The expressions that names are assigned in a function."""
    for part in ast.walk(function):
        if isinstance(part, ast.Assign) and any(getattr(target, "id", None) in names for target in part.targets):
            yield part.value


def _read_at(steps: list[Step], number: int, thing: Thing) -> int | None:
    """The number of the step that read what a step has made its new value of; None if it was not made of that."""
    step = steps[number]
    value = getattr(step.node, "value", None)
    if not isinstance(value, ast.expr):
        return None
    names = {part.id for part in ast.walk(value) if isinstance(part, ast.Name)}
    sources = [value, *_sources(step.function, names)]
    parts = {part for source in sources for part in ast.walk(source)}
    for earlier in range(number - 1, -1, -1):
        each = steps[earlier]
        if each.node in parts and thing in each.things and (each.what in ("[]", "get") or each.what.startswith(".")):
            if each.what in (".get_lock", ".get_obj", ".append", ".put", ".get"):
                continue
            return earlier
    return None


def _held(steps: list[Step], number: int, thing: object) -> frozenset[Thing]:
    """The locks that are held from before the read of what a step writes until after the write."""
    step = steps[number]
    if step.what != "write" or not isinstance(thing, Thing) or not isinstance(step.node, ast.Assign):
        return step.held
    for earlier in range(number - 1, -1, -1):
        each = steps[earlier]
        if (
            thing in each.things
            and (each.what in ("[]", "get") or each.what.startswith("."))
            and each.what != ".get_lock"
        ):
            again = {t for between in steps[earlier + 1 : number] if between.what == "acquire" for t in between.things}
            return (step.held & each.held) - again
    return step.held


def _excludes(program: Program, worker: Worker, lock: Thing) -> bool:
    """Whether a lock lets one in at a time, and is the same one for all."""
    if lock.many or made_by(program.script, lock, worker.steps):
        return False
    if lock.kind == "semaphore" and isinstance(lock.node, ast.Call):
        return not lock.node.args or constant(lock.node.args[0]) in (1, None)
    return worker.home == "threads" or lock.home != "threads"


def _together(program: Program, workers: list[Worker]) -> bool:
    """Whether at least two of the workers may run at once."""
    unique = list({id(worker): worker for worker in workers}.values())
    if any(worker.many and not one_after_the_other(program, worker) for worker in unique):
        return True
    spans = sorted(_span(program, worker) for worker in unique if not worker.many)
    return any(later[0] < earlier[1] for earlier, later in pairwise(spans))


def one_after_the_other(program: Program, worker: Worker) -> bool:
    """Whether a loop waits for each of its processes before it starts the next one."""
    steps = [step for step in program.main if worker.by in step.things]
    starts = [step for step in steps if step.what == "start"]
    joins = [step for step in steps if step.what == "join"]
    return worker.how in ("process", "thread") and any(
        start.loops and join.loops and start.loops[-1] is join.loops[-1] for start in starts for join in joins
    )


def _span(program: Program, worker: Worker) -> tuple[float, float]:
    """The steps of the main process between which a worker runs."""
    if worker.how in ("pool", "executor"):
        return 0.0, float("inf")
    numbered = [(n, step) for n, step in enumerate(program.main) if worker.by in step.things]
    start = next((n for n, step in numbered if step.what == "start"), 0)
    return float(start), float(next((n for n, step in numbered if step.what == "join" and n > start), float("inf")))


# random numbers


def random_numbers(program: Program) -> Iterator[Finding]:
    """Several workers that draw from copies of one generator, or seed theirs with the same number."""
    workers = program.of_processes()
    if not workers or (len(workers) == 1 and not workers[0].many):
        return
    script, method = program.script, program.method()
    seeded_above = [
        step
        for step in program.main
        if not step.guarded
        and _name(script, step) in ("random.seed", "numpy.random.seed")
        and isinstance(step.node, ast.Call)
        and step.node.args
    ]
    for worker in workers:
        names = [(step, _name(script, step)) for step in worker.steps if isinstance(step.node, ast.Call)]
        seeds = [step for step, name in names if name.endswith(".seed")]
        for step in seeds:
            if isinstance(step.node, ast.Call) and step.node.args and _fixed(script, step.node.args[0]):
                yield found(
                    "random",
                    step.node,
                    "Each worker seeds its generator with the same number, so all draw the same numbers.",
                    sure=True,
                )
                return
        generators = [step for step in worker.steps if step.to("generator") and (step.what in DRAWS)]
        for step in generators:
            thing = next(iter(step.to("generator")))
            call = thing.node
            made = made_by(script, thing, worker.steps)
            seed = call.args[0] if isinstance(call, ast.Call) and call.args else None
            if made and seed is not None and _fixed(script, seed):
                yield found(
                    "random",
                    call,
                    "Each worker makes a generator with the same seed, so all draw the same numbers.",
                    sure=True,
                )
                return
            if not made and not thing.many:
                if seed is None and method not in ("", "fork") and _reached_by_name(step):
                    continue
                yield found(
                    "random",
                    step.node,
                    f"Each worker has a copy of the generator of line {at(call)}, in the same state, so all draw"
                    " the same numbers.",
                    sure=seed is not None,
                )
                return
        draws = [
            (step, name)
            for step, name in names
            if name.startswith(("random.", "numpy.random.")) and name.rpartition(".")[2] in DRAWS
        ]
        initialized = any(
            _name(script, step).endswith(".seed") for other in workers if other.initializes for step in other.steps
        )
        if not draws or seeds or initialized:
            continue
        step, name = draws[0]
        if seeded_above and method != "fork" and name.startswith("random."):
            yield found(
                "random",
                step.node,
                f"Each process runs the file again, line {at(seeded_above[0].node)} seeds its generator as all"
                " others', and all draw the same"
                " numbers (under spawn and forkserver).",
                sure=True,
            )
            return
        if name.startswith("numpy.random.") and (method in ("", "fork") or seeded_above):
            yield found(
                "random",
                step.node,
                "A forked worker has a copy of NumPy's generator, in the same state, so all may draw the same"
                " numbers: make one in each worker,"
                " with the worker's number in its seed.",
            )
            return


def _name(script: Script, step: Step) -> str:
    return script.dotted(step.node.func) if isinstance(step.node, ast.Call) and not step.what.startswith(".") else ""


def _fixed(script: Script, seed: ast.expr) -> bool:
    """Whether a seed is the same in each worker, as far as can be seen."""
    if isinstance(seed, ast.Constant):
        return seed.value is not None
    if isinstance(seed, ast.Name):
        variable = script.variable(seed.id, script.scopes[seed])
        assigned = [part.value for part in ast.walk(script.tree) if isinstance(part, ast.Assign)
                    for target in part.targets if isinstance(target, ast.Name) and target.id == seed.id]  # fmt: skip
        return (
            variable[0] is script.tree and bool(assigned) and all(isinstance(value, ast.Constant) for value in assigned)
        )
    text = ast.unparse(seed)
    return text in ("int(time.time())", "int(time())", "round(time.time())")


def _reached_by_name(step: Step) -> bool:
    func = getattr(step.node, "func", None)
    return isinstance(func, ast.Attribute) and isinstance(func.value, ast.Name)


# a lock for each


def lock_each(program: Program) -> Iterator[Finding]:
    """What stands at the top of a file is made anew by each process that runs the file."""
    if program.method() == "fork":
        return
    script, told = program.script, set()
    set_up = {
        name.id
        for worker in program.workers
        if worker.initializes
        for step in worker.steps
        if step.what == "global" and isinstance(name := step.node, ast.Name)
    }
    at_top: dict[Thing, bool] = {}
    for step in program.main:
        if step.what == "make" and step.function is script.tree:
            at_top.update(dict.fromkeys(step.things, step.guarded))
    for worker in program.of_processes():
        for step in worker.steps:
            name = step.node
            if step.what != "use" or not isinstance(name, ast.Name) or name.id in set_up:
                continue
            if script.variable(name.id, script.scopes[name])[0] is not script.tree:
                continue
            for thing in sorted(
                (t for t in step.things if t in at_top and t.kind in OF_PROCESSES), key=lambda t: at(t.node)
            ):
                if thing in told or thing.home != "processes":
                    continue
                told.add(thing)
                how = (
                    "is not made in a child, which then does not know the name"
                    if at_top[thing]
                    else "is made again by each process that runs the file"
                )
                yield found(
                    "lock_each",
                    name,
                    f"The {thing.kind} of line {at(thing.node)} {how} (under spawn and forkserver; fork alone"
                    " copies it): hand it over as"
                    " an argument when the process is started.",
                    sure=True,
                )
