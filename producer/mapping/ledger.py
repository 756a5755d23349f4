"""Which items are done: all up to one, and some islands after it; and a digest of them, to know the input again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

from lab.errors import ExitCode, LabError
from producer.mapping.reader import Item


class Changed(LabError, ValueError):
    """The input or the function is not the one that the journal tells of."""

    exit_code = ExitCode.USAGE


class Ledger:
    """The items done, in memory that does not grow with their number: it grows with the gaps between them.

    Attributes:
        prefix: All items before this index are done.
        replayed: Bytes of the input that an earlier run had done.
    """

    def __init__(self) -> None:
        self.prefix = self.replayed = 0
        self._hash = hashlib.blake2b(digest_size=16)
        self._islands: dict[int, bytes] = {}  # first index -> digests of the items, eight bytes each

    def add(self, items: Sequence[Item]) -> None:
        """Enter successive items as done."""
        self._islands[items[0].index] = b"".join(item.digest for item in items)
        while (digests := self._islands.pop(self.prefix, None)) is not None:
            self._hash.update(digests)
            self.prefix += len(digests) // 8

    def to_json(self) -> dict[str, Any]:
        """The ledger as plain JSON types."""
        return {
            "prefix": self.prefix,
            "digest": self._hash.hexdigest(),
            "islands": [[first, len(each) // 8, _digest(each)] for first, each in sorted(self._islands.items())],
        }

    def replay(self, items: Iterator[Item], state: dict[str, Any]) -> Iterator[Item]:
        """The items that are not done, by a ledger that was written as JSON; this one is brought to its state.

        What is done is read again, and compared, before the first item that is not done comes out.

        Raises:
            Changed: An item is not what it was, or no longer there.
        """
        end = max([state["prefix"], *(first + n for first, n, _ in state["islands"])])
        done = [False] * (end - state["prefix"])
        for first, n, _ in state["islands"]:
            done[first - state["prefix"] : first - state["prefix"] + n] = [True] * n
        left: list[Item] = []  # of the gaps between islands: as few as were in flight
        found: dict[int, Item] = {}
        for item in items if end else ():
            self.replayed += item.size
            if item.index < state["prefix"]:
                self._hash.update(item.digest)
            elif done[item.index - state["prefix"]]:
                found[item.index] = item
            else:
                left.append(item)
                self.replayed -= item.size
            if item.index >= end - 1:
                break
        self.prefix = state["prefix"]
        if self._hash.hexdigest() != state["digest"]:
            raise _changed(f"one of its first {self.prefix:,} items is not what it was")
        for first, n, digest in state["islands"]:
            island = [found[index] for index in range(first, first + n) if index in found]
            if len(island) < n or _digest(b"".join(item.digest for item in island)) != digest:
                raise _changed(f"one of items {first} to {first + n - 1} is not what it was")
            self.add(island)
        yield from left
        yield from items


def _changed(what: str) -> Changed:
    return Changed(
        f"The input has changed since this output was begun: {what}.",
        "To begin anew and lose what the output has: --overwrite instead of --resume",
    )


def _digest(digests: bytes) -> str:
    return hashlib.blake2b(digests, digest_size=16).hexdigest()
