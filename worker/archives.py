"""The programs that a slot has been sent: verified archives, in memory, the most recent ones."""

from __future__ import annotations

from collections import OrderedDict

from lab.cluster import program
from lab.cluster.run import Run

KEEP = 2 * program.LIMIT
"""Bytes of archives that one slot keeps."""


class Archives:
    """The archives of programs by their SHA-256.

    A slot fetches an archive when a process names its sum in a signed head. Processes of any run that name the same sum
    share it, as equal sums mean equal bytes.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[str, bytes] = OrderedDict()

    def get(self, run: Run, digest: str) -> bytes:
        """The archive with this sum, fetched if it is not here yet.

        Raises:
            WrongKey: It is not in Redis, or carries no valid signature, or is another one.
        """
        archive = self._kept.get(digest)
        if archive is None:
            archive = self._kept[digest] = program.fetch(run, digest)
        self._kept.move_to_end(digest)
        while sum(map(len, self._kept.values())) > KEEP:
            self._kept.popitem(last=False)
        return archive
