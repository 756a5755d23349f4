"""Who waits for whom, in a circle: a deadlock.

A process that waits for a lock waits for the process that holds it. The looks at a fleet are not atomic, so a circle counts
only if two looks in a row have each of its waits and holds, by tickets that are used once: then all of them were there at
the same time. A process may have several threads, one that waits and another that will let go; ``certain`` says of a
circle that this cannot be.
"""

from __future__ import annotations

from dataclasses import dataclass

from lab.watching.stack import Frame, Stack
from lab.watching.state import Fleet


@dataclass(frozen=True)
class Link:
    """One who waits, and for what: a step of a circle.

    Attributes:
        process: Who waits.
        lock: For which lock.
        since: When it was first seen to wait.
        holder: Who holds that.
        tickets: Of the wait and of the hold; no other has these.
    """

    process: str
    lock: str
    since: int
    holder: str
    tickets: tuple[str, str]


@dataclass(frozen=True)
class Circle:
    """Processes of one run of which each waits for a lock that the next one holds.

    Attributes:
        run: The run.
        links: The first waits for the second, and so on; the last for the first.
    """

    run: str
    links: tuple[Link, ...]


def circles(fleet: Fleet) -> list[Circle]:
    """The circles that one look shows."""
    found: dict[frozenset[Link], Circle] = {}
    for run in fleet.runs:
        waits: dict[str, list[Link]] = {}
        for lock in run.locks:
            if lock.holder:
                for waiter in lock.waiters:
                    link = Link(waiter.process, lock.name, waiter.since, lock.holder, (waiter.ticket, lock.ticket))
                    waits.setdefault(waiter.process, []).append(link)
        done: set[str] = set()
        for start in waits:
            for links in _circles_from(start, waits, done):
                found.setdefault(frozenset(links), Circle(run.id, links))
    return list(found.values())


def _circles_from(start: str, waits: dict[str, list[Link]], done: set[str]) -> list[tuple[Link, ...]]:
    """The circles that a walk along the waits comes upon; each process is gone through once."""
    found: list[tuple[Link, ...]] = []
    path: list[Link] = []
    on_path: list[str] = []
    stack = [(start, iter(waits.get(start, ())))] if start not in done else []
    while stack:
        process, links = stack[-1]
        if len(on_path) < len(stack):
            on_path.append(process)
            done.add(process)
        link = next(links, None)
        if link is None:
            stack.pop()
            on_path.pop()
            if path:
                path.pop()
        elif link.holder in on_path:
            found.append((*path[on_path.index(link.holder) :], link))
        elif link.holder not in done:
            path.append(link)
            stack.append((link.holder, iter(waits.get(link.holder, ()))))
    return found


def lasting(before: Fleet, now: Fleet) -> list[Circle]:
    """The circles that two looks in a row have in common, so that they were there in between."""
    kept = {(circle.run, frozenset(link.tickets for link in circle.links)) for circle in circles(before)}
    return [c for c in circles(now) if (c.run, frozenset(link.tickets for link in c.links)) in kept]


def certain(circle: Circle, stacks: dict[tuple[str, str], Stack]) -> bool:
    """Whether nobody in a circle has another thread of the program's that could let go."""
    told = [stacks.get((circle.run, link.process)) for link in circle.links]
    return all(stack is not None and len(stack.program_threads) == 1 for stack in told)


def waits_at(circle: Circle, link: Link, stacks: dict[tuple[str, str], Stack]) -> Frame | None:
    """The line of the program at which one of a circle waits, if it could be asked."""
    stack = stacks.get((circle.run, link.process))
    return stack.waits_at if stack else None
