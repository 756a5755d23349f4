"""Is this host fit for work? ``python -m worker.health`` exits with 0 if so: the health check of its container.

It asks Redis for the host's announcement, which the worker's event loop renews three times a lease. So it fails when the
loop is stuck or cut off from Redis, and not only when the process is gone.
"""

from __future__ import annotations

import socket
import sys

from lab.cluster.fleet import JOBS, host_key
from lab.cluster.store import Store
from lab.errors import LabError
from lab.settings import Settings


def main() -> int:
    """0 if the host has announced itself within its lease, 1 if not or if Redis cannot be asked."""
    try:
        settings = Settings.from_env()
        name = settings.host or socket.gethostname()
        announced = Store(settings.broker_url).call("EXISTS", host_key(name), host_key(name, JOBS))
    except LabError as exc:
        print(exc)
        return 1
    print("ready" if announced else f"{name} has not announced itself for {settings.lease:g} s")
    return 0 if announced else 1


if __name__ == "__main__":
    sys.exit(main())
