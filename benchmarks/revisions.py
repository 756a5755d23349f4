"""This tree beside an earlier revision of itself, in turns in one run: what a change has cost.

    python -m benchmarks.revisions 36f3d12 --pin

The earlier ``lab`` and ``worker`` are taken out of git into a temporary folder; what measures is this tree's in both cases.
``--pin`` has everything, Redis included, run on one core: that counts the work which an operation makes for all sides and is
steady; without it the scheduler has its say, as in life.
"""

from __future__ import annotations

import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import click

import lab
from benchmarks import side_by_side as bench

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 300.0
"""Seconds that one side of one round may take."""


def lock_alone(ctx: Any) -> float:
    lock = ctx.Lock()

    def once() -> None:
        lock.acquire()
        lock.release()

    return statistics.median(bench.seconds(once) for _ in range(1_000)) * 1e6


# the rows in seconds are work that takes the same time whatever carries it
POOLS = {name: (unit, measure) for name, unit, measure, *_ in bench.POOL_ROWS if unit != "s"}
PRIMITIVES = {
    "Lock, one process": ("us", lock_alone),
    **{name: (unit, measure) for name, unit, measure, *_ in bench.PRIMITIVE_ROWS},
}
UNITS = {name: unit for name, (unit, _) in (POOLS | PRIMITIVES).items()}


@click.command()
@click.argument("revision", required=False)
@click.option("--pin", is_flag=True, help="Run everything on one core.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--only", default="", help="Rows whose name contains this.")
@click.option("--measure", is_flag=True, hidden=True)
def main(revision: str | None, pin: bool, rounds: int, only: str, measure: bool) -> None:
    if measure:
        json.dump(measured(only), sys.stdout)
        return
    if revision is None:
        raise click.UsageError("Name the earlier revision: python -m benchmarks.revisions HEAD~1")
    if pin:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as name:
        take_out(revision, Path(name))
        results = [(in_a_process([Path(name), ROOT], only), in_a_process([ROOT], only)) for _ in range(rounds)]
    print(f"{'':36} {revision[:14]:>14} {'this tree':>14} {'ratio':>8}")
    for row in results[0][0]:
        before, after = (statistics.median(result[side][row] for result in results) for side in (0, 1))
        print(f"{row:36} {before:14,.2f} {after:14,.2f} {after / before:8.2f}  {UNITS[row]}")


def take_out(revision: str, folder: Path) -> None:
    """The packages that are measured, as they were."""
    command = ["git", "-C", str(ROOT), "archive", "--format=tar", revision, "lab", "worker"]
    packed = subprocess.run(command, capture_output=True, check=False)
    if packed.returncode:
        raise click.ClickException(f"git knows no such revision with the lab in it: {packed.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(folder, filter="data")


def in_a_process(path: list[Path], only: str) -> dict[str, float]:
    """Measure with the ``lab`` and ``worker`` that come first on the path."""
    command = [sys.executable, "-P", "-m", "benchmarks.revisions", "--measure", "--only", only]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path)), "CROSSHOST_HOSTS": "1", "CROSSHOST_SLOTS": "8"}
    done = subprocess.run(command, env=env, cwd=path[0], stdout=subprocess.PIPE, check=True, timeout=LIMIT)
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def measured(only: str) -> dict[str, float]:
    """Each row once; those of a pool as the median of five, as a pool takes a moment to warm up."""
    found = {}
    with lab.get_context("cluster") as cluster:
        for name, (_, measure) in (POOLS | PRIMITIVES).items():
            if only.lower() not in name.lower():
                continue
            if name in PRIMITIVES:
                found[name] = measure(cluster)
            else:
                with bench.pool_of(cluster) as pool:
                    found[name] = statistics.median(measure(pool) for _ in range(5))
    return found


if __name__ == "__main__":
    main()
