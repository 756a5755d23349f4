"""What every shared object of the explored place is: something with a key, a name, a state, and operations."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any

from lab.explored.operation import Operation, Touch
from lab.explored.scheduler import active


class Primitive:
    """What is not copied on its way to another process: it is the same object there, or a handle of it.

    Attributes:
        inherited: Where a process gets it from its parent only, with which it begins: what multiprocessing calls it then.
    """

    inherited = ""


class Held:
    """What ``with`` acquires and releases."""

    acquire: Any
    release: Any

    def __enter__(self) -> bool:
        return bool(self.acquire())

    def __exit__(self, *exc_info: object) -> None:
        self.release()


class Shared(Primitive):
    """An object that operations touch.

    Attributes:
        key: The same in every run of a program.
        label: Its name for people.
        clock: Virtual time of the last write.
    """

    kind = "object"
    clock = 0.0

    def __init__(self, label: str = "") -> None:
        self.key, self.label = active().add(self, self.kind, label)

    def label_of(self, part: int | None) -> str:
        """Its name, or that of a part."""
        return self.label if part is None else f"{self.label}[{part}]"

    def state(self) -> Any:
        """All that decides how it will behave; hashable."""
        raise NotImplementedError

    def show(self) -> str:
        """Its state in a few characters."""
        raise NotImplementedError

    def touch(self, writes: bool, part: int | None = None) -> Touch:
        """What an operation on it touches."""
        return Touch(self.key, part, writes)

    def _do(
        self,
        kind: str,
        act: Callable[[], Any],
        ready: Callable[[], bool] | None = None,
        *,
        writes: bool = True,
        part: int | None = None,
        also: tuple[Touch, ...] = (),
        timeout: float | None = None,
        expire: Callable[[], Any] | None = None,
        note: Callable[[Any], str] | None = None,
    ) -> Any:
        touches = (self.touch(writes, part), *also)
        if timeout is not None:
            timeout = max(timeout, 0.0)
        return active().perform(
            Operation(kind, act, touches, ready, timeout, expire, note=note, waits_for=lambda: self.label)
        )


class _Packer(pickle.Pickler):
    def __init__(self, file: io.BytesIO, to_child: bool) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self.kept: list[Any] = []
        self._to_child = to_child

    def persistent_id(self, obj: Any) -> int | None:
        if not isinstance(obj, Primitive):
            return None
        if obj.inherited and not self._to_child:
            raise RuntimeError(f"{obj.inherited} objects should only be shared between processes through inheritance")
        self.kept.append(obj)
        return len(self.kept) - 1


class _Unpacker(pickle.Unpickler):
    def __init__(self, data: bytes, kept: list[Any]) -> None:
        super().__init__(io.BytesIO(data))
        self._kept = kept

    def persistent_load(self, pid: Any) -> Any:
        obj = self._kept[pid]
        return obj.for_child() if isinstance(obj, Handle) else obj


class ReadOnly(Shared):
    """What ``ctx.share`` returns: one copy of an object for all processes, whose reading is no operation.

    Attributes:
        value: The object.
    """

    kind = "Shared"

    def __init__(self, obj: Any) -> None:
        packed = Packed(obj, to_child=True)
        self.value, self._state = packed.open(), packed.state()
        super().__init__()

    def state(self) -> Any:
        """All there is of it, for good."""
        return self._state

    def show(self) -> str:
        """Its value, short."""
        return short(self.value)


class Handle(Primitive):
    """What each process closes for itself only, and so has one of its own."""

    def for_child(self) -> Any:
        """A second handle of the same object, for the worker that asks."""
        raise NotImplementedError


class Packed:
    """A value on its way to another process: its own copy, as a pickle makes one; primitives are the same at both ends.

    Args:
        value: The value.
        to_child: Whether a new process begins with it.

    Attributes:
        plain: The value itself, if it is a truth value or a number.

    Raises:
        RuntimeError: It has what only a new process may be given.
        Whatever pickling raises.
    """

    def __init__(self, value: Any, to_child: bool = False) -> None:
        buffer = io.BytesIO()
        packer = _Packer(buffer, to_child)
        packer.dump(value)
        self._data, self._kept = buffer.getvalue(), packer.kept
        self.plain = value if isinstance(value, (bool, int, float)) else None

    def open(self) -> Any:
        """The copy."""
        return _Unpacker(self._data, self._kept).load()

    def state(self) -> Any:
        """What tells it from others."""
        return self._data, tuple(getattr(obj, "key", type(obj).__name__) for obj in self._kept)

    def show(self) -> str:
        """Its value, short."""
        return short(self.open()) if not self._kept else "..."


def short(value: Any, length: int = 12) -> str:
    """A value in a few characters."""
    text = repr(value)
    return text if len(text) <= length else text[: length - 2] + ".."
