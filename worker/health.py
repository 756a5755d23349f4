"""Is this host fit for work? ``python -m worker.health`` exits with 0 if so: the health check of its container.

The worker's event loop announces the host in Redis three times a lease. Each time that Redis has taken the announcement, it
sets the time of a file (``CROSSHOST_HEALTH_FILE``) to when that lapses. So the check fails when the loop is stuck or cut off
from Redis, and not only when the process is gone. It asks Redis nothing itself: every container does this every few
seconds, and to import redis-py costs half a second of a core, which would be missing where the work is done.
"""

from __future__ import annotations

import os
import sys
import time

VARIABLE = "CROSSHOST_HEALTH_FILE"


def announced(lease: float) -> None:
    """Note that this host is known to be alive for a lease, seconds; without a file to note it in, do nothing."""
    if not (path := os.environ.get(VARIABLE)):
        return
    with open(path, "a"):
        until = time.time() + lease
        os.utime(path, (until, until))


def main() -> int:
    """0 if the host's announcement has not lapsed, else 1."""
    path = os.environ.get(VARIABLE, "")
    try:
        left = os.stat(path).st_mtime - time.time()
    except OSError as exc:
        print(f"This host has not announced itself yet: {exc.strerror}: {VARIABLE}={path}")
        return 1
    print("ready" if left > 0 else f"This host has not announced itself since its lease ended, {-left:.0f} s ago.")
    return 0 if left > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
