"""Value and Array: numbers, structures and arrays of them that every host sees.

The memory is a Redis string, laid out as C lays out the type. Numbers lie in it in network byte order, so that hosts of
either endianness agree and Redis' own ``BITFIELD ... INCRBY`` can add to them, with the width and the overflow of the C
type. The classes that add a lock are the stdlib's (``multiprocessing.sharedctypes``).

A write is sent without waiting for its reply, in order with everything else that this process sends (``Store.post``).

It is the one thing that processes share which is not encrypted: Redis adds to it, and its items are written one by one, by
several processes at once. Whoever can read Redis can read it, and whoever can write there can change it. It stays numbers,
whatever they do (docs/security.md): what is secret goes into a Queue, a Pipe or a manager.

On Redis: string ``memory:ID``; GETRANGE to read, SETRANGE to write, BITFIELD to add.

Differs from multiprocessing: what is shared is no ctypes object of this process, so it has no address; ``local()`` is a copy
of a structure or array that is one. Pointers, unions and bit fields are refused (TypeError). ``add`` is beside the stdlib's
names. A write by a process that was taken for dead is refused (LeaseLost).
"""

from __future__ import annotations

import ctypes
from multiprocessing import context, sharedctypes
from typing import Any

from lab.cluster.foresight import read
from lab.cluster.synchronize import SemLock
from lab.errors import KeyLost
from lab.store import run as runs
from lab.store.run import Run
from lab.store.script import Script

_CREATE = "redis.call('SETRANGE', KEYS[3], 0, ARGV[3]) create(KEYS[3]) return 1"
CREATE = Script(_CREATE)
CREATE_LARGE = Script(_CREATE, grows=True)

LARGE = 1 << 16
"""Bytes from which on it is worth a round trip to know whether Redis has memory for them."""

# Excluded: counting on from nought, or a string with holes, where somebody has deleted what was there.
_IF_THERE = "if redis.call('EXISTS', KEYS[3]) == 0 then error({err = 'KEYLOST ' .. KEYS[3]}) end\n"

WRITE = Script(
    _IF_THERE + "for i = 3, #ARGV, 2 do redis.call('SETRANGE', KEYS[3], ARGV[i], ARGV[i + 1]) end return 1",
    fenced=True,
)

_UNLESS_LOCKED = "if redis.call('HGET', KEYS[4], 'value') == '0' then return false end\n"

READ_UNLESS_LOCKED = Script(_UNLESS_LOCKED + "return redis.call('GETRANGE', KEYS[3], ARGV[3], ARGV[4])", numbered=False)

WRITE_UNLESS_LOCKED = Script(
    _UNLESS_LOCKED + _IF_THERE + "redis.call('SETRANGE', KEYS[3], ARGV[3], ARGV[4]) return 1", fenced=True
)

ADD = Script(_IF_THERE + "return redis.call('BITFIELD', KEYS[3], 'INCRBY', ARGV[3], 0, ARGV[4])[1]", fenced=True)

ADD_ONCE = Script(
    _IF_THERE
    + """
local ids = KEYS[3] .. ':ids'
if redis.call('SADD', ids, ARGV[5]) == 0 then return 0 end
if redis.call('SCARD', ids) == 1 then create(ids) end
redis.call('BITFIELD', KEYS[3], 'INCRBY', ARGV[3], 0, ARGV[4])
return 1
""",
    fenced=True,
)

ADD_FLOAT = Script(
    _IF_THERE
    + """
local sum = struct.unpack(ARGV[3], redis.call('GET', KEYS[3])) + tonumber(ARGV[4])
redis.call('SETRANGE', KEYS[3], 0, struct.pack(ARGV[3], sum))
return struct.pack('>d', sum)
""",
    fenced=True,
)


