"""The course's concepts, one program each, from the first process to the GIL, and four that several hosts need.

Each module has ``run(ctx, ...) -> Result`` and runs by itself: ``python -m lab.concepts.counter --on cluster``.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable

from lab.evidence import Result

CONCEPTS = (
    "process",
    "pipe",
    "queue",
    "counter",
    "pool",
    "threads",
    "thread_pool",
    "thread_local",
    "gil",
    "loss",
    "delivery",
    "lease",
    "share",
)

_ENDS_ITSELF = "its workers end or stop themselves, and with an interpreter that would be the whole program"
NOT_ON = {
    "interpreters": {
        "loss": _ENDS_ITSELF,
        "delivery": _ENDS_ITSELF,
        "lease": _ENDS_ITSELF,
        "share": "what is shared is looked after by process, and all interpreters are in one",
    },
}
"""The concepts that a place cannot show, and why."""


def load(name: str) -> Callable[..., Result]:
    """The ``run`` function of a concept.

    Raises:
        ValueError: There is no such concept; the message has the nearest name.
    """
    if name not in CONCEPTS:
        near = difflib.get_close_matches(name, CONCEPTS, n=1)
        guess = f"; did you mean {near[0]!r}" if near else ""
        raise ValueError(f"there is no concept {name!r}{guess}? The concepts are {', '.join(CONCEPTS)}")
    run: Callable[..., Result] = importlib.import_module(f"lab.concepts.{name}").run
    return run


def summary(name: str) -> str:
    """The first line of a concept's docstring: its idea in one sentence."""
    load(name)
    return (importlib.import_module(f"lab.concepts.{name}").__doc__ or "").partition("\n")[0]
