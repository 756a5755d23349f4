"""``wordcount``: chords in chords, a tree of merges over the chunks' counts."""

from celery import shared_task

from lab.jobs import wordcount
from worker.jobs.task import JobTask


@shared_task(base=JobTask, name="jobs.wordcount.count")
def count(text: str) -> dict[str, int]:
    """Map: the words of one chunk."""
    return wordcount.count(text)


@shared_task(base=JobTask, name="jobs.wordcount.merge")
def merge(counts: list[dict[str, int]]) -> dict[str, int]:
    """Reduce: a node of the tree."""
    return wordcount.merge(counts)
