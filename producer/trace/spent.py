"""Where the time of a run went: parts that add up to the time of all its threads."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from producer.trace.lanes import Lane, Picture

PARTS = {
    "computing": "on a core",
    "no core": "ready, but without a core",
    "asleep": "neither: asleep, in the system, or a thread without the GIL",
    "lock": "waiting for a lock that somebody had",
    "message": "waiting for others: messages, events, barriers, processes, answers",
    "operations": "on a primitive, not waiting; on a cluster, the wire: the way to Redis and back",
    "idle": "a pool's worker without a call",
}
"""The parts, in the order in which they are drawn."""

_OF_STATE = {"wants": "lock", "waits": "message", "op": "operations", "idle": "idle"}


@dataclass
class Spent:
    """Nanoseconds by part, of one thread or of many.

    Attributes:
        parts: By the names of ``PARTS``.
        wall: From the first to the last event of each thread.
        measured: Whether the kernel said, for all of them, how long they were on a core.
    """

    parts: Counter[str] = field(default_factory=Counter)
    wall: int = 0
    measured: bool = True

    def add(self, other: Spent) -> None:
        """Add another thread's."""
        self.parts.update(other.parts)
        self.wall += other.wall
        self.measured = self.measured and other.measured


def of_lane(lane: Lane) -> Spent:
    """Where the time of a thread went.

    What it does of its own is told apart by the kernel's count: on a core, ready without one, and the rest.
    """
    spent = Spent(wall=lane.end - lane.start, measured=lane.cpu is not None)
    own = 0
    for piece in lane.slices:
        part = _OF_STATE.get(piece.state)
        if part:
            spent.parts[part] += piece.end - piece.start
        else:
            own += piece.end - piece.start
    cpu = own if lane.cpu is None else min(own, lane.cpu)
    ready = min(own - cpu, lane.ready or 0)
    spent.parts.update({"computing": cpu, "no core": ready, "asleep": own - cpu - ready})
    return spent


def of_picture(picture: Picture) -> Spent:
    """Where the time of a run went, all threads together."""
    whole = Spent()
    for lane in picture.lanes:
        whole.add(of_lane(lane))
    return whole