class Memory:
    """Bytes in Redis.

    Args:
        key: Name of the string.
        size: Its length in bytes.
    """

    def __init__(self, run: Run, key: str, size: int) -> None:
        self.run, self.key, self.size = run, key, size

    def read(self, offset: int, size: int) -> bytes:
        """Some bytes."""
        return self.intact(read(self.run, ("GETRANGE", self.key, offset, offset + size - 1)), size)

    def write(self, *offsets_and_bytes: Any) -> None:
        """Write pieces, all at once: offset, bytes, offset, bytes ..."""
        self.run.post(WRITE, [self.key], *offsets_and_bytes)

    def intact(self, data: bytes, size: int) -> bytes:
        """The data, if Redis still had it."""
        if len(data) != size:
            raise KeyLost.gone(self.key, f"{len(data)} of {size} bytes are left")
        return data

    def __getstate__(self) -> tuple[str, int]:
        context.assert_spawning(self)
        return (self.key, self.size)

    def __setstate__(self, state: tuple[str, int]) -> None:
        run = runs.current()
        assert run is not None
        self.run = run
        self.key, self.size = state


class _Raw:
    """A ctypes object of some type, in a memory.

    Args:
        native: Its ctypes type, as this host has it.
        offset: Where in the memory it begins; not 0 for an item of an array or a field of a structure.
    """

    def __init__(self, native: Any, memory: Memory, offset: int = 0) -> None:
        self._native, self._memory, self._offset = native, memory, offset
        self._setup()

    def _setup(self) -> None:
        self._size = ctypes.sizeof(self._native)

    def _read(self) -> bytes:
        return self._memory.read(self._offset, self._size)

    def local(self) -> Any:
        """What it holds now, as a ctypes object of this process; of a number or character, the value."""
        return _from_network(self._native, self._read())

    def __getstate__(self) -> tuple[Any, ...]:
        context.assert_spawning(self)
        return (_pickled_type(self._native), self._memory, self._offset)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        native, self._memory, self._offset = state
        self._native = _unpickled_type(native)
        self._setup()


class SharedValue(_Raw):
    """One number or character; the counterpart of a ctypes object in shared memory.

    On Redis: string ``memory:ID``; GETRANGE, SETRANGE, BITFIELD.

    Differs from multiprocessing: it is no ctypes object; ``add`` is new; a late write raises LeaseLost.
    """

    def _setup(self) -> None:
        super()._setup()
        self._ctype = _network_type(self._native)

    @property
    def value(self) -> Any:
        """The value now: one GETRANGE."""
        return self.decode(self._read())

    @value.setter
    def value(self, value: Any) -> None:
        self._memory.write(self._offset, self.encode(value))

    def encode(self, value: Any) -> bytes:
        """The bytes of a value; TypeError if the C type does not take it."""
        return bytes(self._ctype(value))

    def decode(self, data: bytes) -> Any:
        """The value of some bytes."""
        return self._ctype.from_buffer_copy(data).value

    def add(self, amount: float) -> Any:
        """Add in one step, so that no concurrent update is lost; the sum. Integers wrap as in C."""
        run, key = self._memory.run, self._memory.key
        if self._native in (ctypes.c_float, ctypes.c_double):
            layout = ">d" if self._native is ctypes.c_double else ">f"
            self._ctype(amount)
            data = run.eval(ADD_FLOAT, [key], layout, repr(float(amount)))
            return ctypes.c_double.__ctype_be__.from_buffer_copy(data).value
        self._native(amount)
        run_reply = run.eval(ADD, [key], f"i{self._size * 8}", amount)
        return self._native(run_reply).value

    def add_once(self, amount: int, number: object) -> bool:
        """Add, unless it was done under this number before; whether it was added.

        Remembering and adding are one step, so the effect happens once however often the call is repeated, and whoever dies
        in between. On Redis: set ``memory:ID:ids``, which lives as long as the run.

        Raises:
            TypeError: The value is no integer.
        """
        if self._native in (ctypes.c_float, ctypes.c_double):
            raise TypeError("add_once is for integers")
        self._native(amount)
        run, key = self._memory.run, self._memory.key
        return bool(run.eval(ADD_ONCE, [key], f"i{self._size * 8}", amount, str(number)))

    def __repr__(self) -> str:
        return f"{self._native.__name__}({self.value!r})"


