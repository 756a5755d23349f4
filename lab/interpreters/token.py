"""What interpreters have in place of a lock: a token in a queue, and who has taken it may go on."""

from __future__ import annotations

from typing import Any

from lab.interpreters.api import interpreters


class Token:
    """A lock made of a queue of ``concurrent.interpreters``, which holds one item while nobody has the lock.

    Python's interpreters share no lock (PEP 734): what they share is a queue. Nobody is woken by it, either: who finds it
    empty looks again every 10 ms.
    """

    def __init__(self) -> None:
        self._queue: Any = interpreters().create_queue()
        self._queue.put(None)

    def __enter__(self) -> None:
        self._queue.get()

    def __exit__(self, *exc_info: object) -> None:
        self._queue.put(None)
