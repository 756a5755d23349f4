"""The command: environments, interpreters, rounds, and a table."""

from __future__ import annotations

import argparse
import json
import os
import platform
import select
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.peers.peers import PEERS, REDIS
from benchmarks.peers.works import ROWS, WORKERS

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = ROOT / ".peers"
PATIENCE = 180
"""Seconds that a row, or a start, may take."""


@dataclass
class Measured:
    """What one library has shown in one row: its values, or why there are none."""

    peer: str
    row: str
    unit: str
    values: list[float] = field(default_factory=list)
    cannot: str = ""

    def __str__(self) -> str:
        if not self.values:
            return "-"
        low, middle, high = min(self.values), statistics.median(self.values), max(self.values)
        return f"{_short(middle)} ({_short(low)} to {_short(high)})"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _uv() -> str:
    return shutil.which("uv") or str(ROOT / ".tools" / "bin" / "uv")


def _python(name: str) -> str:
    """The interpreter of a library's environment, which is made if it is not there."""
    packages = PEERS[name][0]
    if not packages:
        return sys.executable
    home = ENVIRONMENTS / "".join(filter(str.isalnum, name)).lower()
    python, installed = home / "bin" / "python", home / "installed"
    if not installed.exists() or installed.read_text() != str(packages):
        print(f"installing {' '.join(packages)} ...", file=sys.stderr, flush=True)
        subprocess.run([_uv(), "venv", "-q", "--clear", "--python", sys.executable, str(home)], check=True)
        subprocess.run([_uv(), "pip", "install", "-q", "--python", str(python), *packages], check=True)
        installed.write_text(str(packages))
    return str(python)


@contextmanager
def _redis() -> Iterator[str]:
    """A Redis for one library; its URL."""
    from tests.kit.server import Server

    with tempfile.TemporaryDirectory() as directory, Server(Path(directory), "--appendonly", "no") as server:
        yield server.tcp_url


class Interpreter:
    """One library, running."""

    def __init__(self, name: str, lasts: ExitStack) -> None:
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        if name in REDIS:
            env["PEERS_REDIS"] = lasts.enter_context(_redis())
        self.name = name
        self._process = subprocess.Popen(
            [_python(name), "-m", "benchmarks.peers.one", name], cwd=ROOT, env=env, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        lasts.callback(self._end)
        self._answer()

    def ask(self, row: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        print(row, file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], PATIENCE)[0]:
            raise SystemExit(f"error: {self.name} has not answered for {PATIENCE} s")
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"error: {self.name} has ended; what it said is above")
        said: dict[str, Any] = json.loads(line)
        return said

    def _end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def measure(names: list[str], rows: list[str], rounds: int) -> list[Measured]:
    """Every library in every row, one after the other in each round: two that run at once would disturb each other."""
    found = {(row, name): Measured(name, row, ROWS[row][0]) for row in rows for name in names}
    for turn in range(rounds):
        for name in names:
            with ExitStack() as lasts:
                peer = Interpreter(name, lasts)
                for row in rows:
                    measured = found[row, name]
                    if measured.cannot:
                        continue
                    said = peer.ask(row)
                    measured.cannot = said.get("cannot", "")
                    measured.values += [said["value"]] if "value" in said else []
            print(f"round {turn + 1} of {rounds}: {name}", file=sys.stderr, flush=True)
    return list(found.values())


def table(found: list[Measured], names: list[str], rows: list[str]) -> str:
    """What was measured, in Markdown: median (lowest to highest)."""
    by = {(each.row, each.peer): each for each in found}
    lines = ["| | " + " | ".join(f"{row}, {ROWS[row][0]}" for row in rows) + " |", "|---" * (len(rows) + 1) + "|"]
    lines += ["| " + " | ".join([name, *(str(by[row, name]) for row in rows)]) + " |" for name in names]
    cannot = dict.fromkeys(f"{each.peer}, {each.row}: {each.cannot}." for each in found if each.cannot)
    return "\n".join([*lines, *(["", *cannot] if cannot else [])])


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--only", action="append", choices=list(PEERS), help="a library; may be repeated")
    parser.add_argument("--row", action="append", choices=list(ROWS), help="a row; may be repeated")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    names, rows = options.only or list(PEERS), options.row or list(ROWS)
    for name in names:
        _python(name)  # all of it is there before anything is measured
    found = measure(names, rows, options.rounds)
    if options.json:
        json.dump([vars(each) for each in found], sys.stdout, indent=2)
        return
    print(f"CPython {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {WORKERS} workers; "
          f"median of {options.rounds} (lowest to highest)\n")  # fmt: skip
    print(table(found, names, rows))


if __name__ == "__main__":
    main()
