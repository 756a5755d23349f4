"""Value and Array: numbers that every host sees.

The memory is a Redis string. Numbers lie in it in network byte order, so that hosts of either endianness agree and
Redis' own ``BITFIELD ... INCRBY`` can add to them, with the width and the overflow of the C type. The classes that add a
lock are the stdlib's (``multiprocessing.sharedctypes``).

A write is sent without waiting for its reply, in order with everything else that this process sends (``Store.post``).

On Redis: string ``memory:ID``; GETRANGE to read, SETRANGE to write, BITFIELD to add.

Differs from multiprocessing: simple ctypes codes only, no structures. ``add`` is beside the stdlib's names. A write by a
process that was taken for dead is refused (LeaseLost).
"""

from __future__ import annotations

import ctypes
from multiprocessing import context, sharedctypes
from typing import Any

from lab.cluster import run as runs
from lab.cluster.run import Run
from lab.cluster.script import Script
from lab.cluster.synchronize import SemLock
from lab.errors import BrokerUnreachable

CREATE = Script("redis.call('SETRANGE', KEYS[3], 0, ARGV[3]) create(KEYS[3])")

WRITE = Script("""
local refused = fenced()
if refused then return refused end
for i = 3, #ARGV, 2 do redis.call('SETRANGE', KEYS[3], ARGV[i], ARGV[i + 1]) end
return 1
""")

_UNLESS_LOCKED = "if redis.call('HGET', KEYS[4], 'value') == '0' then return false end\n"

READ_UNLESS_LOCKED = Script(_UNLESS_LOCKED + "return redis.call('GETRANGE', KEYS[3], ARGV[3], ARGV[4])", numbered=False)

WRITE_UNLESS_LOCKED = Script(
    """
local refused = fenced()
if refused then return refused end
"""
    + _UNLESS_LOCKED
    + """
redis.call('SETRANGE', KEYS[3], ARGV[3], ARGV[4])
return 1
"""
)

ADD = Script("""
local refused = fenced()
if refused then return refused end
return redis.call('BITFIELD', KEYS[3], 'INCRBY', ARGV[3], 0, ARGV[4])[1]
""")

ADD_ONCE = Script("""
local refused = fenced()
if refused then return refused end
local ids = KEYS[3] .. ':ids'
if redis.call('SADD', ids, ARGV[5]) == 0 then return 0 end
if redis.call('SCARD', ids) == 1 then create(ids) end
redis.call('BITFIELD', KEYS[3], 'INCRBY', ARGV[3], 0, ARGV[4])
return 1
""")

ADD_FLOAT = Script("""
local refused = fenced()
if refused then return refused end
local sum = struct.unpack(ARGV[3], redis.call('GET', KEYS[3])) + tonumber(ARGV[4])
redis.call('SETRANGE', KEYS[3], 0, struct.pack(ARGV[3], sum))
return struct.pack('>d', sum)
""")


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
        return self.intact(self.run.store.call("GETRANGE", self.key, offset, offset + size - 1), size)

    def write(self, *offsets_and_bytes: Any) -> None:
        """Write pieces, all at once: offset, bytes, offset, bytes ..."""
        self.run.post(WRITE, [self.key], *offsets_and_bytes)

    def intact(self, data: bytes, size: int) -> bytes:
        """The data, if Redis still had it."""
        if len(data) != size:
            raise BrokerUnreachable(
                f"Redis has lost {self.key}: {len(data)} of {size} bytes are left.",
                "It was restarted without its append-only file, or flushed, or this program was silent for too long.",
            )
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
    """What a raw value and a raw array share: the C type, and the memory."""

    def __init__(self, run: Run, native: Any, length: int, data: bytes) -> None:
        self._native = native
        self._setup()
        self._memory = Memory(run, run.new_name("memory"), self._width * length)
        run.post(CREATE, [self._memory.key], data)

    def _setup(self) -> None:
        # char and wide char have no byte order of their own
        self._ctype = getattr(self._native, "__ctype_be__", self._native)
        self._width = ctypes.sizeof(self._native)

    def __getstate__(self) -> tuple[Any, Memory]:
        context.assert_spawning(self)
        return (self._native, self._memory)

    def __setstate__(self, state: tuple[Any, Memory]) -> None:
        self._native, self._memory = state
        self._setup()


class SharedValue(_Raw):
    """One number or character; the counterpart of a ctypes object in shared memory.

    On Redis: string ``memory:ID``; GETRANGE, SETRANGE, BITFIELD.

    Differs from multiprocessing: it is no ctypes object; ``add`` is new; a late write raises LeaseLost.
    """

    @property
    def value(self) -> Any:
        """The value now: one GETRANGE."""
        return self.decode(self._memory.read(0, self._width))

    @value.setter
    def value(self, value: Any) -> None:
        self._memory.write(0, self.encode(value))

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
        run_reply = run.eval(ADD, [key], f"i{self._width * 8}", amount)
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
        return bool(run.eval(ADD_ONCE, [key], f"i{self._width * 8}", amount, str(number)))

    def __repr__(self) -> str:
        return f"{self._native.__name__}({self.value!r})"


