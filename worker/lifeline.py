"""A process that ends with its parent, however that ends: by the kernel's word, where the kernel has one (Linux)."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
# Looked up here and once. Excluded: doing so in each forked process, which is the time of a few forks.
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


def end_with_parent(parent: int = 0) -> None:
    """Have the kernel kill this process when its parent has ended; on other systems than Linux, do nothing.

    Args:
        parent: Who that is, if known: then it is looked whether it still is. Excluded by that: a parent that was killed
            before this process could ask to die with it.
    """
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if parent and os.getppid() != parent:
        os._exit(1)
