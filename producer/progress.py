"""Where a long command has got to, on stderr.

No thread draws here, as it does in rich's own bars: it would take the GIL from the threads that are being measured.
"""

from __future__ import annotations

import os
from typing import TextIO


class Progress:
    """One line that is rewritten on a terminal, one line a step elsewhere.

    Args:
        stream: Where to write; None for silence.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._rewrites = stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"

    def say(self, text: str) -> None:
        """Show a step that begins."""
        self._write(f"\r\x1b[2K{text}" if self._rewrites else f"{text}\n")

    def tick(self, text: str) -> None:
        """Show how far a step has got, where that does not fill a file with lines."""
        if self._rewrites:
            self.say(text)

    def clear(self) -> None:
        """Take the line off the terminal."""
        if self._rewrites:
            self._write("\r\x1b[2K")

    def _write(self, text: str) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:
            self._stream = None  # nobody watches any more; the work goes on