class SharedArray(_Raw):
    """An array of numbers or characters; the counterpart of a ctypes array in shared memory.

    On Redis: string ``memory:ID``; a slice is one GETRANGE, or one script of SETRANGEs.

    Differs from multiprocessing: it is no ctypes object; a late write raises LeaseLost.
    """

    def __len__(self) -> int:
        return self._memory.size // self._width

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            numbers = range(*index.indices(len(self)))
            if not numbers:
                return self._local(b"")[:]
            low, high = min(numbers[0], numbers[-1]), max(numbers[0], numbers[-1])
            items = self._local(self._memory.read(low * self._width, (high - low + 1) * self._width))
            return items[:: numbers.step] if len(numbers) > 1 else items[:]
        return self._local(self._memory.read(self._position(index) * self._width, self._width))[0]

    def __setitem__(self, index: int | slice, value: Any) -> None:
        if not isinstance(index, slice):
            self._memory.write(self._position(index) * self._width, bytes(self._ctype(value)))
            return
        numbers, values = range(*index.indices(len(self))), list(value)
        if len(numbers) != len(values):
            raise ValueError("Can only assign sequence of same size")
        pieces = [(n * self._width, bytes(self._ctype(v))) for n, v in zip(numbers, values, strict=True)]
        if pieces and numbers.step == 1:
            pieces = [(pieces[0][0], b"".join(data for _, data in pieces))]
        if pieces:
            self._memory.write(*[part for piece in pieces for part in piece])

    def __iter__(self) -> Any:
        return iter(self[:])

    def _position(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError("invalid index")
        return index % len(self)

    def _local(self, data: bytes) -> Any:
        return (self._ctype * (len(data) // self._width)).from_buffer_copy(data)

    def __repr__(self) -> str:
        return f"<{self._native.__name__} array of {len(self)} in Redis>"


class SharedString(SharedArray):
    """An array of char, with a C string's ``value`` and all of its bytes as ``raw``."""

    @property
    def raw(self) -> bytes:
        """All bytes."""
        return self._memory.read(0, self._memory.size)

    @raw.setter
    def raw(self, data: bytes) -> None:
        if len(data) > self._memory.size:
            raise ValueError("byte string too long")
        self._memory.write(0, bytes(data))

    @property
    def value(self) -> bytes:
        """The bytes before the first null."""
        return self.raw.partition(b"\0")[0]

    @value.setter
    def value(self, data: bytes) -> None:
        if len(data) > self._memory.size:
            raise ValueError("byte string too long")
        self._memory.write(0, bytes(data) + b"\0" if len(data) < self._memory.size else bytes(data))


def _native_type(code: Any) -> Any:
    native = sharedctypes.typecode_to_type.get(code, code)  # type: ignore[attr-defined]
    if not (isinstance(native, type) and issubclass(native, ctypes._SimpleCData)):
        raise TypeError(f"{code!r} is neither a simple ctypes type nor one of the codes {', '.join(_codes())}")
    return native


def _codes() -> list[str]:
    return sorted(sharedctypes.typecode_to_type)  # type: ignore[attr-defined]


def RawValue(run: Run, typecode_or_type: Any, *args: Any) -> SharedValue:
    """A value without a lock."""
    native = _native_type(typecode_or_type)
    return SharedValue(run, native, 1, bytes(getattr(native, "__ctype_be__", native)(*args)))


def RawArray(run: Run, typecode_or_type: Any, size_or_initializer: Any) -> SharedArray:
    """An array without a lock, zeroed if only its size is given."""
    native = _native_type(typecode_or_type)
    kind = SharedString if native is ctypes.c_char else SharedArray
    ctype = getattr(native, "__ctype_be__", native)
    if isinstance(size_or_initializer, int):
        if size_or_initializer < 0:
            raise ValueError("Array length must be >= 0, not negative")
        data = bytes(ctypes.sizeof(native) * size_or_initializer)
    else:
        items = list(size_or_initializer)
        data = bytes((ctype * len(items))(*items))
    return kind(run, native, len(data) // ctypes.sizeof(native), data)


class _Synchronized:
    """Pickles the wrapper around our objects; goes before the stdlib's class in the bases."""

    _obj: Any
    _lock: Any

    def __reduce__(self) -> tuple[Any, ...]:
        context.assert_spawning(self)
        return type(self), (self._obj, self._lock)

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
            data = memory.run.eval(READ_UNLESS_LOCKED, keys, 0, memory.size - 1)
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


class SynchronizedString(_Synchronized, sharedctypes.SynchronizedString):
    """A string with a lock."""


def Value(typecode_or_type: Any, *args: Any, lock: Any = True, ctx: Any) -> Any:
    """A value with a lock, or without one if ``lock`` is False."""
    raw = RawValue(ctx.connect(), typecode_or_type, *args)
    return raw if lock is False else Synchronized(raw, _lock(lock, ctx))


def Array(typecode_or_type: Any, size_or_initializer: Any, *, lock: Any = True, ctx: Any) -> Any:
    """An array with a lock, or without one if ``lock`` is False."""
    raw = RawArray(ctx.connect(), typecode_or_type, size_or_initializer)
    if lock is False:
        return raw
    wrapper = SynchronizedString if isinstance(raw, SharedString) else SynchronizedArray
    return wrapper(raw, _lock(lock, ctx))


def _lock(lock: Any, ctx: Any) -> Any:
    lock = ctx.RLock() if lock in (True, None) else lock
    if not hasattr(lock, "acquire"):
        raise AttributeError(f"{lock!r} has no method 'acquire'")
    return lock
