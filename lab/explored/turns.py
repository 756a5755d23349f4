"""Turns: the operations of a schedule, each of which waits until the one before it has been done.

Each worker that has turns has a gate, a semaphore of the place itself, on which it waits; who has done a step opens the gate
of whoever is next. When all turns have been taken, nothing waits any longer. So where a schedule ends in a deadlock, the
operations that never came are done on the place's own primitives, and block there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lab.errors import LabError
from lab.explored.naming import calling_line
from lab.explored.schedule import Turn

PATIENCE = 60.0
"""Seconds in which a turn must come, and an answer must become the one that is expected."""


class Diverged(LabError, RuntimeError):
    """The program does not go as it went when its schedule was found."""


class CannotForce(LabError, NotImplementedError):
    """What can be explored and not forced."""


class Turns:
    """The turns of one worker.

    Args:
        turns: All turns.
        gates: A semaphore for each worker that has one.
        finished: A semaphore that is opened after the last one.
        worker: Whose turns these are.
    """

    def __init__(self, turns: list[Turn], gates: dict[str, Any], finished: Any, worker: str) -> None:
        self.turns, self.gates, self.finished, self.worker = turns, gates, finished, worker
        self._mine = [index for index, turn in enumerate(turns) if turn.worker == worker]
        self._at = 0
        self.levels: dict[int, int] = {}

    def of(self, worker: str) -> Turns:
        """The turns of another one."""
        return Turns(self.turns, self.gates, self.finished, worker)

    def has(self, operation: str) -> bool:
        """Whether the next turn of this worker is of this operation."""
        return self._at < len(self._mine) and self.turns[self._mine[self._at]].operation == operation

    @contextmanager
    def take(self, operation: str) -> Iterator[Turn | None]:
        """Wait for the turn, and let the next one go on afterwards; None when there are no turns any more.

        Raises:
            Diverged: It does not come, or is another one's.
        """
        if self._at == len(self._mine):
            # Excluded: an operation that never came in the schedule overtakes one that did.
            if not self.finished.acquire(True, PATIENCE):
                raise Diverged(f"{self.worker} has done its turns, and the others do not end theirs.")
            self.finished.release()
            yield None
            return
        index = self._mine[self._at]
        turn = self.turns[index]
        line = turn.line if operation == "end" else calling_line()[1]
        if (turn.operation, turn.line) != (operation, line):
            raise Diverged(f"{self.worker} is at {operation}, line {line}; the schedule has {turn}.")
        before = self.turns[index - 1].worker if index else self.worker
        first = index == 0
        if not first and before != self.worker and not self.gates[self.worker].acquire(True, PATIENCE):
            raise Diverged(f"The turn {index + 1} did not come: {turn}.")
        self._at += 1
        released = False

        def release() -> None:
            nonlocal released
            if not released:
                released = True
                self._release(index)

        self.early = release
        try:
            yield turn
        finally:
            release()

    def _release(self, index: int) -> None:
        if index + 1 == len(self.turns):
            self.finished.release()
        elif (following := self.turns[index + 1].worker) != self.worker:
            self.gates[following].release()


_here = threading.local()


def here() -> Turns:
    """The turns of the worker that asks."""
    turns: Turns = _here.turns
    return turns


def enter(turns: Turns) -> None:
    """From now on, these are the turns of this worker."""
    _here.turns = turns


def take(operation: str) -> Any:
    """Wait for the turn of an operation (``Turns.take``)."""
    return here().take(operation)


def ask(operation: str, question: Callable[[], Any]) -> Any:
    """Ask the place, at its turn, until it gives the answer of the schedule: what was done must have arrived first."""
    with take(operation) as turn:
        answer = question()
        deadline = time.monotonic() + PATIENCE
        while turn is not None and turn.result is not None and answer != turn.result:
            if time.monotonic() > deadline:
                raise Diverged(f"{turn}: {answer!r} instead of {turn.result!r}.")
            time.sleep(0.002)
            answer = question()
        return answer
