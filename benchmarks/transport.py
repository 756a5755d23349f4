"""The transport beside the stock one: single no-op tasks through one worker, in turns in one run.

python -m benchmarks.transport --tasks 3000 --rounds 3
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

TRANSPORTS = {"stock": {"DELIVERY_STOCK": "yes"}, "leased": {}}
FLOOR = 0.7


@click.command()
@click.option("--tasks", default=3_000, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--pool", default="solo", show_default=True, type=click.Choice(["solo", "prefork"]))
def main(tasks: int, rounds: int, pool: str) -> None:
    rates: dict[str, list[float]] = {name: [] for name in TRANSPORTS}
    busy: dict[str, list[float]] = {name: [] for name in TRANSPORTS}
    for n in range(rounds):
        for name in sorted(TRANSPORTS, reverse=bool(n % 2)):
            rate, cpu = _measure(TRANSPORTS[name], tasks, pool)
            rates[name].append(rate)
            busy[name].append(cpu)
    for name in TRANSPORTS:
        rate, cpu = statistics.median(rates[name]), statistics.median(busy[name])
        click.echo(f"{name:8}{rate:8,.0f} tasks/s   Redis {cpu * 1e6:6.1f} us a task")
    ratio = statistics.median(rates["leased"]) / statistics.median(rates["stock"])
    click.echo(f"{ratio:.2f} of the stock rate: {'ok' if ratio >= FLOOR else 'LOW'}, {FLOOR} or more")
    sys.exit(ratio < FLOOR)


def _measure(env: dict[str, str], tasks: int, pool: str) -> tuple[float, float]:
    with (
        tempfile.TemporaryDirectory() as name,
        Server(Path(name)) as server,
        Workers(Path(name), server.tcp_url, **env) as workers,
    ):
        quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "WARNING")
        workers.start("--pool", pool, "-c", "1", *quiet, wait=False)
        app = producer(server.tcp_url)
        app.send_task("work", ["ready"])
        until(lambda: workers.count("end")["ready"], "the worker is ready", 60)
        # a first task that takes a moment, so that all of them lie in the queue when the clock starts
        app.send_task("work", ["first", tasks / 1_000])
        for _ in range(tasks):
            app.send_task("noop")
        app.send_task("work", ["last"])
        app.close()
        until(lambda: workers.count("end")["first"], "the first is done", 60)
        left, begun, cpu = server.client.llen("short"), time.perf_counter(), _cpu(server)
        until(lambda: workers.count("end")["last"], "the last is done", 120)
        return left / (time.perf_counter() - begun), (_cpu(server) - cpu) / left


def _cpu(server: Server) -> float:
    """Seconds of processor that the server has used."""
    used = server.client.info("cpu")
    return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])


if __name__ == "__main__":
    main()
