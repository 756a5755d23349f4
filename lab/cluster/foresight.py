"""What who takes a lock reads first comes along with the lock: then a locked counter costs a round trip less.

It is what was read first when the lock was held the last time. What came is good for one read, and for as long as nobody in
this process has told Redis anything or heard from it (``Store.mark``). Excluded by that: a value that is older than what this
process knows already, such as one that somebody adds to without the lock, who then says so.
"""

from __future__ import annotations

from typing import Any

from lab.store.run import Run
from lab.store.store import Mark

SMALL = 1024
"""Bytes, at the most, of what comes along: who only tries whether a lock is free gets them for nothing."""


class Foresight:
    """Of one lock, in this process.

    Args:
        run: The run.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._wanted: tuple[Any, ...] | None = None
        self._data: Any = None
        self._good_at: Mark | None = None

    def commands(self) -> list[tuple[Any, ...]]:
        """The command for Redis to run with the lock, if there is one."""
        return [self._wanted] if self._wanted else []

    def came(self, replies: list[Any], good_at: Mark) -> None:
        """This thread has the lock.

        Args:
            replies: To that command, if there was one.
            good_at: The store's mark now, if nobody else has used the store since the lock was asked for.
        """
        if self._data is not None:  # what came the last time, nobody has asked for
            self._wanted = None
        self._data, self._good_at = (replies[0] if replies and self._wanted else None), good_at
        self._run.taken.foresight = self

    def read(self, command: tuple[Any, ...]) -> Any:
        """The reply to a command that reads."""
        first, data, self._data = self._good_at == self._run.store.mark, self._data, None
        if first and data is not None and command == self._wanted:
            return data
        data = self._run.store.call(*command)
        if first:
            self._wanted = command if data is not None and len(data) <= SMALL else None
        return data


def read(run: Run, command: tuple[Any, ...]) -> Any:
    """The reply to a command that reads; it may have come with the lock that this thread has just taken."""
    foresight: Foresight | None = getattr(run.taken, "foresight", None)
    return run.store.call(*command) if foresight is None else foresight.read(command)
