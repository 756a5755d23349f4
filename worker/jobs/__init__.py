"""The Celery tasks of the jobs, one module a job. They are thin: the work is in ``lab.jobs``, where no Celery is.

Each task may be delivered more than once, and must then do no more than once: all but the counter's are pure, and the
counter's additions carry marks; a program is begun once, if it does not ask for more. The producer sends them by name and
imports nothing from here.
"""

MODULES = tuple(
    f"worker.jobs.{name}" for name in ("primes", "mandelbrot", "wordcount", "montecarlo", "counter", "flaky", "program")
)
