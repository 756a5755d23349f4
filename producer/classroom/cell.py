"""One answer behind walls, watched from outside: its time, its memory, how many processes it has; and its verdict."""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lab.errors import ExitCode, LabError
from producer.classroom.walls import WORK, Plan
from producer.exercise.exercise import EXERCISES

EVERY = 0.1
"""Seconds between two looks at what it uses: the kernel has no event for the memory of several processes."""
MB = 1 << 20
VERDICT = MB
"""Bytes of a verdict, at most."""
PACKAGES = ("lab", "producer", "onloan", "worker")
PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


class NoWalls(LabError, OSError):
    """This system cannot keep a program away from everything else."""

    exit_code = ExitCode.USAGE


@dataclass(frozen=True)
class Limits:
    """What one answer may use.

    Attributes:
        seconds: Of time, in every order, and again in the places.
        memory: Megabytes, of all its processes together.
        processes: Processes and threads at once.
        written: Megabytes of a file, its output among them.
    """

    seconds: float = 120.0
    memory: int = 1024
    processes: int = 64
    written: int = 16

    def __str__(self) -> str:
        return (
            f"{self.seconds:g} s, {self.memory} MB, {self.processes} processes and threads,"
            f" {self.written} MB of any one file"
        )


@dataclass(frozen=True)
class Told:
    """What came out of a cell.

    Attributes:
        verdict: What was told there; None if nothing was.
        ended: Why there is no verdict, in words.
    """

    verdict: dict[str, Any] | None
    ended: str = ""


class Cell:
    """A place for one answer.

    Args:
        limits: What it may use.
        hidden: The class's folder, of which nothing is to be seen.
    """

    def __init__(self, limits: Limits, hidden: Path) -> None:
        self._limits, self._hidden = limits, hidden
        self._process: subprocess.Popen[bytes] | None = None
        self._over = False

    def grade(self, job: dict[str, Any]) -> Told:
        """Grade an answer within.

        Args:
            job: As ``inside`` reads it.

        Raises:
            NoWalls: They could not be built.
        """
        word = secrets.token_hex(16)
        with tempfile.TemporaryFile() as channel, tempfile.TemporaryFile() as errors, tempfile.TemporaryFile() as walls:
            code, broke = self._run(
                [sys.executable, "-P", "-m", "producer.classroom.inside", str(channel.fileno())],
                json.dumps({**job, "word": word}).encode(), channel.fileno(), errors.fileno(), walls.fileno(),
            )  # fmt: skip
            if complaint := _end_of(walls).strip():
                raise no_walls(complaint)
            said = _end_of(errors).strip().splitlines()
            if broke:
                return Told(None, broke)
            channel.seek(0)
            for line in channel.read(VERDICT).decode(errors="replace").splitlines():
                if line.startswith(f"{word} "):
                    with suppress(ValueError):
                        return Told(json.loads(line.removeprefix(f"{word} ")))
        last = f": {said[-1]}" if said else ""
        return Told(None, f"the process that graded it ended before there was a verdict, with exit code {code}{last}")

    def _run(self, command: list[str], given: bytes, channel: int, errors: int, walls: int) -> tuple[int, str]:
        """Run a program behind walls; its exit code, and what limit it has broken, if it has."""
        limits = self._limits
        with tempfile.TemporaryDirectory(prefix="crosshost-grade-") as root:
            plan = Plan(
                root, seen(self._hidden), [str(self._hidden), str(EXERCISES)], command, _environment(), [channel],
                walls, limits.memory * MB, limits.processes, limits.written * MB,
            )  # fmt: skip
            self._process = process = subprocess.Popen(
                [sys.executable, "-P", "-m", "producer.classroom.walls", plan.to_json()],
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=errors, pass_fds=[channel, walls],
                start_new_session=True,
            )  # fmt: skip
            if self._over:  # ended while it began, when there was nothing to be ended yet
                self.end()
            try:
                assert process.stdin is not None
                with suppress(BrokenPipeError), process.stdin as stdin:
                    stdin.write(given)
                broke = self._watch(process)
            finally:
                self.end()
                process.wait()
        return process.returncode, broke

    def _watch(self, process: subprocess.Popen[bytes]) -> str:
        """Wait for its end, or for the limit that it breaks."""
        limits = self._limits
        deadline = time.monotonic() + limits.seconds
        while True:
            with suppress(subprocess.TimeoutExpired):
                process.wait(EVERY)
                return ""
            if time.monotonic() > deadline:
                return f"it had not ended after {limits.seconds:g} seconds, and was ended"
            within = [process.pid, *_below(process.pid)]
            # with those that build the walls; more the kernel does not make
            if sum(map(_threads, within)) >= limits.processes:
                return f"it had all of the {limits.processes} processes and threads that it may have, and was ended"
            if (
                sum(map(_memory, within)) > limits.memory * MB
                and (used := sum(map(_share, within))) > limits.memory * MB
            ):
                return f"it had {used // MB} MB of memory, where {limits.memory} are allowed, and was ended"

    def end(self) -> None:
        """End what runs in it; its init goes with the process that made it, and every other one with the init."""
        self._over = True
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)


