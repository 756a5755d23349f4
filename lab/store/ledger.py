"""Ledger: what a process has got of the messages that it holds, in memory that its host reads when the process is dead.

A process can be killed between any two of its steps, and then nobody hears from it how far it was. But its host lives: the
memory is a file without a name that both have mapped, and to note a number in it costs no system call.
"""

from __future__ import annotations

import mmap
import os
import struct

SLOTS = 512
"""Lists of which a process may hold messages at once."""
SIZE = 8 * SLOTS
"""Bytes of the file, all of them 0 at first."""


def read(fd: int) -> str:
    """What is noted there: a number for each slot, up to the last that is not 0."""
    numbers = struct.unpack(f"={SLOTS}Q", os.pread(fd, SIZE, 0))
    return " ".join(map(str, numbers[: max((n + 1 for n, number in enumerate(numbers) if number), default=0)]))


class Ledger:
    """This process's own.

    Attributes:
        notes: The numbers, by slot; nobody reads those of the program, as with it everything ends.
        pid: The process that it is of, and none that this one has forked.
    """

    def __init__(self) -> None:
        self.notes = memoryview(bytearray(SIZE)).cast("Q")
        self.pid = 0
        self._free = list(reversed(range(SLOTS)))

    def of_program(self) -> None:
        """This process is the program."""
        self.pid = os.getpid()

    def join(self, fd: int) -> None:
        """Write to the ledger that this process was given by its host; the descriptor is closed."""
        self.notes = memoryview(mmap.mmap(fd, SIZE)).cast("Q")
        self.pid = os.getpid()
        os.close(fd)

    def new_slot(self) -> int | None:
        """A slot that nobody else in this process uses; None if there is none."""
        slot = self._free.pop() if self._free else None
        if slot is not None:
            self.notes[slot] = 0
        return slot

    def free(self, slot: int) -> None:
        """It is not used any more."""
        self._free.append(slot)


OWN = Ledger()
