"""The fleet that a broker leads to, host by host."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import lab
from lab.errors import NoWorkers
from lab.settings import Settings
from producer import output
from producer.runs import Link

if TYPE_CHECKING:
    from rich.table import Table


def show(as_json: bool) -> None:
    """Write the hosts of the fleet to stdout.

    Raises:
        NoWorkers: No broker is configured, or no host answers on it.
        LabError: The fleet cannot be reached.
    """
    if not Settings.from_env().broker_url:
        raise NoWorkers(
            "No fleet is running that this terminal knows of: CROSSHOST_BROKER_URL is empty.",
            "Start one in another terminal, and run here the export lines that it prints:\n"
            "  producer fleet --hosts 3 --slots 4\n"
            "(--on cluster needs none: without a broker it starts a fleet for the time of the command.)",
        )
    with closing(lab.get_context("cluster")) as ctx:
        ctx.connect()
        link = Link.measure(ctx)
        pings = ctx.ping()
    for host in link.hosts:
        host["ping"] = pings.get(host["name"])
    if as_json:
        output.write_json(vars(link))
        return
    from producer import report

    output.write_rich([hosts_table(link.hosts), "", report.link(link)])


def hosts_table(hosts: list[dict[str, Any]]) -> Table:
    """A row per host; PING is what its Celery worker took to answer."""
    from rich.table import Table

    table = Table.grid(padding=(0, 3))
    table.add_row("HOST", "PID", "SLOTS", "BUSY", "PING", "UP", "VERSION", "PYTHON", "KEY", style="bold")
    for host in hosts:
        numbers = (str(host[name]) for name in ("pid", "slots", "busy"))
        ping = output.duration(host["ping"]) if host.get("ping") is not None else "silent"
        table.add_row(
            host["name"], *numbers, ping, output.duration(host["age"]), host["version"], host["python"], host["key"]
        )
    return table
