"""What stayed on this host although the fleet was asked for, named once, at the end of a script.

A script's own imports are answered, and a library's are not: the processes that one makes by itself are the standard
library's, or its own. So are those of ``os.fork()``. Whoever asked for the fleet would never notice.

Threads are not among it: they are of this process wherever it runs. Nor is ``subprocess``, which runs another program.
"""

from __future__ import annotations

import atexit
import os
import sys
import sysconfig
from collections import Counter
from multiprocessing import process
from types import FrameType
from typing import Any

from lab.program import source

_STDLIB = tuple(os.path.join(sysconfig.get_path(name), "") for name in ("stdlib", "platstdlib"))
_OURS = tuple(os.path.join(os.path.dirname(os.path.dirname(__file__)), name, "") for name in ("lab", "producer"))


def watch(root: str) -> None:
    """Note what is started on this host from now on, and name it when this process ends.

    Args:
        root: The script's directory.
    """
    me, found = os.getpid(), Counter[str]()
    base: Any = process.BaseProcess
    start = base.start

    def noted(self: Any) -> None:
        ours = sys.modules.get("lab.cluster.process")  # not imported for this: who needs no fleet waits for no imports
        if ours is None or not isinstance(self, ours.Process):
            found[f"processes that {_who(root, sys._getframe(1)) or _package(type(self).__module__)} started"] += 1
        start(self)

    def forks() -> None:
        frame = sys._getframe(1)
        if not frame.f_code.co_filename.endswith(os.path.join("multiprocessing", "popen_fork.py")):  # noted already
            found[f"a fork by {_who(root, frame) or 'Python'}"] += 1

    def tell() -> None:
        if os.getpid() == me and found:
            named = ", ".join(f"{what} ({times})" for what, times in found.items())
            print(
                f"crosshost: On this host, and not on the fleet: {named}. A library makes its processes by itself; hand it a"
                " pool or an executor of the script's, if it takes one.",
                file=sys.stderr,
            )

    noted.__doc__, noted.__name__ = start.__doc__, start.__name__
    base.start = noted
    os.register_at_fork(before=forks)
    atexit.register(tell)


def _who(root: str, frame: FrameType | None) -> str:
    """Whose code led here: a line of the script's own files, or a package that is installed; empty if neither."""
    while frame is not None:
        path = frame.f_code.co_filename
        if source.is_own(path, root):
            return f"{os.path.relpath(path, root)}, line {frame.f_lineno}"
        installed = "site-packages" in path or "dist-packages" in path
        if installed or not path.startswith(("<", *_STDLIB, *_OURS)):
            return _package(frame.f_globals.get("__name__") or path)
        frame = frame.f_back
    return ""


def _package(module: str) -> str:
    return module.partition(".")[0]
