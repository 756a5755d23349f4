"""Workers are killed (SIGKILL) at random while they run thousands of short tasks: none may be lost.

python -m faults.kills --tasks 4000 --kills 20
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from pathlib import Path

import click

from tests.kit.celery_workers import Workers, producer
from tests.kit.server import Server


@click.command()
@click.option("--tasks", default=4_000, show_default=True)
@click.option("--seconds", default=0.05, show_default=True, help="Length of a task at most.")
@click.option("--kills", default=20, show_default=True, help="About so many, spread over the tasks at random.")
@click.option("--workers", "size", default=4, show_default=True)
@click.option("--lease", default=3.0, show_default=True, help="Seconds.")
@click.option("--timeout", default=500.0, show_default=True, help="Seconds.")
@click.option("--seed", type=int, help="Of an earlier run, to repeat its choices.")
def main(tasks: int, seconds: float, kills: int, size: int, lease: float, timeout: float, seed: int | None) -> None:
    seed = random.randrange(1 << 30) if seed is None else seed
    dice = random.Random(seed)
    click.echo(f"seed {seed}")
    with (
        tempfile.TemporaryDirectory() as name,
        Server(Path(name)) as server,
        Workers(Path(name), server.tcp_url, DELIVERY_LEASE=str(lease)) as workers,
    ):
        app = producer(server.tcp_url)
        for number in range(tasks):
            app.send_task("work", [number, dice.uniform(0, seconds)])
        app.close()
        begun = time.monotonic()
        killed = _kill(server, workers, dice, size, 2 * tasks / kills, begun + timeout)
        took = time.monotonic() - begun
        done = workers.count("end")
    lost = [number for number in range(tasks) if not done[str(number)]]
    twice = sum(count > 1 for count in done.values())
    click.echo(f"{tasks} tasks, {killed} workers killed, {took:.0f} s: {len(lost)} lost, {twice} ran more than once")
    sys.exit(bool(lost) or not killed)


def _kill(server: Server, workers: Workers, dice: random.Random, size: int, apart: float, deadline: float) -> int:
    """Keep so many workers running, and kill one each time that some more tasks are done; the number of kills.

    Args:
        apart: Tasks at most between two kills; the workers have to get ahead, however long one takes to start.
    """
    alive = workers.start(count=size)
    killed, kill_at = 0, dice.uniform(0, apart)
    while not _settled(server) and time.monotonic() < deadline:
        time.sleep(0.02)
        ready = [worker for worker in alive if "ready." in workers.said(worker)]
        if ready and sum(workers.count("end").values()) >= kill_at:
            victim = dice.choice(ready)
            victim.kill()
            victim.wait()
            killed += 1
            alive.remove(victim)
            alive += workers.start(wait=False)
            kill_at += dice.uniform(0, apart)
    return killed


def _settled(server: Server) -> bool:
    return not any(server.client.exists(key) for key in ("short", "short:leases", "short:held"))


if __name__ == "__main__":
    main()
