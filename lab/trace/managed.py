"""Managers, traced: their objects say what is done with them, as those of a context do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Self

from lab.trace.clock import now
from lab.trace.queues import TracedQueue
from lab.trace.shared import TracedArray, TracedNumber, told
from lab.trace.synchronize import TracedBarrier, TracedCondition, TracedEvent, TracedLock, TracedRLock
from lab.trace.wrapper import Traced, bare, note

WRITES = {
    "append", "clear", "extend", "insert", "pop", "popitem", "remove", "reverse", "set", "setdefault", "sort", "update",
    "__setitem__", "__delitem__", "__iadd__", "__imul__", "__ior__",
}  # fmt: skip


class TracedManaged(Traced):
    """Around a managed object: each method that is called is a reading, or a writing if it is one that changes things.

    Of a class of the program's own nobody can tell which: there each call is a reading.
    """

    def __getattr__(self, attribute: str) -> Any:
        found = super().__getattr__(attribute)
        return self._noted(attribute, found) if callable(found) and not attribute.startswith("_") else found

    def _noted(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        word = "written" if name in WRITES else "read"

        def noted(*args: Any, **kwds: Any) -> Any:
            more = {"name": name} | (told(args[-1]) if args else {})
            return self._do(word, lambda: method(*map(bare, args), **kwds), more=more)

        return noted

    def __iter__(self) -> Iterator[Any]:
        return iter(self._noted("__iter__", lambda: iter(self._inner))())

    def __str__(self) -> str:
        return str(self._inner)

    def __eq__(self, other: object) -> bool:
        return bool(self._inner == bare(other))

    __hash__ = None  # type: ignore[assignment]  # as of lists and dicts


def _operator(name: str) -> Callable[..., Any]:
    def operate(self: TracedManaged, *args: Any) -> Any:
        def ask(*given: Any) -> Any:
            method = getattr(type(self._inner), name, None)
            if method is None:
                raise TypeError(f"a {type(self._inner).__name__} has no {name}")
            return method(self._inner, *given)

        result = self._noted(name, ask)(*args)
        return self if name.startswith("__i") and result is self._inner else result

    return operate


for _name in (
    "__len__", "__getitem__", "__setitem__", "__delitem__", "__contains__", "__reversed__", "__add__", "__mul__", "__rmul__",
    "__iadd__", "__imul__", "__or__", "__ior__",
):  # fmt: skip
    setattr(TracedManaged, _name, _operator(_name))


class TracedNamespace(Traced):
    """Around a Namespace: its attributes are read and written."""

    def __getattr__(self, attribute: str) -> Any:
        begun, found = now(), super().__getattr__(attribute)
        if not attribute.startswith("_"):
            note(begun, "read", self._name, now() - begun, {"name": attribute} | told(found))
        return found

    def __setattr__(self, attribute: str, value: Any) -> None:
        self._do("written", setattr, self._inner, attribute, value, more={"name": attribute} | told(value))

    def __delattr__(self, attribute: str) -> None:
        self._do("written", delattr, self._inner, attribute, more={"name": attribute})


KINDS: dict[str, Any] = {
    "Lock": TracedLock,
    "RLock": TracedRLock,
    "Semaphore": TracedLock,
    "BoundedSemaphore": TracedLock,
    "Condition": TracedCondition,
    "Event": TracedEvent,
    "Barrier": TracedBarrier,
    "Queue": TracedQueue,
    "JoinableQueue": TracedQueue,
    "Value": TracedNumber,
    "Array": TracedArray,
    "Namespace": TracedNamespace,
    "list": TracedManaged,
    "dict": TracedManaged,
    "set": TracedManaged,
}
"""What stands around an object of a manager, by its type. A manager's Pool is not traced."""


class TracedManager(Traced):
    """Around a manager.

    Args:
        inner: The manager.
        name: What the trace calls it.
        _new_name: Names an object of a kind.
    """

    _new_name: Callable[..., str]

    def __getattr__(self, attribute: str) -> Any:
        found = super().__getattr__(attribute)
        if attribute not in KINDS:
            return found

        def make(*args: Any, **kwds: Any) -> Any:
            inner = found(*map(bare, args), **{name: bare(value) for name, value in kwds.items()})
            given = next(iter([*args, *kwds.values()]), None)
            more: dict[str, Any] = {}
            if attribute == "Condition":
                more["lock"] = given
            if attribute in ("Queue", "JoinableQueue"):
                more["_bounded"] = (given or 0) > 0
            told_of = {"value": 1 if given is None else given} if "emaphore" in attribute else {}
            return KINDS[attribute](inner, self._new_name(f"managed {attribute}", **told_of), **more)

        return make

    def __reduce__(self) -> tuple[Any, ...]:
        return bare, (self._inner,)  # it goes as what it stands around: objects are named here

    def __enter__(self) -> Self:
        self._inner.__enter__()
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self._inner.__exit__(*exc_info)
