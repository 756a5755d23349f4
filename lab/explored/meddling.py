"""Meddling: whether what a run ends with is owed to a step that came between what another worker does.

That an item goes to this consumer or to that one is a matter of the order, and no fault. It is one to write over what another
one wrote since it was read, or to look at what nothing orders with the write of another one: no lock that both take, no join,
no queue. Two that write and do not look (``append``, ``put``) only come in some order.
"""

from __future__ import annotations

from collections.abc import Collection

from lab.explored.operation import Step, Touch, lost

DATA = {"Value", "Array", "Namespace", "list", "dict"}
"""The kinds of what is shared to be read and written; whatever else is shared has an order of its own."""
WAITS = {"wait", "join", "recv"}
"""What changes nothing, and waits until it is so: no look."""
_Clock = dict[str, int]


def meddled(trace: list[Step], data: Collection[str]) -> bool:
    """Whether there is such a step in a run.

    Args:
        trace: The run.
        data: Keys of the objects that are data.
    """
    of_data = [(step, step.touches[0]) for step in trace if step.touches and step.touches[0].key in data]
    if any(lost((step.worker, "write" if at.writes else "read", (at.key, at.part)) for step, at in of_data)):
        return True
    return _looked(trace, data)


def _is_look(step: Step) -> bool:
    """Whether it sees how things stand, and goes on either way."""
    if step.expired or step.raised in ("Empty", "Full") or (step.kind == "try" and step.result is False):
        return True
    return step.kind not in WAITS and not any(touch.writes for touch in step.touches)


def _looked(trace: list[Step], data: Collection[str]) -> bool:
    """Whether a look and a write of another worker to the same thing are ordered by nothing."""
    known: dict[str, _Clock] = {}
    wrote: dict[str, _Clock] = {}
    touched: dict[str, _Clock] = {}
    everything: _Clock = {}
    accesses: dict[str, list[tuple[str, int, bool, Touch]]] = {}
    for number, step in enumerate(trace, start=1):
        clock = known.setdefault(step.worker, {})
        if step.expired:  # nobody else could go on: all that happened came before
            _join(clock, everything)
        look = _is_look(step)
        plain = look or (bool(step.touches) and step.touches[0].key in data)
        for touch in step.touches[:1]:
            earlier = accesses.setdefault(touch.key, [])
            for worker, at, looked, other in earlier:
                pair = worker != step.worker and looked != look and touch.meets(other._replace(writes=True))
                if pair and clock.get(worker, 0) < at:
                    return True
            earlier.append((step.worker, number, look, touch))
        if not plain:
            for touch in step.touches:
                _join(clock, (touched if touch.writes else wrote).get(touch.key, {}))
        if step.kind == "join" and step.child and not step.expired:
            _join(clock, known.get(step.child, {}))
        clock[step.worker] = everything[step.worker] = number
        if not plain:
            for touch in step.touches:
                _join(touched.setdefault(touch.key, {}), clock)
                if touch.writes:
                    _join(wrote.setdefault(touch.key, {}), clock)
        if step.kind == "start" and step.child:
            known[step.child] = dict(clock)
    return False


def _join(clock: _Clock, other: _Clock) -> None:
    for worker, at in other.items():
        if at > clock.get(worker, 0):
            clock[worker] = at
