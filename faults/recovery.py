"""How long after a worker is killed (SIGKILL) the task that it ran begins on another.

python -m faults.recovery --kills 20
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import click

from tests.kit.celery_workers import Workers, producer
from tests.kit.server import Server
from tests.kit.wait import until

LIMIT = 8.0
PREFORK = ("--pool", "prefork", "-c", "1")


@click.command()
@click.option("--kills", default=20, show_default=True)
@click.option("--lease", default=6.0, show_default=True, help="Seconds.")
def main(kills: int, lease: float) -> None:
    with (
        tempfile.TemporaryDirectory() as name,
        Server(Path(name)) as server,
        Workers(Path(name), server.tcp_url, DELIVERY_LEASE=str(lease)) as workers,
    ):
        app = producer(server.tcp_url)
        workers.start(*PREFORK, count=2)
        seconds = []
        for number in range(kills):
            app.send_task("work", [number, 1.0])
            seconds.append(_kill_who_runs(workers, str(number)))
            workers.start(*PREFORK)
        app.close()
    in_time = sum(took <= LIMIT for took in seconds)
    click.echo(f"{kills} workers killed, lease {lease:g} s: {in_time} tasks began elsewhere within {LIMIT:g} s")
    click.echo(f"median {statistics.median(seconds):.2f} s, worst {max(seconds):.2f} s")
    sys.exit(in_time < kills)


def _kill_who_runs(workers: Workers, number: str) -> float:
    """Kill the worker that runs a task; seconds until the task begins again."""
    until(lambda: workers.count("begin")[number] == 1, f"task {number} runs", 30)
    runs_in = next(int(pid) for event, which, pid in workers.events() if (event, which) == ("begin", number))
    victim = next(worker for worker in workers.processes if worker.pid == runs_in)
    victim.kill()
    killed = time.monotonic()
    victim.wait()
    until(lambda: workers.count("begin")[number] == 2, f"task {number} runs again", 60)
    return time.monotonic() - killed


if __name__ == "__main__":
    main()
