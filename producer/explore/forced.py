"""A program run once in a place, its operations in the order of a schedule; a process of its own, which `replay` starts.

What became of it goes to a file, as JSON: all else, the streams above all, is the program's.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import lab
from lab.evidence import Result
from lab.explored.forced import TurnContext
from lab.explored.schedule import Schedule
from lab.explored.turns import PATIENCE, CannotForce
from lab.program import source
from lab.program.standin import StandIn

GRACE = 2.0
"""Seconds that a program which is to be stuck has for not being so."""


class Status:
    """What is known of the run, written as soon as it is.

    Args:
        file: For it.
    """

    def __init__(self, file: str) -> None:
        self._file, self._lock = file, threading.Lock()

    def tell(self, how: str, text: str = "") -> None:
        """Write it; the first word counts."""
        with self._lock:
            if not os.path.exists(self._file):
                Path(self._file + ".part").write_text(json.dumps({"how": how, "text": text}), encoding="utf-8")
                os.replace(self._file + ".part", self._file)


def main(file: str, place: str, status_file: str) -> None:
    """Run it.

    Args:
        file: The schedule.
        place: One of ``lab.PLACES``.
        status_file: For what became of it.
    """
    schedule, status = Schedule.read(file), Status(status_file)
    real = lab.get_context(place)
    if place == "cluster":
        real.connect()
    ctx = TurnContext(real, schedule)
    if schedule.kind in ("deadlock", "no progress", "too long", "endless"):
        threading.Thread(target=_watch, args=(ctx, status), daemon=True).start()
    try:
        result = _run(schedule, ctx)
    except CannotForce as exc:
        status.tell("refused", exc.message)
        raise
    sys.stdout.flush()
    # a worker that died of an exception has turns that never came; in such a schedule there were none either
    done = ctx.turns.finished.acquire(True, PATIENCE)
    text = ""
    if isinstance(result, Result):
        failed = [check.claim for check in result.checks if not check.held]
        text = f"all {len(result.checks)} claims held" if not failed else "; ".join(f"not so: {one}" for one in failed)
    status.tell("ended" if done else "diverged", text)


def _run(schedule: Schedule, ctx: TurnContext) -> Any:
    if not schedule.program.endswith(".py"):
        from lab import concepts
        from producer.explore.program import SMALL

        return concepts.load(schedule.program)(ctx, **SMALL[schedule.program])
    path = schedule.program
    root = os.path.dirname(os.path.realpath(path))
    own = source.Own(root, stand_in=StandIn("turns", lambda: ctx))
    own.install()
    sys.argv[:] = [path, *schedule.args]
    sys.path.insert(0, root)
    own.run_as_main(path, "__main__")
    return None


def _watch(ctx: TurnContext, status: Status) -> None:
    """When all turns have been taken, see that the program is stuck, and end it."""
    ctx.turns.finished.acquire(True)
    ctx.turns.finished.release()
    time.sleep(GRACE)
    status.tell("stuck")
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
