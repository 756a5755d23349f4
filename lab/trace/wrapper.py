"""What all wrappers have in common: they stand around a primitive of any place, and pass as one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from lab.errors import LeaseLost
from lab.trace.clock import now
from lab.trace.recorder import RECORDER

note = RECORDER.note


class Traced:
    """Around one primitive. What is not traced is the primitive's own.

    It pickles as a wrapper around the primitive, when and only when that pickles.

    Args:
        inner: The primitive.
        name: What the trace calls it.
    """

    _inner: Any
    _name: str

    def __init__(self, inner: Any, name: str, **more: Any) -> None:
        vars(self).update(_inner=inner, _name=name, **more)

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__") or "_inner" not in vars(self):  # copying looks before there is anything
            raise AttributeError(attribute)
        return getattr(self._inner, attribute)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), vars(self))

    def __repr__(self) -> str:
        return repr(self._inner)

    def for_child(self) -> Self:
        """As a new thread gets it, where threads are processes: handles are its own."""
        own = getattr(type(self._inner), "for_child", None)
        return self if own is None else type(self)(**_renamed(vars(self) | {"_inner": own(self._inner)}))

    def _do(self, word: str, operation: Callable[..., Any], *args: Any, more: dict[str, Any] | None = None) -> Any:
        """Note an operation with the time it took; who is killed in it has not done it."""
        begun = now()
        try:
            result = operation(*args)
        except LeaseLost:
            note(now(), "refused", self._name)
            raise
        note(begun, word, self._name, now() - begun, more)
        return result

    def _wait(self, operation: Callable[..., Any], *args: Any, **kwds: Any) -> Any:
        """Note a wait as it begins, for who may never end it; and that it was given up, if an exception ends it."""
        note(now(), "waits", self._name)
        try:
            return operation(*args, **kwds)
        except BaseException as exc:
            gave_up(self._name, exc)
            raise


def gave_up(name: str, exc: BaseException) -> None:
    """Note that an exception has ended a wait. Of Ctrl-C that is told, as what follows comes of it."""
    word = "refused" if isinstance(exc, LeaseLost) else "gave up"
    note(now(), word, name, 0, {"interrupted": True} if isinstance(exc, KeyboardInterrupt) else None)


def _renamed(state: dict[str, Any]) -> dict[str, Any]:
    return {{"_inner": "inner", "_name": "name"}.get(name, name): value for name, value in state.items()}


def _rebuild(kind: type[Traced], state: dict[str, Any]) -> Traced:
    return kind(**_renamed(state))


def bare(value: Any) -> Any:
    """The primitive in a wrapper; anything else as it is."""
    return value._inner if isinstance(value, Traced) else value
