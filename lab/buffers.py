"""An object as a pickle, and its buffers beside it, uncopied: pickle protocol 5 (PEP 574).

A numpy array, and whatever else has its bytes in a buffer, hands that over beside its pickle; and of large bytes the pickler
hands over the very object. So what is large is not copied into the pickle by who sends it, but goes to the socket, or to who
encrypts it, in parts.

The parts together are a pickle. Or, if there are buffers beside it, a block, which begins with another byte than a pickle::

    0   many     8 bytes     the number of buffers
    8   size     8 bytes     of the pickle
    16  sizes    8 bytes     of each buffer
    ..  pickle
    ..  buffers              each at a multiple of ``ALIGN``, as vector instructions like it

Who receives a block makes its objects of views of it: what is in its buffers stays where it is.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Iterator, Sequence
from multiprocessing import reduction
from types import SimpleNamespace
from typing import Any

from lab.byvalue import Pickler

ALIGN = 64
LEAST = 1 << 16
"""Bytes from which a buffer of a message is beside its pickle: fewer are copied sooner than they are told of."""
_NUMBER = struct.Struct(">Q")
_PICKLE = 0x80
"""What every pickle begins with, since protocol 2."""
_WORDS = 16
"""What the start of a block is aligned to when memory is allocated."""


class Packer:
    """Pickles, without a new pickler for every object, which costs more than a small object itself.

    Args:
        least: Bytes from which a buffer is beside the pickle.
        views: Whether it takes a ``memoryview`` too, which multiprocessing does not.
        kind: The pickler.
    """

    def __init__(self, least: int = LEAST, views: bool = False, kind: type[Pickler] = Pickler) -> None:
        self._least, self._views, self._kind = least, views, kind
        self._begin()

    def _begin(self) -> None:
        self._parts: list[Any] = []
        self._outside: list[memoryview] = []
        file = SimpleNamespace(write=self._parts.append)
        self._pickler = self._kind(file, pickle.HIGHEST_PROTOCOL, self._belongs_inside)
        if self._views:
            self._pickler.dispatch_table[memoryview] = _reduce_view

    def _belongs_inside(self, buffer: pickle.PickleBuffer) -> bool:
        try:
            raw = buffer.raw()
        except BufferError:
            return True  # it is not in one piece: pickle says so
        if raw.nbytes < self._least:
            return True
        self._outside.append(raw)
        return False

    def pack(self, obj: Any) -> tuple[list[Any], list[memoryview]]:
        """The pickle of an object, in parts, and the buffers beside it: the object's own memory, where it is large.

        Raises:
            Whatever pickling raises.
        """
        try:
            self._pickler.dump(obj)
        except BaseException:
            self._begin()
            raise
        if len(self._parts) == 1 and not self._outside:
            parts = self._parts[:]
            self._parts.clear()
            self._pickler.clear_memo()
            return parts, []
        parts, outside = self._parts, self._outside
        self._begin()
        return [part.raw() if isinstance(part, pickle.PickleBuffer) else part for part in parts], outside

    def dumps(self, obj: Any) -> list[Any]:
        """The parts of an object, in their order; one, if it is small."""
        parts, outside = self.pack(obj)
        return block(parts, outside) if outside else parts


def dumps(obj: Any) -> list[Any]:
    """The parts of an object, for who pickles now and then."""
    return Packer().dumps(obj)


def size(parts: Sequence[Any]) -> int:
    """Bytes of some parts together."""
    return sum(map(len, parts))


def block(pickled: list[Any], buffers: list[memoryview]) -> list[Any]:
    """The parts of a block, of a pickle in parts and the buffers beside it."""
    return list(_lay_out(pickled, buffers))


def _lay_out(pickled: list[Any], buffers: list[memoryview]) -> Iterator[Any]:
    length = size(pickled)
    sizes = [_NUMBER.pack(buffer.nbytes) for buffer in buffers]
    head = b"".join((_NUMBER.pack(len(buffers)), _NUMBER.pack(length), *sizes))
    at = len(head) + length
    yield head
    yield from pickled
    for buffer in buffers:
        yield bytes(-at % ALIGN)
        yield buffer
        at += -at % ALIGN + buffer.nbytes


def loads(data: Any, at: int = 0) -> Any:
    """The object of which these are the parts, put together.

    Args:
        data: A memoryview; anything bytes-like, if it is a pickle.
        at: Where in memory it begins, from the start of what was allocated for it.

    Raises:
        Whatever unpickling raises.
    """
    if is_pickle(data) or not data:
        return reduction.ForkingPickler.loads(data)
    view = memoryview(bytearray(data) if at % _WORDS else data)
    many, length = (_NUMBER.unpack_from(view, at)[0] for at in (0, 8))
    at = 16 + 8 * many
    pickled, buffers = view[at : at + length], list[memoryview]()
    at += length
    for n in range(many):
        at += -at % ALIGN
        (length,) = _NUMBER.unpack_from(view, 16 + 8 * n)
        buffers.append(view[at : at + length])
        at += length
    return reduction.ForkingPickler.loads(pickled, buffers=buffers)


def is_pickle(data: Any) -> bool:
    """Whether some parts, of which this is the first, are a pickle, and no block."""
    return len(data) > 0 and data[0] == _PICKLE


def nested(obj: Any, packer: Packer | None = None) -> tuple[Any, ...]:
    """An object packed by itself, on its way in another one: what is beside its pickle is beside the other's.

    It is to be loaded by ``load_nested`` where it arrives.

    Args:
        obj: The object.
        packer: Packs it; one of its own if None.

    Raises:
        Whatever pickling raises.
    """
    parts, outside = (packer or Packer()).pack(obj)
    if len(parts) == 1:
        return parts[0], *map(pickle.PickleBuffer, outside)
    return pickle.PickleBuffer(b"".join(parts)), *map(pickle.PickleBuffer, outside)


def load_nested(parts: tuple[Any, ...]) -> Any:
    """The object that was packed by itself.

    Raises:
        Whatever unpickling raises.
    """
    return reduction.ForkingPickler.loads(parts[0], buffers=parts[1:])


def _reduce_view(view: memoryview) -> tuple[Any, ...]:
    return _view, (pickle.PickleBuffer(view), view.format, view.shape)


def _view(buffer: Any, format_: str, shape: tuple[int, ...]) -> Any:
    """The same view of the bytes, wherever they lie now."""
    view: Any = memoryview(buffer)
    return view if (len(shape) == 1 and format_ == "B") or 0 in shape else view.cast("B").cast(format_, shape)
