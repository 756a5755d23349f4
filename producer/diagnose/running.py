"""A script, run within a time: what came of it, what nobody heard of, and where each process stood when it was ended."""

from __future__ import annotations

import json
import linecache
import os
import re
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from lab.program import observed
from producer.session import Session

MARK = "CROSSHOST_DIAGNOSED"
"""A variable of the script's processes, by which they are known when they have left its session."""
APART = 1.0
"""Seconds between two looks at where a script stands."""
ANSWER = 3.0
"""Seconds that a process has to say where it is."""
FRAME = re.compile(r'^  File "(?P<file>.*)", line (?P<line>\d+) in (?P<function>.*)$')
ESCAPED = re.compile(r"\\x([0-9a-f]{2})|\\u([0-9a-f]{4})|\\U([0-9a-f]{8})")
WAITING = ("threading.py", "connection.py", "synchronize.py", "queues.py", "selectors.py", "popen_fork.py", "queue.py")
"""Modules of the standard library whose innermost functions wait."""
OUTSIDE = ("accept", "serve_forever")
SLEEPS = re.compile(r"\bsleep\(|\.pause\(|\binput\(")
TOLD = 2000
"""Characters of what it complained of that are kept."""


@dataclass(frozen=True)
class Frame:
    """A call that a thread is in: file, line and function."""

    file: str
    line: int
    function: str


@dataclass(frozen=True)
class Stand:
    """Where a process stands.

    Attributes:
        pid: Its id.
        name: What multiprocessing calls it.
        threads: The calls of each thread, innermost first; the main one comes first.
        cpu: Seconds of processor time so far; 0 where that cannot be known.
    """

    pid: int
    name: str
    threads: tuple[tuple[Frame, ...], ...]
    cpu: float

    def own(self, file: str, thread: int = 0) -> Frame | None:
        """The innermost call of a thread that is in a file; None if there is none."""
        calls = self.threads[thread] if thread < len(self.threads) else ()
        return next((frame for frame in calls if frame.file == file), None)

    def of_script(self, file: str) -> list[tuple[Frame, ...]]:
        """The calls of its main thread, and of those that are in a file; others, such as a pool's, go round by themselves."""
        return [calls for number, calls in enumerate(self.threads) if not number or self.own(file, number)]

    def waits(self, file: str) -> bool:
        """Whether these threads of it are all in a function that waits; what processor time it takes is then a pool's."""
        return all(calls and os.path.basename(calls[0].file) in WAITING for calls in self.of_script(file))

    def inside(self, *functions: str) -> bool:
        """Whether a thread of it is in one of these functions."""
        return any(frame.function in functions for calls in self.threads for frame in calls)

    def waits_in(self, thread: int = 0) -> tuple[str, str]:
        """The innermost call of a thread: file name and function."""
        calls = self.threads[thread] if thread < len(self.threads) else ()
        return (os.path.basename(calls[0].file), calls[0].function) if calls else ("", "")


@dataclass(frozen=True)
class Ran:
    """What came of a run.

    Attributes:
        place: Where it ran.
        method: Its start method, if it was chosen for it.
        code: Its exit code; None when it had to be ended.
        seconds: How long it took.
        stdout, stderr: What it printed.
        events: What was observed.
        stands: Where each process stood when it had to be ended.
        still: Whether nothing moved any more then.
    """

    place: str
    method: str
    code: int | None
    seconds: float
    stdout: str
    stderr: str
    events: list[dict[str, Any]] = field(repr=False)
    stands: list[Stand]
    still: bool

    def noted(self, event: str) -> list[dict[str, Any]]:
        """What was observed of a kind."""
        return [each for each in self.events if each["event"] == event]

    @cached_property
    def asleep(self) -> bool:
        """Whether somebody only slept when it was ended, or waited for somebody outside, as a server does."""
        main = self.stands[0].threads[:1] if self.stands else ()
        serves = any(frame.function in OUTSIDE for calls in main for frame in calls)
        innermost = [calls[0] for stand in self.stands for calls in stand.threads if calls]
        # what is written in C has no frame of its own: it is the line that tells
        return serves or any(SLEEPS.search(linecache.getline(frame.file, frame.line)) for frame in innermost)

    @property
    def hangs(self) -> bool:
        """Whether it did not end, and nobody moved who only slept or served."""
        return self.code is None and self.still and not self.asleep


