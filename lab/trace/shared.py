"""Values and arrays, traced."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

from lab.trace.clock import now
from lab.trace.synchronize import Held, TracedLock, TracedRLock
from lab.trace.wrapper import Traced, note

_PLAIN = (int, float, bool)


def told(value: Any) -> dict[str, Any]:
    """What an event says of a value."""
    return {"value": value if isinstance(value, _PLAIN) else repr(value)[:60]}


class TracedValue(Held):
    """Around a Value or a RawValue: a number, or a structure, whose fields are read and written."""

    def __init__(self, inner: Any, name: str, lock: TracedLock | None = None, **_: Any) -> None:
        if lock is None and hasattr(inner, "get_lock"):
            lock = TracedRLock(inner.get_lock(), f"{name}'s lock")
        super().__init__(inner, name, _own_lock=lock)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._inner, self._name, self._own_lock)

    def __getattr__(self, attribute: str) -> Any:
        found = super().__getattr__(attribute)
        if attribute == "value" or (isinstance(found, _PLAIN) and not attribute.startswith("_")):
            note(now(), "read", self._name, 0, told(found))
        return found

    def __setattr__(self, attribute: str, value: Any) -> None:
        self._do("written", setattr, self._inner, attribute, value, more=told(value))

    def get_lock(self) -> Any:
        """Its lock, traced."""
        return self._own_lock if self._own_lock is not None else self._inner.get_lock()

    def acquire(self, *args: Any, **kwds: Any) -> Any:
        """Take its lock."""
        return self.get_lock().acquire(*args, **kwds)

    def release(self) -> None:
        """Give its lock back."""
        self.get_lock().release()


class TracedNumber(TracedValue):
    """Around a number."""

    @property
    def value(self) -> Any:
        """The value now."""
        begun = now()
        found = self._inner.value
        note(begun, "read", self._name, now() - begun, told(found))
        return found

    def __setattr__(self, attribute: str, value: Any) -> None:
        if attribute != "value":
            setattr(self._inner, attribute, value)
            return
        self._do("written", setattr, self._inner, attribute, value, more=told(value))

    def __getattr__(self, attribute: str) -> Any:
        found = Traced.__getattr__(self, attribute)
        if attribute in ("add", "add_once"):
            return lambda *args: self._do("added", found, *args, more=told(args[0]))
        return found


class TracedArray(TracedValue):
    """Around an Array."""

    def __getattr__(self, attribute: str) -> Any:
        begun = now()
        found = Traced.__getattr__(self, attribute)
        if attribute in ("value", "raw"):  # of strings
            note(begun, "read", self._name, now() - begun, told(found))
        return found

    def __len__(self) -> int:
        return len(self._inner)

    def __getitem__(self, index: Any) -> Any:
        begun = now()
        found = self._inner[index]
        note(begun, "read", self._name, now() - begun, told(found))
        return found

    def __setitem__(self, index: Any, value: Any) -> None:
        self._do("written", self._inner.__setitem__, index, value, more=told(value))

    def __iter__(self) -> Any:
        return iter(self[:])


def traced_array(inner: Any, name: str) -> Any:
    """An array without a lock, traced.

    One in the memory of this host is of a class of ctypes, and stays so, where it lies in memory: there libraries find it.
    """
    if not isinstance(inner, ctypes.Array):
        return TracedArray(inner, name)
    found = _traced_memory(type(inner)).from_buffer(inner)
    vars(found).update(_inner=inner, _name=name)
    return found


@cache
def _traced_memory(base: Any) -> Any:
    class TracedMemory(base):  # type: ignore[misc]
        """An array in memory whose items say that they are read and written."""

        _inner: Any
        _name: str

        def __getitem__(self, index: Any) -> Any:
            return self._noted(super().__getitem__, index)

        def __setitem__(self, index: Any, value: Any) -> None:
            begun = now()
            super().__setitem__(index, value)
            note(begun, "written", self._name, now() - begun, told(value))

        def __iter__(self) -> Any:
            return iter(self[:])

        def _noted(self, read: Any, *args: Any) -> Any:
            begun = now()
            found = read(*args)
            note(begun, "read", self._name, now() - begun, told(found))
            return found

        def __reduce__(self) -> tuple[Any, ...]:
            return traced_array, (self._inner, self._name)

    for attribute in {"value", "raw"} & set(dir(base)):  # of strings
        setattr(TracedMemory, attribute, _traced_attribute(getattr(base, attribute)))
    TracedMemory.__name__, TracedMemory.__qualname__ = base.__name__, base.__qualname__
    return TracedMemory


def _traced_attribute(plain: Any) -> property:
    def write(self: Any, value: Any) -> None:
        begun = now()
        plain.__set__(self, value)
        note(begun, "written", self._name, now() - begun, told(value))

    return property(lambda self: self._noted(plain.__get__, self), write)
