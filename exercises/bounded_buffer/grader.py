"""A bounded buffer: no slot is written twice before it is read, none is read twice, and nobody asks."""

from producer.exercise.claims import Fault, Note, line_of, no_asking, no_timeout


def small(chance):
    return [("1", "1", "2"), ("2", "1", "1"), ("2", "2", "1")]


def large(chance, place):
    return str(chance.randint(2, 3)), str(chance.randint(1, 3)), str(chance.randint(4, 8))


def expected(args):
    return " ".join(str(item) for item in range(1, int(args[0]) * int(args[2]) + 1))


def claims(history, args):
    pairs, size, count = (int(text) for text in args)
    if history.makes("Queue", "SimpleQueue", "JoinableQueue", "Condition"):
        yield Fault(
            "ready made",
            "a Queue or a Condition is made, where semaphores and a lock are to do",
            line_of(history, "Queue", "SimpleQueue", "JoinableQueue", "Condition"),
            0,
        )
    if history.ordered:
        yield from slots(history, size)
        yield from no_timeout(history, "acquire", 2, first="acquire")
        yield from no_asking(history, count + 3, "read", kind="Array", what="looks at the ends")
    for number in range(pairs + 1, 2 * pairs + 1):
        found = sum(1 for _ in history.of("write", kind="Array", worker=f"Process-{number}"))
        if found < count:
            name = "less work" if found else "no work"
            yield Fault(name, f"Process-{number} takes {found} of {count} items", line_of(history, "start"))


def slots(history, size):
    full = {}
    for op in history.of("read", "write", on="slots"):
        if op.part is None:
            continue
        if op.part >= size:
            yield Fault("more slots", f"slot {op.part + 1} is used, and there are {size}", op.line, op.at)
            return
        if op.does == "write":
            if full.get(op.part):
                yield Fault("over it", f"{op.worker} writes over an item that nobody has taken", op.line, op.at)
                return
            full[op.part] = True
        else:
            if not full.get(op.part):
                yield Fault("from nothing", f"{op.worker} takes from a slot in which there is nothing", op.line, op.at)
                return
            full[op.part] = False


def semaphores(history):
    return sum(1 for one in history.made if one.kind in ("Semaphore", "BoundedSemaphore"))


NOTES = (
    Note(
        "ready made",
        lambda history, fault: fault.name == "ready made",
        "That is right, and somebody else's work. Here you make what is in it.",
    ),
    Note(
        "more slots",
        lambda history, fault: fault.name == "more slots",
        "With more slots it goes wrong later. A producer that is faster for long enough fills any number of them.",
    ),
    Note(
        "waits with the lock",
        lambda history, fault: fault.name == "deadlock" and semaphores(history) > 1 and "and holds" in fault.text,
        "It waits for a semaphore and has the lock meanwhile, so the one who would release the semaphore"
        " cannot come in.",
    ),
    Note(
        "asks again and again",
        lambda history, fault: (
            fault.name in ("asks again and again", "no progress", "too long")
            or (fault.name == "deadlock" and not semaphores(history))
        ),
        "It looks until there is room, or an item, and keeps a core busy with it; with the lock in hand it"
        " keeps all others out too.",
    ),
    Note(
        "no lock",
        lambda history, fault: fault.name in ("over it", "from nothing") and not history.makes("Lock", "RLock"),
        "The semaphores let in as many as there are slots; that can be two at once, who read the same end"
        " without a lock.",
    ),
    Note(
        "one semaphore",
        lambda history, fault: fault.name in ("over it", "from nothing") and semaphores(history) == 1,
        "One of the two sides waits now, and the other one still does not.",
    ),
    Note(
        "a sleep",
        lambda history, fault: fault.name in ("over it", "from nothing") and history.any("sleep"),
        "A sleep orders nothing: whoever is to wait must wait for the other one, not for a time.",
    ),
    Note(
        "nobody waits",
        lambda history, fault: fault.name in ("over it", "from nothing") and not semaphores(history),
        "The lock keeps two from being inside at once. It does not make anybody wait for a slot, or for an item.",
    ),
)