def run(script: str, args: list[str], place: str, method: str, limit: float) -> Ran:
    """Run a script, to its end or to its limit; nothing of it is left.

    Args:
        script: Its path.
        args: Its arguments.
        place: Where.
        method: Start method for processes, unless the script sets one; empty for the place's own.
        limit: Seconds.
    """
    token = secrets.token_hex(8)
    env = {**os.environ, MARK: token, "PYTHONUNBUFFERED": "1", **({"CROSSHOST_START_METHOD": method} if method else {})}
    with tempfile.TemporaryDirectory() as folder:
        notes = os.path.join(folder, "notes")
        command = [sys.executable, "-P", "-m", "producer.diagnose.inside", notes, place, script, *args]
        begun = time.perf_counter()
        stands: list[Stand] = []
        still = False
        try:
            with Session(command, env) as session:
                if session.wait(limit) is None:
                    stands, still = _look(notes, os.path.abspath(script))
        finally:
            _end_marked(token)
        seconds, events = time.perf_counter() - begun, list(_notes(notes))
        return Ran(place, method, session.code, seconds, session.out, session.err[-TOLD:], events, stands, still)


def _look(notes: str, script: str) -> tuple[list[Stand], bool]:
    """Where all processes stand, and whether they stood there a while before."""
    before = {stand.pid: stand for stand in _stands(notes)}
    time.sleep(APART)
    after = _stands(notes)
    still = bool(after) and all(
        stand.pid in before
        and stand.of_script(script) == before[stand.pid].of_script(script)
        and (stand.waits(script) or stand.cpu - before[stand.pid].cpu < APART / 10)
        for stand in after
    )
    return after, still


def _stands(notes: str) -> list[Stand]:
    names = {each["pid"]: each["name"] for each in _notes(notes) if each["event"] == "process"}
    return [Stand(pid, name, _ask(notes, pid), _cpu(pid)) for pid, name in names.items() if _alive(pid)]


def _ask(notes: str, pid: int) -> tuple[tuple[Frame, ...], ...]:
    """The stacks of a process, which it writes when it is sent a signal."""
    path = Path(f"{notes}.{pid}")
    if observed.SIGNAL is None or not path.exists():
        return ()
    begin = path.stat().st_size
    with suppress(ProcessLookupError):
        os.kill(pid, observed.SIGNAL)
    deadline, size = time.monotonic() + ANSWER, begin
    while time.monotonic() < deadline:
        time.sleep(0.05)
        now = path.stat().st_size
        if now == size and size > begin:
            break
        size = now
    return _threads(path.read_text(errors="replace")[begin:])


def _threads(text: str) -> tuple[tuple[Frame, ...], ...]:
    """Faulthandler's text as stacks, that of the thread which was asked first: signals go to the main thread."""
    stacks: list[tuple[bool, list[Frame]]] = []
    for line in text.splitlines():
        if line.startswith(("Thread ", "Current thread ")):
            stacks.append((line.startswith("Current"), []))
        elif stacks and (found := FRAME.match(line)):
            stacks[-1][1].append(Frame(_unescaped(found["file"]), int(found["line"]), _unescaped(found["function"])))
    return tuple(tuple(frames) for _, frames in sorted(stacks, key=lambda each: not each[0]))


def _unescaped(text: str) -> str:
    """A name as it was before faulthandler wrote what is not ASCII with backslashes."""
    return ESCAPED.sub(lambda found: chr(int(found[1] or found[2] or found[3], 16)), text)


def _alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        try:
            return stat.read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def _cpu(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / float(os.sysconf("SC_CLK_TCK"))


def _end_marked(token: str) -> None:
    """End what has left the session of a script."""
    marked = f"{MARK}={token}".encode()
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if marked in environ.read_bytes():
                os.kill(int(environ.parent.name), signal.SIGKILL)


def _notes(path: str) -> Iterator[dict[str, Any]]:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return
    for line in lines:
        with suppress(ValueError):  # of one that was killed while it wrote
            yield json.loads(line)
