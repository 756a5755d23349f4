"""A session in which somebody types: what a notebook's cells, or the lines of a prompt, may expect of a fleet.

When a cell ends, what its calls have printed is shown, so that it stands below that cell. When one is interrupted, and has
not caught that itself, the calls of this process end, and its pools and the fleet go on. A program that is no session ends by
an interrupt, and all that is its own with it; so nothing of this is for one.
"""

from __future__ import annotations

import sys
import threading
from contextlib import suppress
from types import TracebackType
from typing import Any, Protocol

from lab.errors import CallEnded, LabError

PATIENCE = 5.0
"""Seconds that the end of an interrupted cell waits for its calls to have ended."""


class Fleet(Protocol):
    """What a session needs of the cluster's context."""

    def show_printed(self) -> None:
        """Show what was printed until now."""

    def end_calls(self, why: CallEnded) -> None:
        """End all calls."""


_attached: list[Fleet] = []


def attach(fleet: Fleet) -> None:
    """Have a session look after a fleet from now on; of no effect in a program that is none."""
    if not hasattr(sys, "ps1") or fleet in _attached:
        return
    _attached.append(fleet)
    if (shell := _shell()) is not None:
        shell.events.register("post_run_cell", _after_cell)
    elif len(_attached) == 1:
        _before: Any = sys.excepthook

        def hook(kind: type[BaseException], exc: BaseException, tb: TracebackType | None) -> None:
            if issubclass(kind, KeyboardInterrupt):
                with suppress(KeyboardInterrupt):
                    _interrupted()
            _before(kind, exc, tb)

        sys.excepthook = hook


def _shell() -> Any:
    """IPython's shell, if this is a session of it: at its prompt, or in a kernel."""
    module: Any = sys.modules.get("IPython")
    return module.get_ipython() if module is not None else None


def _after_cell(result: Any) -> None:
    try:
        if isinstance(result.error_in_exec, KeyboardInterrupt):
            _interrupted()
        for fleet in _attached:
            fleet.show_printed()
    except KeyboardInterrupt:
        return  # whoever interrupts twice wants the prompt; what was begun goes on


def _interrupted() -> None:
    """End the calls, in a thread. Excluded: a second interrupt that leaves half of them running."""
    why = CallEnded("The call was ended, as the session was interrupted.", "Its pool goes on; call again.")
    enders = [threading.Thread(target=_end_calls, args=(fleet, why), name="crosshost-interrupt") for fleet in _attached]
    for ender in enders:
        ender.start()
    for ender in enders:
        ender.join(PATIENCE)


def _end_calls(fleet: Fleet, why: CallEnded) -> None:
    with suppress(LabError):  # Redis is away: then whoever waits for a call is told so
        fleet.end_calls(why)
