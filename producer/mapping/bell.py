"""A bell: what any thread rings and one waits for, beside other descriptors."""

from __future__ import annotations

import os
from contextlib import suppress


class Bell:
    """A pipe with a byte in it while it rings."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)

    def fileno(self) -> int:
        """Descriptor that is readable while it rings."""
        return self._reader

    def ring(self) -> None:
        """Ring; nothing more when it rings already, so that a full pipe does no harm."""
        with suppress(BlockingIOError):
            os.write(self._writer, b"!")

    def hush(self) -> None:
        """Stop ringing; to be called before looking for the reason, so that no ring is missed."""
        with suppress(BlockingIOError):
            while len(os.read(self._reader, 4096)) == 4096:
                pass
