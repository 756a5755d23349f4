"""A user's script, traced as it is: what its ``import multiprocessing`` means is a traced context, in its children too.

On the cluster and on threads it has a stand-in for ``multiprocessing`` anyway (``lab.program.standin``). Where processes are
the standard library's, one is made here. Its spawned children run the script's main module again, and must find the same: so
they are told with what the standard library tells them before that.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing import spawn
from types import ModuleType
from typing import Any

from lab.program.source import Own
from lab.program.standin import StandIn
from lab.trace.context import TracedContext, Tracing
from lab.trace.futures import FUNCTIONS
from lab.trace.recorder import Where


class Stdlib:
    """``multiprocessing`` itself as the context of a place: its start method is what the script sets."""

    place = "processes"

    def __getattr__(self, name: str) -> Any:
        return getattr(multiprocessing, name)


class StandInForItself(StandIn):
    """Offers the standard library's own, traced; start methods are its business as well."""

    def _fill_top(self, module: ModuleType, standard: ModuleType) -> None:
        super()._fill_top(module, standard)
        names = ("get_context", "get_start_method", "set_start_method", "get_all_start_methods")
        vars(module).update({name: getattr(self.ctx, name) for name in names})


def stand_in(
    place: str, make_context: Callable[[], Any], root: str, name: str, begun: Callable[[Tracing], None]
) -> StandIn:
    """What the ``import multiprocessing`` of a script means, traced from the time when its context is made.

    Args:
        place: Its name.
        make_context: Gives the place's context.
        root: The script's folder.
        name: What the trace calls it.
        begun: Is given the record that has begun, to end it.
    """

    def make() -> TracedContext:
        tracing = Tracing(Stdlib() if place == "processes" else make_context(), name)
        begun(tracing)
        traced = tracing.begin()
        if place == "processes":
            _tell_children(Entry(traced.where, root))
        return traced

    stand_in = (StandInForItself if place == "processes" else StandIn)(place, make)
    stand_in.functions = FUNCTIONS
    return stand_in


class Entry:
    """Goes to a spawned child; when it is unpickled there, what follows is traced, the main module first."""

    def __init__(self, where: Where, root: str) -> None:
        self.where, self.root = where, root

    def __reduce__(self) -> tuple[Any, ...]:
        return enter, (self.where, self.root)


def enter(where: Where, root: str) -> None:
    """In a spawned child: be like the process that started it."""
    stand_in = StandInForItself(Stdlib.place, lambda: TracedContext(Stdlib(), where))
    stand_in.functions = FUNCTIONS
    own = Own(root, stand_in=stand_in)
    own.install()
    _tell_children(Entry(where, root))
    stdlib: Any = spawn
    stdlib._fixup_main_from_path = lambda path: own.run_as_main(path, "__mp_main__")


def _tell_children(entry: Entry) -> None:
    stdlib: Any = spawn
    told = getattr(stdlib.get_preparation_data, "told", stdlib.get_preparation_data)

    def get_preparation_data(name: str) -> dict[str, Any]:
        return {**told(name), "crosshost trace": entry}

    get_preparation_data.told = told  # type: ignore[attr-defined]
    stdlib.get_preparation_data = get_preparation_data
