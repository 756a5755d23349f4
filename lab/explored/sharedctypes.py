"""Value, Array, RawValue and RawArray: ctypes objects whose every read and write is an operation.

``value.value += 1`` is two of them. As in multiprocessing, a Value's own lock is held for the time of each, and may be held
for longer by ``with value.get_lock()``.
"""

from __future__ import annotations

from collections.abc import Iterator
from multiprocessing import sharedctypes as standard
from typing import Any

from lab.explored.scheduler import current
from lab.explored.shared import Held, Shared, short
from lab.explored.synchronize import Lock, RLock


class Memory(Held, Shared):
    """A ctypes object, behind a lock or not."""

    _memory: Any
    _guard: Lock | None
    _wrapper = "Synchronized"

    def __init__(self, memory: Any, lock: Any) -> None:
        super().__init__()
        self._guard = guard(lock, f"{self.label}'s lock")
        self._memory = memory
        self.inherited = type(memory).__name__ if self._guard is None else self._wrapper

    def state(self) -> Any:
        """Its bytes."""
        return bytes(self._memory)

    def _access(self, kind: str, act: Any, writes: bool, part: int | None = None, value: Any = None) -> Any:
        guard, me = self._guard, current()
        return self._do(
            kind,
            act,
            None if guard is None else lambda: guard.free_for(me),
            writes=writes,
            part=part,
            also=() if guard is None else (guard.touch(False),),
            note=lambda got: short(value if writes else got),
        )

    def get_lock(self) -> Any:
        """Its lock."""
        if self._guard is None:
            raise AttributeError("a raw value has no lock")
        return self._guard

    def get_obj(self) -> Any:
        """The object without its lock; each access is an operation all the same."""
        other = object.__new__(type(self))
        vars(other).update(vars(self), _guard=None)
        return other

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Acquire its lock."""
        return bool(self.get_lock().acquire(block, timeout))

    def release(self) -> None:
        """Release its lock."""
        self.get_lock().release()


class SharedValue(Memory):
    """One number, or a structure."""

    kind = "Value"

    def show(self) -> str:
        """The number."""
        memory = self._memory
        if hasattr(memory, "value"):
            return short(memory.value)
        return short(tuple(getattr(memory, name) for name, *_ in memory._fields_), 20)

    def __getattr__(self, name: str) -> Any:
        memory = vars(self).get("_memory")
        if memory is None or name.startswith("_") or not hasattr(memory, name):
            raise AttributeError(name)
        return self._access("read", lambda: getattr(memory, name), writes=False)

    def __setattr__(self, name: str, value: Any) -> None:
        memory = vars(self).get("_memory")
        if memory is None or not hasattr(type(memory), name):
            object.__setattr__(self, name, value)
            return
        self._access("write", lambda: setattr(memory, name, value), writes=True, value=value)


class SharedArray(Memory):
    """A row of numbers; each is a part of its own."""

    kind = "Array"
    _wrapper = "SynchronizedArray"

    def show(self) -> str:
        """Its numbers."""
        return short(self._memory[:], 20)

    def __len__(self) -> int:
        return len(self._memory)

    def _part(self, index: Any) -> int | None:
        if isinstance(index, slice):
            return None
        return index + len(self._memory) if index < 0 else int(index)

    def __getitem__(self, index: Any) -> Any:
        return self._access("read", lambda: self._memory[index], writes=False, part=self._part(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        def act() -> None:
            self._memory[index] = value

        self._access("write", act, writes=True, part=self._part(index), value=value)

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))

    @property
    def value(self) -> Any:
        """All bytes up to the first zero, of an array of characters."""
        return self._access("read", lambda: self._memory.value, writes=False)

    @value.setter
    def value(self, new: bytes) -> None:
        def act() -> None:
            self._memory.value = new

        self._access("write", act, writes=True, value=new)

    @property
    def raw(self) -> Any:
        """All bytes, of an array of characters."""
        return self._access("read", lambda: self._memory.raw, writes=False)


def guard(lock: Any, label: str) -> Lock | None:
    """The lock that ``lock=`` of a Value asks for.

    Raises:
        AttributeError: It is none.
    """
    if lock is False:
        return None
    if lock in (True, None):
        return RLock(label)
    if not hasattr(lock, "acquire"):
        raise AttributeError(f"{lock!r} has no method 'acquire'")
    return lock  # type: ignore[no-any-return]


def make_value(typecode_or_type: Any, *args: Any, lock: Any = True) -> SharedValue:
    """A Value, and its lock; with ``lock=False`` a RawValue."""
    return SharedValue(ctype(typecode_or_type)(*args), lock)


def make_array(typecode_or_type: Any, size_or_initializer: Any, *, lock: Any = True) -> SharedArray:
    """An Array, and its lock; with ``lock=False`` a RawArray."""
    kind = ctype(typecode_or_type)
    if isinstance(size_or_initializer, int):
        return SharedArray((kind * size_or_initializer)(), lock)
    return SharedArray((kind * len(size_or_initializer))(*size_or_initializer), lock)


def ctype(typecode_or_type: Any) -> Any:
    """The ctypes type of a typecode."""
    codes: dict[Any, Any] = vars(standard)["typecode_to_type"]
    return codes.get(typecode_or_type, typecode_or_type)
