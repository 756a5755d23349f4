"""Fewer slices than there are, where they are too short to be seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from producer.trace.lanes import Slice


def thinned(lanes: list[list[Slice]], most: int) -> tuple[list[list[Slice]], int]:
    """Lanes with no more than ``most`` slices, and the nanoseconds below which one may have been joined with others.

    Slices in a row that are shorter than that become one, of the state that most of their time was spent in. 0 says that all
    are there.
    """
    count = sum(map(len, lanes))
    if count <= most:
        return lanes, 0
    span = max((lane[-1].end - lane[0].start for lane in lanes if lane), default=1)
    low, high = 0, max(1, span // 100_000)
    while sum(map(len, fewer := _all_joined(lanes, high))) > most and high <= span:
        low, high = high, high * 4
    for _ in range(4):  # a quarter of what was too little need not be what is needed
        middle = (low + high) // 2
        if sum(map(len, closer := _all_joined(lanes, middle))) <= most:
            fewer, high = closer, middle
        else:
            low = middle
    return fewer, high


def _all_joined(lanes: list[list[Slice]], quantum: int) -> list[list[Slice]]:
    return [list(_joined(lane, quantum)) for lane in lanes]


def _joined(lane: list[Slice], quantum: int) -> Iterable[Slice]:
    waiting: list[Slice] = []
    for piece in lane:
        if waiting and (piece.end - piece.start >= quantum or piece.end - waiting[0].start > 2 * quantum):
            yield _one(waiting)
            waiting = []
        if piece.end - piece.start >= quantum:
            yield piece
        else:
            waiting.append(piece)
    if waiting:
        yield _one(waiting)


def _one(several: list[Slice]) -> Slice:
    if len(several) == 1:
        return several[0]
    spent: Counter[str] = Counter()
    for piece in several:
        spent[piece.state] += piece.end - piece.start
    state = spent.most_common(1)[0][0]
    same = [piece for piece in several if piece.state == state]
    longest = max(same, key=lambda piece: piece.end - piece.start)
    many = sum(piece.many for piece in several)
    return Slice(several[0].start, several[-1].end, state, longest.on, longest.at, longest.of, many)


def shares(counts: list[int], total: int) -> list[int]:
    """How many of ``total`` each one may have that has so many: who needs less leaves the rest to the others."""
    found = [0] * len(counts)
    left = total
    for done, index in enumerate(sorted(range(len(counts)), key=counts.__getitem__)):
        found[index] = min(counts[index], left // (len(counts) - done))
        left -= found[index]
    return found
