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

from tests.delivery_kit import Server, Workers, producer


@click.command()
@click.option("--tasks", default=4_000, show_default=True)
@click.option("--kills", default=20, show_default=True, help="At least; it goes on killing until the tasks are done.")
@click.option("--workers", "size", default=4, show_default=True)
@click.option("--lease", default=3.0, show_default=True, help="Seconds.")
@click.option("--timeout", default=400.0, show_default=True, help="Seconds.")
@click.option("--seed", type=int, help="Of an earlier run, to repeat its kills.")
def main(tasks: int, kills: int, size: int, lease: float, timeout: float, seed: int | None) -> None:
    seed = random.randrange(1 << 30) if seed is None else seed
    dice = random.Random(seed)
    click.echo(f"seed {seed}")
    with tempfile.TemporaryDirectory() as name:
        server = Server(Path(name))
        workers = Workers(Path(name), server.url, DELIVERY_LEASE=str(lease))
        try:
            killed, seconds = _play(server, workers, dice, tasks, kills, size, timeout)
            done = workers.count("end")
        finally:
            workers.stop()
            server.kill()
    lost = [number for number in range(tasks) if not done[str(number)]]
    twice = sum(count > 1 for count in done.values())
    click.echo(f"{tasks} tasks, {killed} workers killed, {seconds:.0f} s: {len(lost)} lost, {twice} ran more than once")
    sys.exit(bool(lost) or killed < kills)


def _play(
    server: Server, workers: Workers, dice: random.Random, tasks: int, kills: int, size: int, timeout: float
) -> tuple[int, float]:
    """Send the tasks, kill workers until they are done; the number of kills, and seconds."""
    app = producer(server.url)
    for number in range(tasks):
        # so long that the kills, a second apart, fall within the run whatever the machine
        app.send_task("work", [number, dice.uniform(0, 2.4 * kills * size / tasks / 2)])
    app.close()
    alive = workers.start(count=size)
    begun, killed = time.monotonic(), 0
    kill_at = begun + dice.uniform(0.2, 1.5)
    while not _settled(server) and time.monotonic() - begun < timeout:
        time.sleep(0.05)
        if time.monotonic() >= kill_at and not (_nearly_done(server) and killed >= kills):
            victim = alive.pop(dice.randrange(len(alive)))
            victim.kill()
            victim.wait()
            killed += 1
            alive += workers.start(wait=False)
            kill_at = time.monotonic() + dice.uniform(0.2, 1.5)
    return killed, time.monotonic() - begun


def _settled(server: Server) -> bool:
    return not any(server.client.exists(key) for key in ("short", "short:leases", "short:held"))


def _nearly_done(server: Server) -> bool:
    return not server.client.llen("short")


if __name__ == "__main__":
    main()