def _end_of(file: Any) -> str:
    """The last of what a program has complained of."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 4000))
    text: str = file.read().decode(errors="replace")
    return text


def _below(pid: int) -> Iterator[int]:
    """The processes that a process has started, and those that these have."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, IndexError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    waiting = [pid]
    while waiting:
        for child in children.get(waiting.pop(), []):
            yield child
            waiting.append(child)


def _threads(pid: int) -> int:
    with suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[17])
    return 0


def _memory(pid: int) -> int:
    """Bytes of memory that a process has, but for files; what it has in common with its parent is counted for both."""
    with suppress(OSError, ValueError):
        _, resident, shared, *_ = Path(f"/proc/{pid}/statm").read_text().split()
        return (int(resident) - int(shared)) * PAGE
    return 0


def _share(pid: int) -> int:
    """Bytes of memory that a process has, and its share of what others have as well: exact, and slower to be told."""
    with suppress(OSError):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss_Anon:"))
    return _memory(pid)


def _environment() -> dict[str, str]:
    """The variables of a program behind walls; nothing of a fleet's, and no one's secrets."""
    own = {"PATH": "/usr/bin:/bin", "HOME": WORK, "XDG_STATE_HOME": f"{WORK}/state", "LANG": "C.UTF-8",
           "PYTHONDONTWRITEBYTECODE": "1"}  # fmt: skip
    return own | {name: os.environ[name] for name in ("PYTHONPATH", "LD_LIBRARY_PATH") if name in os.environ}


@cache
def seen(hidden: Path) -> list[str]:
    """What of this system Python and Crosshost need to run, and no folder of modules that has the hidden one in it."""
    paths = {sys.prefix, sys.base_prefix, os.path.realpath(sys.base_prefix)}
    packages = {str(folder) for name in PACKAGES if (folder := _folder(name))}
    roots = {os.path.dirname(folder) for folder in packages}
    link = sys.executable
    for _ in range(10):  # from a virtual environment to the interpreter
        paths.add(os.path.dirname(link))
        if not os.path.islink(link):
            break
        link = os.path.join(os.path.dirname(link), os.readlink(link))
    # a clone has more beside its packages than they need: solutions, for example
    others = {path for path in sys.path if os.path.isdir(path) and path not in roots | {"", os.getcwd()}}
    paths |= packages | {path for path in others if not hidden.is_relative_to(os.path.realpath(path))}
    return sorted(map(os.path.normpath, paths))


def _folder(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    return Path(next(iter(spec.submodule_search_locations))) if spec and spec.submodule_search_locations else None


def no_walls(why: str) -> NoWalls:
    """The error of a system on which a program cannot be walled off."""
    return NoWalls(
        f"This system cannot keep an answer away from the others: {why}.",
        "It takes Linux 5.12, and root or a system on which everybody may make user namespaces. Ubuntu:"
        "\n  sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0"
        "\nOn macOS and Windows, and in a container without these rights: a virtual machine, or WSL."
        "\nA single answer that you have read: producer exercise check FILE",
    )
