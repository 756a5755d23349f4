"""A worker that has served 50,000 calls must be no larger than it was after the first few thousand.

python -m faults.memory --calls 50000
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click

from tests.kit.celery_workers import Workers, producer
from tests.kit.server import Server
from tests.kit.wait import until

WARM = 5_000
LIMIT_MB = 5.0


@click.command()
@click.option("--calls", default=50_000, show_default=True)
def main(calls: int) -> None:
    with (
        tempfile.TemporaryDirectory() as name,
        Server(Path(name)) as server,
        Workers(Path(name), server.tcp_url) as workers,
    ):
        workers.start("--pool", "prefork", "-c", "2")
        before = _serve(server, workers, "before", WARM)
        after = _serve(server, workers, "after", calls)
    grown = (after - before) / 1024
    click.echo(
        f"worker after {WARM} calls {before / 1024:.1f} MB, after {calls} more {after / 1024:.1f} MB: +{grown:.1f} MB"
    )
    sys.exit(grown >= LIMIT_MB)


def _serve(server: Server, workers: Workers, mark: str, calls: int) -> int:
    """Have calls served, then the resident size of the worker's main process, kB."""
    app = producer(server.tcp_url)
    for _ in range(calls):
        app.send_task("noop")
    app.send_task("memory", [mark])
    app.close()
    until(lambda: any(event == f"rss-{mark}" for event, _, _ in workers.events()), "all are served", 600)
    return next(int(size) for event, size, _ in workers.events() if event == f"rss-{mark}")


if __name__ == "__main__":
    main()
