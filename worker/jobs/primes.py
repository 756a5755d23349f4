"""``primes``: a chord, that is a group of chunks and one task that gets all their results."""

from celery import shared_task

from lab.jobs import primes
from worker.jobs.task import JobTask


@shared_task(base=JobTask, name="jobs.primes.count")
def count(low: int, high: int) -> int:
    """The primes of one range."""
    return primes.count(low, high)


@shared_task(base=JobTask, name="jobs.primes.total")
def total(counts: list[int]) -> int:
    """The chord's body: Celery calls it with the header's results, in the header's order."""
    return primes.total(counts)