class SharedStructure(_Raw):
    """A structure; the counterpart of a ``ctypes.Structure`` in shared memory.

    A field that is a number or character is read and written at once in Redis; one that is a structure or an array is a view
    of its part of the memory.

    On Redis: string ``memory:ID``; GETRANGE, and a script of SETRANGE, for each access to a field.

    Differs from multiprocessing: it is no ctypes object, and has the fields of the structure but not its methods. A structure
    with bit fields, and a union, is refused (TypeError).
    """

    def __getattr__(self, name: str) -> Any:
        kind = self._field(name)
        offset = self._offset + getattr(self._native, name).offset
        if _is_text(kind):  # what ctypes does with an array of characters in a structure
            return kind.from_buffer_copy(self._memory.read(offset, ctypes.sizeof(kind))).value
        return _item(kind, self._memory, offset)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("_native", "_memory", "_offset", "_size"):
            return super().__setattr__(name, value)
        kind = self._field(name)
        local = self._native()
        setattr(local, name, value.local() if isinstance(value, _Raw) else value)
        return self._memory.write(
            self._offset + getattr(self._native, name).offset, _to_network(kind, _field_of(local, name, kind))
        )

    def _field(self, name: str) -> Any:
        kind = None if name == "_native" else dict(_fields(self._native)).get(name)
        if kind is None:
            raise AttributeError(f"{type(self).__name__} has no field {name!r}")
        return kind

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name, _ in _fields(self._native))
        return f"{self._native.__name__}({fields})"


