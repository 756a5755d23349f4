"""What a new interpreter runs: the stdlib's own way for a child that was spawned."""

from __future__ import annotations

import os
import sys
import threading
import weakref
from contextlib import suppress
from multiprocessing import heap, resource_tracker, spawn, util
from typing import Any

_heap: Any = heap
_spawn: Any = spawn
_threading: Any = threading
_tracker: Any = resource_tracker
_util: Any = util


def main(program: int, tracker: int) -> Any:
    """Be the child whose pickle is written to a pipe.

    Args:
        program: Descriptor of the pipe's reading end, which is readable when the parent is gone; not closed here.
        tracker: Descriptor of the tracker that removes the names of semaphores; likewise.

    Returns:
        The exit code.
    """
    _tracker._resource_tracker._fd = tracker
    _heap.rebuild_arena = _rebuild_arena
    # A queue's feeder is no daemon here, and ends when this has closed the queue: so it comes before threads are waited for.
    _threading._register_atexit(_util._exit_function)
    code = _spawn._main(os.dup(program), program)
    with suppress(OSError, ValueError):  # the child may have closed it, or put something else there
        if sys.stdin is not None and (nothing := sys.stdin.fileno()) > 2:
            os.close(nothing)  # the null device, which a process leaves open until it is gone
    return code


def _rebuild_arena(size: int, duplicate: Any) -> Any:
    """Shared memory that came with the pickle; a process leaves its descriptor open until it is gone."""
    arena = _heap.Arena(size, duplicate.detach())
    weakref.finalize(arena, os.close, arena.fd)
    return arena
