"""A few items ahead of the workers: a thread reads, so that a slow input holds up nobody's results."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator

from producer.mapping.bell import Bell
from producer.mapping.reader import Item

AHEAD_ITEMS = 50_000
AHEAD_BYTES = 8 << 20
CHUNK_BYTES = 1 << 20


class Feed:
    """Reads items in a thread, at most ``AHEAD_ITEMS`` and about ``AHEAD_BYTES`` of them ahead.

    Args:
        items: What to read; iterated over in the thread.
        bell: Rung when there is something to take again after ``take`` found nothing, and at the end.
    """

    def __init__(self, items: Iterator[Item], bell: Bell) -> None:
        self._items, self._bell = items, bell
        self._ahead: deque[Item] = deque()
        self._bytes = 0
        self._starving = self._ended = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        threading.Thread(target=self._read, name="input", daemon=True).start()  # it may wait for a pipe for ever

    @property
    def ended(self) -> bool:
        """Whether everything has been taken.

        Raises:
            Exception: What reading the input raised, once all that came before is taken.
        """
        with self._changed:
            over = self._ended and not self._ahead
        if over and self._error:
            raise self._error
        return over

    def take(self, most: int) -> list[Item]:
        """The next items, all successive, at most so many and about ``CHUNK_BYTES``; none if none is there yet."""
        taken: list[Item] = []
        size = 0
        with self._changed:
            while self._ahead and len(taken) < most and size < CHUNK_BYTES:
                if taken and self._ahead[0].index != taken[-1].index + 1:
                    break
                taken.append(self._ahead.popleft())
                size += taken[-1].size
            self._bytes -= size
            # Excluded, by the condition: the thread appending after we looked and before it can see that we starve.
            self._starving = not taken and not self._ended
            self._changed.notify()
        return taken

    def _read(self) -> None:
        try:
            for item in self._items:
                self._append(item)
        except BaseException as exc:  # noqa: BLE001 - raised to who takes
            self._error = exc
        with self._changed:
            self._ended = True
        self._bell.ring()

    def _append(self, item: Item) -> None:
        with self._changed:
            while len(self._ahead) >= AHEAD_ITEMS or self._bytes >= AHEAD_BYTES:
                self._changed.wait()  # until somebody takes; the thread is a daemon, and ends with the program
            self._ahead.append(item)
            self._bytes += item.size
            starving, self._starving = self._starving, False
        if starving:
            self._bell.ring()
