"""What no worker will run, and why."""

from __future__ import annotations

from dataclasses import asdict

from lab.cluster import deadletters
from lab.cluster.deadletters import DeadLetter
from lab.cluster.engine import DEAD_KEY
from lab.cluster.store import Store
from lab.errors import BadSettings
from lab.settings import Settings
from producer import output


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
    else:
        output.write("".join(map(lines, letters)) or "No dead letters.\n")
    if clear:
        deadletters.clear(call, DEAD_KEY, len(letters))


def lines(letter: DeadLetter) -> str:
    """A letter in two lines; what strangers wrote cannot steer the terminal."""
    head = (letter.when, letter.queue or "-", letter.task or "-", letter.id or "-", f"given {letter.deliveries}x")
    text = "  ".join(head) + f"\n    {letter.reason}"
    return "".join(char if char.isprintable() or char == "\n" else "?" for char in text) + "\n"
