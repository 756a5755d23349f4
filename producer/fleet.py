"""A fleet on this machine that stays until it is told to go."""

from __future__ import annotations

import json
import shlex
import sys
import time
from dataclasses import replace

from lab.errors import FleetFailed
from lab.settings import Settings
from producer import output

LOOK = 0.5


def keep(hosts: int | None, slots: int | None, job_slots: int, durable: bool, as_json: bool) -> int:
    """Start a fleet, say how to reach it, and wait for Ctrl-C or SIGTERM, which is how it ends well.

    Returns:
        The exit code.

    Raises:
        FleetFailed: It did not start, or ended by itself.
    """
    from lab.fleet.embedded import EmbeddedFleet

    settings = Settings.from_env()
    size = replace(settings, hosts=hosts or settings.hosts, slots=slots or settings.slots)
    fleet = EmbeddedFleet(size, durable=durable, job_slots=job_slots)
    try:
        reached = fleet.start()
        _announce(reached, fleet.authkey_file, fleet.pid, as_json)
        while fleet.alive():
            time.sleep(LOOK)
        raise FleetFailed("The fleet has ended by itself.", "To start another: producer fleet")
    except KeyboardInterrupt:
        return 0
    finally:
        fleet.stop()


def _announce(settings: Settings, authkey_file: str, pid: int | None, as_json: bool) -> None:
    """The settings go to stdout, the words around them to stderr: ``producer fleet > settings.sh`` can be sourced."""
    if as_json:
        fleet = {"broker_url": settings.broker_url, "authkey_file": authkey_file, "pid": pid}
        output.write(json.dumps({**fleet, "hosts": settings.hosts, "slots": settings.slots}) + "\n")
        return
    print(
        f"{settings.hosts} hosts with {settings.slots} slots each are ready. In another terminal run these lines,\n"
        "then: producer workers",
        file=sys.stderr,
    )
    output.write(
        f"export CROSSHOST_BROKER_URL={shlex.quote(settings.broker_url)}\n"
        f"export CROSSHOST_AUTHKEY_FILE={shlex.quote(authkey_file)}\n"
    )
    print("Ctrl-C ends the fleet.", file=sys.stderr)
