"""A fleet for the tests of this room, and programs on it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from lab.watching.reader import Reader
from lab.watching.state import Fleet
from lab.watching.watcher import Watcher
from tests import ROOT
from tests.kit.processes import die_with_us
from tests.kit.server import Server
from tests.kit.wait import until

STUCK = ROOT / "tests" / "programs" / "stuck.py"
COUNTED = ROOT / "tests" / "programs" / "counted.py"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("watched"), hosts=2, slots=4) as server:
        yield server


@contextmanager
def running(server: Server, *names: str, script: Path = STUCK) -> Iterator[subprocess.Popen[str]]:
    """A program whose processes do what the names say; it is interrupted in the end, and ends its processes."""
    command = [sys.executable, "-m", "producer", "run", str(script), "--on", "cluster", *names]
    with subprocess.Popen(
        command, env=server.env, stdout=subprocess.PIPE, text=True, preexec_fn=die_with_us, cwd=server.directory
    ) as program:
        try:
            assert program.stdout
            assert program.stdout.readline() == "up\n"
            yield program
        finally:
            program.send_signal(signal.SIGINT)
            try:
                program.wait(30)
            finally:
                program.kill()


@pytest.fixture
def programs(server: Server) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts such programs, for one test."""
    with ExitStack() as stack:
        yield lambda *names: stack.enter_context(running(server, *names))
    # the next test looks at a fleet on which nothing runs
    watcher = Watcher(Reader(server.url), server.settings)
    until(lambda: not watcher.look().runs, "the processes have ended")


@pytest.fixture
def watcher(server: Server) -> Watcher:
    return Watcher(Reader(server.url), server.settings)


def seen(watcher: Watcher, condition: Callable[[Fleet], object]) -> Fleet:
    """The first look in which something is so."""
    looks: list[Fleet] = []

    def look() -> object:
        looks.append(watcher.look())
        return condition(looks[-1])

    until(look, "it is seen")
    return looks[-1]


def producer(server: Server, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "producer", *args],
        env={**server.env, "COLUMNS": "110", **env},
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(os.getcwd()),
    )


def line_of(text: str, after: str) -> int:
    """The number of the first line of the program that has a text, after the one that begins a function."""
    lines = STUCK.read_text().splitlines()
    begun = lines.index(next(line for line in lines if line.startswith(f"def {after}(")))
    return begun + next(i for i, line in enumerate(lines[begun:], 1) if text in line)
