"""The jobs: work that is cut into chunks, done anywhere, and put together again.

Each module is one job, in pure functions: ``split`` cuts, one function does a chunk, one merges. A pool on this host maps
them (``lab.jobs.job.run_here``); the Celery tasks of ``worker.jobs`` call the same functions on the hosts of a fleet. So
what a job gives does not depend on where, in how many pieces at once or how often a chunk was done.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from lab.jobs.job import Job

JOBS = ("primes", "mandelbrot", "wordcount", "montecarlo", "counter", "flaky")


def load(name: str) -> Job:
    """The job of a name in ``JOBS``."""
    return cast("Job", import_module(f"lab.jobs.{name}").JOB)
