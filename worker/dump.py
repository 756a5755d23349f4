"""Where a process is now: the stacks of its threads, which it writes when its host sends it a signal.

They are written by the stdlib's ``faulthandler``, in C, inside the handler of the signal. So it does not matter what the
process is doing: computing in C with the GIL held, waiting for Redis, asleep. Who is never asked has a pipe, and no more.

Nothing says where such a dump ends. But the main thread is the oldest, and so the last in it, and its stack ends where the
process began; so the process says first of all which thread that is.
"""

from __future__ import annotations

import faulthandler
import os
import re
import signal
import sysconfig
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

SIGNAL: int = getattr(signal, "SIGRTMAX", 0) or getattr(signal, "SIGINFO")  # noqa: B009 - macOS has no other to spare
"""One that programs do not use."""

HEADER = re.compile(r"^(Current thread|Thread) (0x[0-9a-f]+)", re.MULTILINE)
FRAME = re.compile(r'^  File "(.*)", line (\d+) in (.*)$', re.MULTILINE)
MOST_BYTES = 1 << 20
"""Of a dump; what writes more into the pipe is no dump."""

_ROOT = Path(__file__).parents[1]
_CHILD = str(_ROOT / "worker" / "child.py")
_CONCEPTS = str(_ROOT / "lab" / "concepts")
_NOT_THE_PROGRAMS = tuple(
    [f"{_ROOT / package}{os.sep}" for package in ("lab", "worker", "producer", "onloan")]
    + [f"{sysconfig.get_path(name)}{os.sep}" for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    + ["<frozen"]
)


def enable(fd: int) -> None:
    """Have this process write its stacks to a descriptor at each ``SIGNAL``; called by its main thread."""
    os.set_inheritable(fd, False)
    os.write(fd, b"%#x\n" % threading.get_ident())
    faulthandler.register(SIGNAL, file=fd, all_threads=True, chain=False)


class Dump:
    """The end of the pipe at which the supervisor reads what one process writes.

    Args:
        fd: It.
    """

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._main = 0
        self._tickets: list[str] = []
        self._text = b""

    def fileno(self) -> int:
        """The descriptor, to select on."""
        return self._fd

    @property
    def closed(self) -> bool:
        """Whether nothing more will come."""
        return self._fd < 0

    def ask(self, ticket: str) -> None:
        """Note that somebody asks, before the signal is sent.

        Args:
            ticket: Names whom to answer.
        """
        self._tickets.append(ticket)

    def read(self) -> bool:
        """Take what is there. Returns False if nothing more will come, as the process has closed its end."""
        try:
            while data := os.read(self._fd, 1 << 16):
                self._take(data)
        except BlockingIOError:
            return True
        return False

    def _take(self, data: bytes) -> None:
        self._text += data
        if not self._main and b"\n" in self._text:
            line, _, self._text = self._text.partition(b"\n")
            with suppress(ValueError):  # the program writes to a descriptor that is not its own
                self._main = int(line, 16)
        if len(self._text) > MOST_BYTES or (self._main and not self._tickets):
            self._text = b""

    def answers(self) -> tuple[list[str], list[dict[str, Any]]]:
        """Whom to answer, and what: the threads of a dump, the current one first. Nobody, if it is not complete."""
        text = self._text.decode(errors="replace")
        headers = list(HEADER.finditer(text))
        if not headers or not self._complete(text, headers[-1]):
            return [], []
        ends = [header.start() for header in headers[1:]] + [len(text)]
        threads = [
            {"current": header[1] != "Thread", "frames": _frames(text[header.end() : end])}
            for header, end in zip(headers, ends, strict=True)
        ]
        tickets, self._tickets, self._text = self._tickets, [], b""
        return tickets, sorted(threads, key=lambda thread: not thread["current"])

    def _complete(self, text: str, last: re.Match[str]) -> bool:
        rest = text[last.end() :]
        if int(last[2], 16) != self._main:
            return "\n...\n" in rest  # there are more threads than it writes
        return any(mark in rest for mark in (f'"{_CHILD}"', "\n  ...\n", "<no Python frame>"))

    def close(self) -> None:
        """Read no more."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _frames(text: str) -> list[dict[str, Any]]:
    """File, line and function of each frame, innermost first; and whether it is the program's, not ours and not Python's.

    What is below the start of the process is its host's, of before the fork.
    """
    frames = []
    for file, line, function in FRAME.findall(text):
        if file == _CHILD:
            break
        frames.append({"file": file, "line": int(line), "function": function, "own": _own(file)})
    return frames


def _own(file: str) -> bool:
    return file.startswith(_CONCEPTS) or not file.startswith(_NOT_THE_PROGRAMS)
