"""``mandelbrot``: a group, whose results stay apart; the producer puts the picture together."""

from typing import Any

from celery import shared_task

from lab.jobs import mandelbrot
from worker.jobs.task import JobTask


@shared_task(base=JobTask, name="jobs.mandelbrot.draw")
def draw(x: int, y: int, wide: int, high: int, width: int, height: int, iterations: int) -> dict[str, Any]:
    """One tile, and who drew it."""
    return mandelbrot.draw(x, y, wide, high, width, height, iterations)