class SharedArray(_Raw):
    """An array; the counterpart of a ctypes array in shared memory.

    Its items are numbers or characters, or views of structures and arrays.

    On Redis: string ``memory:ID``; a slice is one GETRANGE, or one script of SETRANGEs.

    Differs from multiprocessing: it is no ctypes object; a late write raises LeaseLost.
    """

    def _setup(self) -> None:
        super()._setup()
        self._item_type = self._native._type_
        self._width = ctypes.sizeof(self._item_type)

    def __len__(self) -> int:
        return int(self._native._length_)

    def __getitem__(self, index: int | slice) -> Any:
        if not isinstance(index, slice):
            return _item(self._item_type, self._memory, self._position(self._index(index)))
        numbers = range(*index.indices(len(self)))
        if not _is_simple(self._item_type):
            return [_item(self._item_type, self._memory, self._position(n)) for n in numbers]
        if not numbers:
            return self._local(b"")[:]
        low, high = min(numbers[0], numbers[-1]), max(numbers[0], numbers[-1])
        items = self._local(self._memory.read(self._position(low), (high - low + 1) * self._width))
        return items[:: numbers.step] if len(numbers) > 1 else items[:]

    def __setitem__(self, index: int | slice, value: Any) -> None:
        if not isinstance(index, slice):
            self._memory.write(self._position(self._index(index)), self._encode(value))
            return
        numbers, values = range(*index.indices(len(self))), list(value)
        if len(numbers) != len(values):
            raise ValueError("Can only assign sequence of same size")
        pieces = [(self._position(n), self._encode(v)) for n, v in zip(numbers, values, strict=True)]
        if pieces and numbers.step == 1:
            pieces = [(pieces[0][0], b"".join(data for _, data in pieces))]
        if pieces:
            self._memory.write(*[part for piece in pieces for part in piece])

    def __iter__(self) -> Any:
        return iter(self[:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        """What it holds now, for numpy; not to be written to unless a copy was asked for, as nobody else would see it."""
        import numpy

        now = numpy.array(numpy.ctypeslib.as_array(self.local()), dtype)
        now.setflags(write=bool(copy))
        return now

    def _index(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError("invalid index")
        return index % len(self)

    def _position(self, index: int) -> int:
        return self._offset + index * self._width

    def _encode(self, value: Any) -> bytes:
        if isinstance(value, _Raw):
            value = value.local()
        local = (self._item_type * 1)()
        local[0] = value
        return _to_network(self._item_type, local[0])

    def _local(self, data: bytes) -> Any:
        return (_network_type(self._item_type) * (len(data) // self._width)).from_buffer_copy(data)

    def __repr__(self) -> str:
        return f"<{self._item_type.__name__} array of {len(self)} in Redis>"


class SharedString(SharedArray):
    """An array of char, with a C string's ``value`` and all of its bytes as ``raw``."""

    @property
    def raw(self) -> bytes:
        """All bytes."""
        return self._read()

    @raw.setter
    def raw(self, data: bytes) -> None:
        if len(data) > len(self):
            raise ValueError("byte string too long")
        self._memory.write(self._offset, bytes(data))

    @property
    def value(self) -> bytes:
        """The bytes before the first null."""
        return self.raw.partition(b"\0")[0]

    @value.setter
    def value(self, data: bytes) -> None:
        if len(data) > len(self):
            raise ValueError("byte string too long")
        self._memory.write(self._offset, bytes(data) + b"\0" if len(data) < len(self) else bytes(data))


class SharedText(SharedArray):
    """An array of wide characters, with the text before the first null as ``value``."""

    @property
    def value(self) -> str:
        """The text."""
        return str(self.local().value)

    @value.setter
    def value(self, text: str) -> None:
        local = self._native()
        local.value = text
        self[:] = local


def _is_simple(kind: Any) -> bool:
    return issubclass(kind, ctypes._SimpleCData)


def _is_text(kind: Any) -> bool:
    return issubclass(kind, ctypes.Array) and kind._type_ in (ctypes.c_char, ctypes.c_wchar)


def _network_type(simple: Any) -> Any:
    # char and wide char have no byte order of their own
    return getattr(simple, "__ctype_be__", simple)


def _fields(kind: Any) -> list[tuple[str, Any]]:
    """Name and type of each field, those of the structures it is derived from first."""
    inherited = [base for base in reversed(kind.__mro__) if "_fields_" in vars(base)]
    return [(field[0], field[1]) for base in inherited for field in base._fields_]


def _pickled_type(kind: Any) -> Any:
    # the type of an array is made on the fly, so it has no name by which another process could find it
    return (_pickled_type(kind._type_), kind._length_) if issubclass(kind, ctypes.Array) else kind


def _unpickled_type(pickled: Any) -> Any:
    return _unpickled_type(pickled[0]) * pickled[1] if isinstance(pickled, tuple) else pickled


def _item(kind: Any, memory: Memory, offset: int) -> Any:
    """What ctypes returns for an item or field: a Python value if it is simple, else an object that shares the memory."""
    shared = _shared_type(kind)(kind, memory, offset)
    return shared.value if isinstance(shared, SharedValue) else shared


def _shared_type(kind: Any) -> type[_Raw]:
    if _is_simple(kind):
        return SharedValue
    if issubclass(kind, ctypes.Structure):
        return SharedStructure
    return {ctypes.c_char: SharedString, ctypes.c_wchar: SharedText}.get(kind._type_, SharedArray)


def _field_of(local: Any, name: str, kind: Any) -> Any:
    """A field as a ctypes object or a number: of text, ctypes itself returns only what is before the first null."""
    return kind.from_buffer(local, getattr(type(local), name).offset) if _is_text(kind) else getattr(local, name)


def _to_network(kind: Any, local: Any) -> bytes:
    """The bytes of a value or ctypes object: every number in network byte order, at the place that C gives it."""
    if _is_simple(kind):
        return bytes(_network_type(kind)(getattr(local, "value", local)))
    if issubclass(kind, ctypes.Array):
        if _is_simple(kind._type_):
            return bytes((_network_type(kind._type_) * kind._length_)(*local))
        return b"".join(_to_network(kind._type_, item) for item in local)
    data = bytearray(ctypes.sizeof(kind))
    for name, field in _fields(kind):
        offset = getattr(kind, name).offset
        data[offset : offset + ctypes.sizeof(field)] = _to_network(field, _field_of(local, name, field))
    return bytes(data)


def _from_network(kind: Any, data: bytes) -> Any:
    """A ctypes object of this process from such bytes; of a simple type, the value."""
    if _is_simple(kind):
        return _network_type(kind).from_buffer_copy(data).value
    if issubclass(kind, ctypes.Array):
        width = ctypes.sizeof(kind._type_)
        return kind(*(_from_network(kind._type_, data[n * width : (n + 1) * width]) for n in range(kind._length_)))
    local = kind()
    for name, field in _fields(kind):
        offset = getattr(kind, name).offset
        part = _from_network(field, data[offset : offset + ctypes.sizeof(field)])
        if _is_text(field):
            ctypes.memmove(ctypes.addressof(local) + offset, part, ctypes.sizeof(field))
        else:
            setattr(local, name, part)
    return local


def _native_type(code: Any) -> Any:
    native = sharedctypes.typecode_to_type.get(code, code)  # type: ignore[attr-defined]
    if not isinstance(native, type) or not issubclass(native, (ctypes._SimpleCData, ctypes.Array, ctypes.Structure)):
        raise TypeError(f"{code!r} is neither a ctypes type of fixed layout nor one of the codes {', '.join(_codes())}")
    _check_layout(native)
    return native


def _codes() -> list[str]:
    return sorted(sharedctypes.typecode_to_type)  # type: ignore[attr-defined]


def _check_layout(kind: Any) -> None:
    """Refuse what has no meaning on another host, or no address of its own."""
    if kind in (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_wchar_p, ctypes.py_object):
        raise TypeError(f"{kind.__name__} is a pointer, which means nothing in another process")
    if issubclass(kind, ctypes.Array):
        _check_layout(kind._type_)
    elif issubclass(kind, ctypes.Structure):
        if any(len(field) > 2 for base in kind.__mro__ for field in vars(base).get("_fields_", ())):
            raise TypeError(f"{kind.__name__} has bit fields, which a shared structure cannot have on the cluster")
        for _, field in _fields(kind):
            _check_layout(field)
    elif not _is_simple(kind):
        raise TypeError(f"{kind.__name__} is a union or a pointer, which cannot be shared on the cluster")


def _share(run: Run, native: Any, local: Any) -> Any:
    """A shared object with the contents of a local one."""
    memory = Memory(run, run.new_name("memory"), ctypes.sizeof(native))
    contents = _to_network(native, local)
    if len(contents) < LARGE:
        run.post(CREATE, [memory.key], contents)
    else:
        run.eval(CREATE_LARGE, [memory.key], contents)
    return _shared_type(native)(native, memory)


def RawValue(run: Run, typecode_or_type: Any, *args: Any) -> Any:
    """A value, structure or array of a ctypes type, without a lock."""
    native = _native_type(typecode_or_type)
    return _share(run, native, native(*args))


def RawArray(run: Run, typecode_or_type: Any, size_or_initializer: Any) -> Any:
    """An array without a lock, zeroed if only its size is given."""
    item = _native_type(typecode_or_type)
    if isinstance(size_or_initializer, int):
        if size_or_initializer < 0:
            raise ValueError("Array length must be >= 0, not negative")
        native = item * size_or_initializer
        return _share(run, native, native())
    items = list(size_or_initializer)
    native = item * len(items)
    return _share(run, native, native(*items))


def copy(obj: Any) -> Any:
    """A new shared object, without a lock, with what a shared object without a lock now holds."""
    return _share(obj._memory.run, obj._native, obj.local())


class _Synchronized:
    """Pickles the wrapper around our objects; goes before the stdlib's class in the bases."""

    _obj: Any
    _lock: Any

    def __reduce__(self) -> tuple[Any, ...]:
        context.assert_spawning(self)
        return _synchronized, (self._obj, self._lock)

    def _cluster_lock(self) -> SemLock | None:
        """The lock's key side, if one script can look at it and at the memory: a free lock costs no round trip more."""
        semlock = getattr(self._lock, "_semlock", None)
        return semlock if isinstance(semlock, SemLock) and not semlock._is_mine() else None


class Synchronized(_Synchronized, sharedctypes.Synchronized):  # type: ignore[type-arg]
    """A value with a lock: ``value`` waits while somebody else holds ``get_lock()``.

    On Redis: one script looks at lock and memory, so reading with the lock free is one round trip.

    Differs from multiprocessing: ``add`` is new, and does not wait for the lock.
    """

    @property
    def value(self) -> Any:
        """The value now."""
        if semlock := self._cluster_lock():
            memory = self._obj._memory
            keys = [memory.key, semlock.name]
            data = read(memory.run, memory.run.command(READ_UNLESS_LOCKED, keys, 0, memory.size - 1))
            if data is not None:
                return self._obj.decode(memory.intact(data, memory.size))
        with self._lock:
            return self._obj.value

    @value.setter
    def value(self, value: Any) -> None:
        if semlock := self._cluster_lock():
            memory = self._obj._memory
            keys = [memory.key, semlock.name]
            if memory.run.eval(WRITE_UNLESS_LOCKED, keys, 0, self._obj.encode(value)):
                return
        with self._lock:
            self._obj.value = value

    def add(self, amount: float) -> Any:
        """Add in one step, without the lock and whoever holds it; the sum."""
        return self._obj.add(amount)

    def add_once(self, amount: int, number: object) -> bool:
        """Add in one step, unless it was done under this number before (``SharedValue.add_once``)."""
        return bool(self._obj.add_once(amount, number))


class SynchronizedArray(_Synchronized, sharedctypes.SynchronizedArray):  # type: ignore[type-arg]
    """An array with a lock."""


class SynchronizedStructure(_Synchronized, sharedctypes.SynchronizedBase):  # type: ignore[type-arg]
    """A structure with a lock, which each access to a field takes; the fields are properties of a class for each type."""


class SynchronizedString(_Synchronized, sharedctypes.SynchronizedString):
    """A string with a lock."""


def _synchronized(obj: Any, lock: Any) -> Any:
    """The wrapper with a lock that fits the object."""
    if isinstance(obj, SharedStructure):
        names = [name for name, _ in _fields(obj._native)]
        fields = {name: sharedctypes.make_property(name) for name in names}  # type: ignore[attr-defined]
        return type(f"Synchronized{obj._native.__name__}", (SynchronizedStructure,), fields)(obj, lock)
    kinds = {SharedValue: Synchronized, SharedString: SynchronizedString}
    return kinds.get(type(obj), SynchronizedArray)(obj, lock)


def Value(typecode_or_type: Any, *args: Any, lock: Any = True, ctx: Any) -> Any:
    """A value or structure with a lock, or without one if ``lock`` is False."""
    raw = RawValue(ctx.connect(), typecode_or_type, *args)
    return raw if lock is False else _synchronized(raw, _lock(lock, ctx))


def Array(typecode_or_type: Any, size_or_initializer: Any, *, lock: Any = True, ctx: Any) -> Any:
    """An array with a lock, or without one if ``lock`` is False."""
    raw = RawArray(ctx.connect(), typecode_or_type, size_or_initializer)
    return raw if lock is False else _synchronized(raw, _lock(lock, ctx))


def _lock(lock: Any, ctx: Any) -> Any:
    lock = ctx.RLock() if lock in (True, None) else lock
    if not hasattr(lock, "acquire"):
        raise AttributeError(f"{lock!r} has no method 'acquire'")
    return lock
