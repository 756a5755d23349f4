"""Work that fails: at first, for a time, or by taking too long. What retries, backoff and time limits are for."""

from __future__ import annotations

import time
from typing import Any

from lab.errors import LabError
from lab.jobs.job import Arguments, Chunk, Job, Number, Progress, bounded

MOST_FAILURES, MOST_SECONDS = 4, 3_600


class Flaky(LabError):
    """The failure that another try may not meet."""


def split(failures: int, seconds: int, **_stubborn: int) -> list[Chunk]:
    """The one chunk: the first try."""
    return [(0, failures, seconds)]


def attempt(retries: int, failures: int, seconds: int) -> int:
    """Fail, as long as fewer than ``failures`` tries were made before; then wait, as if for a slow peer.

    Args:
        retries: Tries made before this one.
        failures: How many tries fail.
        seconds: What the successful one takes.

    Returns:
        Tries that it took.

    Raises:
        Flaky: This try is one of those that fail.
    """
    bounded("failures", failures, 0, MOST_FAILURES)
    if retries < failures:
        raise Flaky(f"try {retries + 1} of {failures + 1} failed, as it was told to")
    time.sleep(bounded("seconds", seconds, 0, MOST_SECONDS))
    return retries + 1


def report(tries: int) -> dict[str, int]:
    """What the next step of the chain makes of it."""
    return {"tries": tries}


def here(ctx: Any, arguments: Arguments, _workers: int, progress: Progress) -> dict[str, int]:
    """The same tries in a pool of this host, with the backoff that Celery would take; there are no time limits here."""
    with ctx.Pool(1) as pool:
        for retries in range(arguments["failures"] + 1):
            try:
                tries = pool.apply(attempt, (retries, arguments["failures"], arguments["seconds"]))
            except Flaky:
                time.sleep(backoff(retries))
    progress(1, 1)
    return report(tries)


def backoff(retries: int) -> int:
    """Seconds before the next try: 1, 2, 4, 8."""
    return int(2**retries)


def show(_arguments: Arguments, result: Any) -> list[str]:
    """How many tries it took."""
    return [f"it took {result['tries']} tries"]


JOB = Job(
    summary="Fail, be tried again, take too long.",
    parameters=(
        Number("failures", 2, 0, MOST_FAILURES, "Tries that fail before one succeeds."),
        Number("seconds", 0, 0, MOST_SECONDS, "What the successful try takes."),
        Number("stubborn", 0, 0, 1, "1: go on after the soft time limit, until the hard one."),
    ),
    split=split,
    work=attempt,
    merge=lambda parts: report(parts[0]),
    show=show,
    here=here,
    long=True,
)
