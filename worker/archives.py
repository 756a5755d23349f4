"""The programs that a host has been sent: verified archives, in memory, the most recent ones."""

from __future__ import annotations

import os
import tempfile
from collections import OrderedDict

from lab.program import shipped
from lab.store.run import Run

KEEP = 2 * shipped.LIMIT
"""Bytes of archives that one host keeps."""


def in_memory(data: bytes | memoryview, sealable: bool = False) -> int:
    """A file with these bytes and without a name, for a process to read; its descriptor.

    Args:
        data: The bytes.
        sealable: Whether it can be made one that nobody may write to, where the kernel has that.
    """
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("crosshost", os.MFD_CLOEXEC | (os.MFD_ALLOW_SEALING if sealable else 0))
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]
    return fd


class Archives:
    """The archives of programs by their SHA-256, as files without a name.

    A host fetches an archive when a process names its sum in a sealed head. Processes of any run that name the same sum
    share it, as equal sums mean equal bytes.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def get(self, run: Run, digest: str) -> int:
        """The descriptor of the archive with this sum, fetched if it is not here yet; good until the next call.

        Raises:
            WrongKey: It is not in Redis, or does not open, or is another one.
        """
        if digest not in self._kept:
            archive = shipped.fetch(run, digest)
            self._kept[digest] = in_memory(archive), len(archive)
        self._kept.move_to_end(digest)
        while len(self._kept) > 1 and sum(size for _, size in self._kept.values()) > KEEP:
            _, (fd, _) = self._kept.popitem(last=False)
            os.close(fd)
        return self._kept[digest][0]
