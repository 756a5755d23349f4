"""What a run did: one operation after the other, in the same words whether it was explored or traced on a real place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from lab.explored.scheduler import Scheduler
from lab.trace.events import Trace

HELD = ("Lock", "RLock", "Semaphore", "BoundedSemaphore")
_WORDS = {
    "read": "read", "written": "write", "got": "acquire", "released": "release", "put": "put", "taken": "get",
    "sent": "send", "received": "recv", "set": "set", "starts": "start", "joined": "join", "signalled": "terminate",
    "begun": "call", "done": "answer", "notified": "notify", "gave up": "give up",
}  # fmt: skip
"""The words of a trace, as an exploration says them; what is not here is of no concern to a claim."""


@dataclass(frozen=True)
class Op:
    """One operation.

    Attributes:
        at: Its number in the history.
        worker: Who did it: ``main``, ``Process-1``.
        does: What was done: ``read``, ``write``, ``acquire``, ``put`` ...
        on: To what, as the program calls it (explored), or as the trace does.
        kind: Of that: ``Value``, ``Lock`` ...
        part: Of an array, which element; None for all of it, or where it is not known.
        line: Of the program.
        result: What it returned, or took out of a queue, where that is a truth value or a number.
        expired: Whether its time was up.
    """

    at: int
    worker: str
    does: str
    on: str
    kind: str
    part: int | None
    line: int
    result: Any = None
    expired: bool = False

    @property
    def took(self) -> bool:
        """Whether a lock is its worker's from now on."""
        return (
            self.kind in HELD and not self.expired and (self.does == "acquire" or (self.does == "try" and self.result))
        )


@dataclass(frozen=True)
class Made:
    """A primitive that was made.

    Attributes:
        kind: ``Lock``, ``Queue`` ...
        on: What the program calls it.
        by: The worker that made it.
        bound: Of a queue, how much it holds; 0 if there is no bound.
    """

    kind: str
    on: str
    by: str
    bound: int = 0


@dataclass
class History:
    """A run.

    Attributes:
        ops: What was done, in this order.
        made: What was made.
        ordered: Whether the order is exact: it is if explored; on a real place two clocks never quite agree.
        source: The program's text.
    """

    ops: list[Op]
    made: list[Made]
    ordered: bool
    source: str
    _held: list[frozenset[str]] = field(default_factory=list, repr=False)

    @classmethod
    def explored(cls, scheduler: Scheduler, source: str) -> History:
        """The history of an explored run."""
        objects = scheduler.objects
        ops = []
        for at, step in enumerate(scheduler.trace):
            touched = step.touches[0] if step.touches else None
            kind = objects[touched.key].kind if touched else ""
            part = touched.part if touched else None
            on = objects[touched.key].label if touched else step.child
            ops.append(
                Op(
                    at,
                    step.worker,
                    step.kind,
                    on,
                    kind,
                    part,
                    step.where[1],
                    step.item if step.result is None else step.result,
                    step.expired,
                )
            )
        made = [
            Made(one.kind, one.label, key.partition("/")[0], getattr(one, "maxsize", 0)) for key, one in objects.items()
        ]
        return cls(ops, made, True, source)

    @classmethod
    def traced(cls, trace: Trace, source: str) -> History:
        """The history of a run on a real place."""
        starts = [event.item for event in trace.events if event.event == "starts"]
        numbered = {
            item: f"Process-{number}" for number, item in enumerate(starts, 1)
        }  # whatever the program calls them
        names: dict[str, str] = {}
        ops: list[Op] = []
        made: list[Made] = []
        for event in trace.events:
            if event.event == "started":
                names[event.who] = numbered.get(event.item) or str(event.more.get("name") or event.who)
            elif event.event == "made":
                made.append(Made(str(event.more.get("kind", "")), event.on, names.get(event.who, "main")))
            elif event.event in _WORDS:
                kind = event.on.rstrip("0123456789").strip() if "'s lock" not in event.on else "RLock"
                line = event.at.rpartition(":")[2]
                ops.append(
                    Op(
                        len(ops), names.get(event.who, "main"), _WORDS[event.event], event.on, kind, None,
                        int(line) if line.isdigit() else 0, event.more.get("value"),
                    )
                )  # fmt: skip
        return cls(ops, made, False, source)

    @property
    def workers(self) -> list[str]:
        """The processes that were started, in the order of their start; the main one is none."""
        return list(dict.fromkeys(op.worker for op in self.ops if op.worker != "main"))

    @property
    def started(self) -> int:
        """How many processes were started."""
        return sum(op.does == "start" for op in self.ops)

    def of(self, *does: str, on: str = "", kind: str = "", worker: str = "", others: bool = False) -> Iterator[Op]:
        """The operations of one of these words; on one thing, on a kind of things, by one worker, if these are given.

        With ``others``, not those of the main process.
        """
        for op in self.ops:
            if (
                (not does or op.does in does)
                and (not on or op.on == on)
                and (not kind or op.kind == kind)
                and (not worker or op.worker == worker)
                and not (others and op.worker == "main")
            ):
                yield op

    def any(self, *does: str, on: str = "", kind: str = "", worker: str = "", others: bool = False) -> bool:
        """Whether there is such an operation."""
        return next(self.of(*does, on=on, kind=kind, worker=worker, others=others), None) is not None

    def makes(self, *kinds: str, by_workers: bool = False) -> bool:
        """Whether the program made one of these; in a process that was started, if that is asked for.

        The lock that a Value or a Condition brings with it was not made by the program.
        """
        mine = [one for one in self.made if one.kind in kinds and not one.on.endswith("'s lock")]
        return any(one.by != "main" or not by_workers for one in mine)

    def holding(self, op: Op) -> frozenset[str]:
        """The locks that a worker has when it does something."""
        if not self._held:
            now: dict[str, frozenset[str]] = {}
            for each in self.ops:
                mine = now.get(each.worker, frozenset())
                self._held.append(mine)
                if each.took:
                    now[each.worker] = mine | {each.on}
                elif each.does == "release":
                    now[each.worker] = mine - {each.on}
        return self._held[op.at]
