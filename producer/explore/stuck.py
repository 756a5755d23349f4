"""Stuck in C: ends an exploration whose program holds the interpreter and lets nobody else run, and says at which line.

A regular expression that goes astray keeps the GIL, so no thread of Python could tell. The one of ``faulthandler`` can: it
writes where all threads stand into a pipe, and ends the process with 1. At the other end of the pipe a child reads it.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from lab.errors import ExitCode
from lab.explored import pace

_FRAME = re.compile(r'^  File "(.*)", line (\d+) in ', re.MULTILINE)
_OURS = os.path.dirname(os.path.dirname(os.path.abspath(pace.__file__)))


@contextmanager
def watched(name: str, root: str) -> Iterator[None]:
    """Within the block, a program that holds the interpreter for too long ends the process.

    Args:
        name: The program, for the sentence.
        root: Where its files are.
    """
    if not hasattr(os, "fork"):
        yield
        return
    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = os.pipe()
    # Excluded: a fork with threads. This is before the first run, and the child does nothing but read and write.
    child = os.fork()
    if child == 0:
        os.close(writing)
        _tell(reading, name, root)
    os.close(reading)
    pace.watch = writing
    try:
        yield
    finally:
        pace.watch = None
        os.close(writing)
        os.waitpid(child, 0)


def _tell(reading: int, name: str, root: str) -> None:
    """Say where it stood, if anything comes; in the child, which ends here."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's; its end is the pipe's
    with open(reading, encoding="utf-8", errors="replace") as pipe:
        text = pipe.read()
    if text:
        os.write(2, f"{name}: {sentence(text, root)}\n".encode())
    os._exit(0)


def sentence(text: str, root: str) -> str:
    """What a dump of faulthandler says of a program.

    Args:
        text: The dump.
        root: Where the program's files are.
    """
    where = line_in(text, root)
    at = f"at line {where[1]} of {os.path.basename(where[0])}" if where else "at a line that cannot be told"
    return (
        f"NO END  the interpreter was held for too long {at}: in C code that lets nobody else run, as a regular expression"
        f" can. The exploration was ended ({ExitCode.CHECK_FAILED:d})."
    )


def line_in(text: str, root: str) -> tuple[str, int] | None:
    """The innermost line of the program in the thread that runs; None if there is none.

    Args:
        text: A dump of faulthandler, with the innermost frame of each thread first.
        root: Where the program's files are.
    """
    for thread in text.split("\n\n"):
        frames = _FRAME.findall(thread)
        if not frames or frames[0][0].startswith(_OURS + os.sep) or frames[0][0].endswith(f"{os.sep}threading.py"):
            continue  # waits for its turn
        for file, line in frames:
            if os.path.realpath(file).startswith(os.path.join(os.path.realpath(root), "")):
                return file, int(line)
    return None
