"""What no worker will run, and why."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lab.cluster import deadletters
from lab.cluster.deadletters import DeadLetter
from lab.cluster.engine import DEAD_KEY
from lab.cluster.store import Store
from lab.errors import BadSettings
from lab.settings import Settings
from producer import output

if TYPE_CHECKING:
    from rich.table import Table


def show(as_json: bool, clear: bool) -> None:
    """Write the dead letters to stdout, and forget them if asked to.

    Raises:
        BadSettings: No broker is configured; the embedded fleet of a command takes its own with it.
        BrokerUnreachable: Redis does not answer.
    """
    settings = Settings.from_env()
    if not settings.broker_url:
        raise BadSettings(
            "Which fleet's dead letters? CROSSHOST_BROKER_URL is empty.",
            "Start a fleet in another terminal, and run here the export lines that it prints:\n  producer fleet",
        )
    call = Store(settings.broker_url).call
    letters = deadletters.read(call, DEAD_KEY)
    if as_json:
        output.write_json([asdict(each) | {"when": each.when} for each in letters])
    elif letters:
        output.write_rich([table(letters)])
    else:
        output.write("No dead letters.\n")
    if clear:
        deadletters.clear(call, DEAD_KEY, len(letters))


def table(letters: list[DeadLetter]) -> Table:
    """A row per letter; GIVEN is how often a worker was given it."""
    from rich.table import Table
    from rich.text import Text

    rows: Any = Table.grid(padding=(0, 3))
    rows.add_row("TIME", "QUEUE", "TASK", "ID", "GIVEN", "REASON", style="bold")
    for each in letters:
        told = (each.when, each.queue, each.task or "-", each.id or "-", str(each.deliveries), each.reason)
        rows.add_row(*map(Text, told))  # as text: what strangers wrote is not markup
    return rows  # type: ignore[no-any-return]
