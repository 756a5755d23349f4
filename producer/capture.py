"""What concepts print, kept apart from what the producer writes.

Children inherit file descriptors 1 and 2, not ``sys.stdout``. So the descriptors themselves are pointed at a file for
as long as concepts run, and the producer writes to duplicates of the real ones, which no child inherits.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from typing import IO, Self, TextIO

STDOUT, STDERR = 1, 2
PERIOD = 0.1


class Capture:
    """Sends descriptors of this process, and of the children it starts, to files without a name.

    Args:
        fds: ``STDOUT``, ``STDERR`` or both.

    Attributes:
        real: The streams that the descriptors led to before, by descriptor.
    """

    def __init__(self, *fds: int) -> None:
        self.real: dict[int, TextIO] = {}
        self._files: dict[int, IO[bytes]] = {fd: tempfile.TemporaryFile() for fd in fds}
        self._taken = dict.fromkeys(fds, 0)

    def __enter__(self) -> Self:
        for fd, file in self._files.items():
            _stream(fd).flush()
            self.real[fd] = os.fdopen(os.dup(fd), "w", encoding=sys.stdout.encoding, errors="replace")
            os.dup2(file.fileno(), fd)
        return self

    def __exit__(self, kind: type[BaseException] | None = None, *_: object) -> None:
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            # The command is about to leave. A pool that still runs replaces the workers that Ctrl-C ended, and what
            # those print while they are killed in turn is not for the terminal.
            return
        for fd, stream in self.real.items():
            _stream(fd).flush()
            os.dup2(stream.fileno(), fd)
            stream.close()
            self._files[fd].close()

    def size(self, fd: int) -> int:
        """Bytes that a descriptor has received so far."""
        return os.fstat(self._files[fd].fileno()).st_size

    def take(self, fd: int, end: int | None = None) -> str:
        """What a descriptor has received since it was last taken, up to position ``end``."""
        _stream(fd).flush()
        start = self._taken[fd]
        end = max(start, self.size(fd) if end is None else end)
        self._taken[fd] = end
        # pread: the position of the file is shared with the children, who are writing at it
        return os.pread(self._files[fd].fileno(), end - start, start).decode(errors="replace")


class Relay:
    """Passes stderr on to the terminal a moment late, and not at all once the command is interrupted.

    Ctrl-C reaches every process of the terminal, and each of them would print a traceback for it. The moment's delay is
    what lets the producer hear of the Ctrl-C before it shows them.

    """

    def __init__(self) -> None:
        self._capture = Capture(STDERR)
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="stderr relay", daemon=True)

    def __enter__(self) -> Self:
        self._capture.__enter__()
        self._thread.start()
        return self

    @property
    def real(self) -> TextIO:
        """The stream that leads to the terminal, for what must not be late."""
        return self._capture.real[STDERR]

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._over.set()
        self._thread.join()
        if kind is None or not issubclass(kind, KeyboardInterrupt):
            self.show()
        self._capture.__exit__(kind)

    def show(self, end: int | None = None) -> None:
        """Show what has come in, up to position ``end``."""
        with self._lock:
            text = self._capture.take(STDERR, end)
            if text:
                self.real.write(text)
                self.real.flush()

    def _work(self) -> None:
        older = 0
        while not self._over.wait(PERIOD):
            self.show(older)
            older = self._capture.size(STDERR)


def _stream(fd: int) -> TextIO:
    """The object through which Python writes to a descriptor, and whose buffer must be empty before it moves."""
    return sys.stdout if fd == STDOUT else sys.stderr
