"""What no worker will run, and why."""

from __future__ import annotations

from lab.errors import BadSettings
from lab.fleet.engine import DEAD_KEY
from lab.settings import Settings
from lab.store.store import Store
from onloan import deadletters
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
    output.write(deadletters.as_json(letters) + "\n" if as_json else deadletters.as_text(letters))
    if clear:
        deadletters.clear(call, DEAD_KEY, len(letters))
