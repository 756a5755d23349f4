"""A data file that a program finds where it was started, and a host does not: only source is sent to hosts."""

from __future__ import annotations

import os
import shlex
import sys
from typing import Any

from lab.store import run as runs

_HOST = "_crosshost_host"


def mark(exc: BaseException) -> None:
    """Have an exception, raised on a host, say on which one a file was not found."""
    if isinstance(exc, FileNotFoundError) and (run := runs.current()) is not None:
        vars(exc).setdefault(_HOST, run.settings.host or "unknown")


def explain(exc: Any) -> None:
    """Add a note to an exception that came from a host, if the file that it did not find is here."""
    host = vars(exc).pop(_HOST, None) if isinstance(exc, FileNotFoundError) else None
    if host is None or not isinstance(exc.filename, str):
        return
    main_file = getattr(sys.modules.get("__main__"), "__file__", None) or ""
    beside = os.path.join(os.path.dirname(os.path.abspath(main_file)), exc.filename)
    here = next((path for path in (os.path.abspath(exc.filename), beside) if os.path.exists(path)), None)
    if here is not None:
        exc.add_note(
            f"On host {host} there is no {exc.filename!r}; here there is, as {here}."
            " Hosts are sent a program's .py files, and others if they are told to.\n"
            f"Send it along: producer run --with {shlex.quote(exc.filename)} SCRIPT.py\n"
            "Or read it in the main program and hand over what is in it, as an argument; or put it on every host."
        )
