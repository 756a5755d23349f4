"""What a new interpreter runs: the stdlib's own way for a child that was spawned."""

from __future__ import annotations

import os
import sys
import threading
from multiprocessing import resource_tracker, spawn, util
from typing import Any

_spawn: Any = spawn
_threading: Any = threading
_tracker: Any = resource_tracker
_util: Any = util


def main(program: int, parent: int, tracker: int) -> Any:
    """Be the child whose pickle is written to a pipe.

    Args:
        program: Descriptor of the pipe's reading end; closed here.
        parent: Another one of it, which is readable when the parent is gone.
        tracker: Descriptor of the tracker that removes the names of semaphores.

    Returns:
        The exit code.
    """
    _tracker._resource_tracker._fd = tracker
    # A queue's feeder is no daemon here, and ends when this has closed the queue: so it comes before threads are waited for.
    _threading._register_atexit(_util._exit_function)
    code = _spawn._main(program, parent)
    if sys.stdin is not None and (nothing := sys.stdin.fileno()) > 2:
        os.close(nothing)  # the null device, which a process leaves open until it is gone
    return code
