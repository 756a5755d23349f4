"""A run's keeper, as its program sees it: a small process beside it that beats while the program cannot.

A thread of the program beats as well, but whatever holds the GIL, a long call of C code, holds that thread up too. Then the
children of a program that works would be killed, and its keys expire. What the keeper does is in ``heartbeat``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).with_name("heartbeat.py")

STARTS = 3
"""How often a keeper that has died is replaced. After that, or where none can be started, the program beats alone."""


class Keeper:
    """The process, started and ended by the thread that beats or by whoever ends the run.

    It leads a session of its own, so that no key on the terminal reaches it, and holds no descriptor of the program but the
    ends of two pipes. It ends when nobody holds the other end of the one that it reads, or when its parent is another:
    whatever ends the program.

    Args:
        options: How to connect to Redis (``Store.connection_options``).
        beat: The text of the script that beats, and the command that runs it.
        silence: Seconds between two beats at most.
        last: The command of the last beat, for a program that was killed: others need not wait as long as for one that lives.
    """

    def __init__(
        self, options: dict[str, Any], beat: tuple[Any, ...], silence: float, last: tuple[Any, ...] = ()
    ) -> None:
        text, *command = beat
        about = {"root": os.getpid(), "options": options, "script": text, "beat": command, "last": last}
        about["silence"] = silence
        self._about = json.dumps(about).encode() + b"\n"
        self._pid, self._starts = os.getpid(), 0
        self._silence, self._heard = 4 * silence, 0.0
        self._process: subprocess.Popen[bytes] | None = None
        _KEEPERS.add(self)

    @property
    def pid(self) -> int | None:
        """Of the process; None if there is none."""
        return self._process.pid if self._process is not None else None

    def look(self) -> bool:
        """Whether there is a keeper that beats; starts one if there is none and it can.

        Excluded, as it says so each time: relying on one that is stopped, or that Redis lets in no more.
        """
        if self._process is not None and self._process.poll() is not None:
            self._let_go()
        if self._process is None and self._starts < STARTS and sys.executable and not getattr(sys, "frozen", False):
            self._starts += 1
            with suppress(OSError, subprocess.SubprocessError):
                self._start()
        if self._process is None:
            return False
        assert self._process.stdout is not None
        if self._process.stdout.read(1 << 16):  # None if nothing has come
            self._heard = time.monotonic()
        return time.monotonic() - self._heard < self._silence

    def _start(self) -> None:
        # -I and -S: nothing of the program's surroundings, and of the library only what it names
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            bufsize=0,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        self._process.stdin.write(self._about)  # not as an argument: a password is in it

    def close(self) -> None:
        """End the process, which has nothing to tidy up. A forked copy of the program has no keeper to end."""
        self._starts = STARTS
        if self._process is not None and self._pid == os.getpid():
            self._process.kill()
            self._process.wait()
            self._let_go()

    def _let_go(self) -> None:
        process, self._process = self._process, None
        assert process is not None
        for end in (process.stdin, process.stdout):
            assert end is not None
            end.close()

    def after_fork(self) -> None:
        """In a forked child: hold the pipes no longer, and forget the process, which is the parent's."""
        if self._process is not None:
            self._process.returncode = 0  # it is not this process's to wait for
            self._let_go()
            self._starts = STARTS


_KEEPERS: weakref.WeakSet[Keeper] = weakref.WeakSet()


def _after_fork() -> None:
    for keeper in list(_KEEPERS):
        keeper.after_fork()


os.register_at_fork(after_in_child=_after_fork)
