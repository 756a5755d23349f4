"""One concept on threads in another Python, in which nothing is installed: ``PYTHON -m lab.concepts.elsewhere NAME FD``.

Writes what became of it as JSON to the descriptor FD. This module, like the concepts, imports the standard library alone.
"""

from __future__ import annotations

import json
import os
import sys

from lab import get_context
from lab.concepts import load
from lab.concepts._shared import has_gil


def main(name: str, fd: int) -> None:
    """Run the concept, unless the GIL is there: it can have come back with an import, and then this would show nothing."""
    run = load(name)
    answer: dict[str, object] = {"gil": has_gil()}
    if not answer["gil"]:
        result = run(get_context("threads"))
        if result.ok:  # else it says that it has not shown what it should
            result.why = vars(sys.modules[run.__module__])["WHY"].get("free-threaded", result.why)
        answer |= result.to_json()
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        json.dump(answer, file)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
