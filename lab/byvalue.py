"""Pickling for other processes: by name what they can find by it, by value what they cannot.

A pickle has the name of a function or class and not its code. Another process finds no lambda by it, no function that was
made in a call or under the main guard, nothing of a package's ``__main__.py``, and nothing of a *session*: a main module that
nobody can run again (a notebook, the interpreter's prompt, ``-c``, standard input). Those travel by value, as cloudpickle
takes them apart: the code, and what it refers to as it is at that moment. So what a later cell defines anew takes effect with
the next call. What an initializer assigns to globals, it assigns for the calls of its process.

A class that travelled has an identity, by which its instances are again of the very class when they come back. Where a
class was defined it is never written to: what comes back of it is older than what is there.

A generator, a lock, an open file travel in neither way, and an error says which function refers to one.
"""

from __future__ import annotations

import dataclasses
import functools
import pickle
import socket
import sys
import types
import typing
import weakref
from collections.abc import Callable, Iterator
from itertools import islice
from multiprocessing import process, reduction, spawn
from multiprocessing.connection import Connection
from types import FunctionType
from typing import Any

import cloudpickle.cloudpickle as parts

from lab import mainmodule
from lab.errors import ProgramTooLarge

MOST = 128 << 20
"""Bytes that a function which travels by value may refer to: they travel with each of its calls."""

_LOOKED_AT = 10_000
"""Items that are looked at to tell what something weighs."""

_MAIN = ("__main__", "__mp_main__")

_HEAP_TYPE = 1 << 9
"""What ``__flags__`` of a class has that a class statement made (or C code, on the heap)."""

_mine: weakref.WeakSet[type] = weakref.WeakSet()
"""Classes that were defined here, and have travelled."""

_arrived: weakref.WeakSet[Any] = weakref.WeakSet()
"""Functions and classes that came here by value."""

_begun_with: dict[int, tuple[dict[str, Any], dict[str, Any]]] = {}
"""The globals of the functions that this process began with, by their id, and what these held when they came."""

_PARTS: dict[type, Callable[[Any], Any]] = {
    kind: parts.Pickler.dispatch_table[kind]
    for kind in (
        *(classmethod, staticmethod, property, types.CodeType, types.CellType, types.GetSetDescriptorType),
        *(types.ModuleType, types.MappingProxyType, weakref.WeakSet, typing.TypeVar, vars(dataclasses)["_FIELD_BASE"]),
    )
}
"""What functions and classes are made of, and pickle does not take."""

by_name: Callable[[Any], None] | None = None
"""Is told of each function and class that travels by its name, if somebody asks for that."""

_OF_THIS_HOST = (socket.socket, Connection)
"""What the stdlib hands to another process as a descriptor or, when nobody is being started, by a server of its own."""


def _reduce(pickler: Any, obj: Any) -> Any:
    """What pickle's ``reducer_override`` asks for: how to take an object apart, NotImplemented for pickle's own way."""
    kind = type(obj)
    if kind not in _SPECIAL and not issubclass(kind, type):
        return NotImplemented  # asked for each instance of whatever class, so nothing else comes before this
    if not isinstance(pickler, Pickler) and not vars(pickler).get("inside"):
        if getattr(obj, "__module__", None) not in _MAIN:
            return NotImplemented  # the standard library's own pickler has a session's by value, and nothing else
        pickler.inside = kind is FunctionType or issubclass(kind, type)
    if kind is FunctionType:
        return _by_name(obj) if _is_found(obj) else _function_apart(pickler, obj)
    if (how := _PARTS.get(kind)) is not None:
        return how(obj)
    if kind in _OF_THIS_HOST and isinstance(pickler, Pickler):
        raise OSError(f"a {kind.__name__} of this host cannot be sent to another one: {obj!r}")
    if issubclass(kind, type):
        return _by_name(obj) if _is_found(obj) else _class_apart(pickler, obj)
    if kind is _Cached and not _is_found(obj):
        return _cached, (obj.cache_parameters(), obj.__wrapped__)
    return NotImplemented


_Cached: Any = type(functools.lru_cache(len))
_SPECIAL = frozenset({FunctionType, _Cached, *_PARTS, *_OF_THIS_HOST})


def _cached(parameters: dict[str, Any], wrapped: Any) -> Any:
    return functools.lru_cache(**parameters)(wrapped)


def _by_name(obj: Any) -> Any:
    if by_name is not None:
        by_name(obj)
    return NotImplemented


def _is_found(obj: Any) -> bool:
    """Whether another process of the program finds a function or class by its name."""
    name = obj.__qualname__
    if "<" in name:
        return False
    module = getattr(obj, "__module__", None) or pickle.whichmodule(obj, name)  # type: ignore[attr-defined]
    if module in _MAIN and (mainmodule.is_session() or mainmodule.keeps(name.partition(".")[0])):
        return False
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found is obj


def _function_apart(pickler: Any, function: FunctionType) -> Any:
    if getattr(pickler, "only_what_came", False) and function not in _arrived:
        return NotImplemented
    sent = pickler.__dict__.setdefault("sent", [])
    _check_weight(function, sent)
    sent.append(function)
    pickler.__dict__.setdefault("globals_ref", {})
    args = parts.Pickler._function_getnewargs(pickler, function)
    make = _function if isinstance(pickler, Pickler) else _function_here
    # its name first, for who looks at a call without loading it (lab.watching.functions)
    return make, ("".join(function.__qualname__), *args), parts._function_getstate(function), None, None, _set_function


def _class_apart(pickler: Any, kind: type) -> Any:
    if not kind.__flags__ & _HEAP_TYPE:  # such as the class of code objects, which builtins does not have
        return parts._class_reduce(kind) if kind in parts._BUILTIN_TYPE_NAMES else NotImplemented
    if getattr(pickler, "only_what_came", False) and kind not in _arrived:
        return NotImplemented
    reduced = parts._class_reduce(kind)
    if reduced is NotImplemented or len(reduced) < 3:
        return reduced
    if kind not in _arrived:
        _mine.add(kind)
    make, args, state, *_ = reduced
    load = _class if isinstance(pickler, Pickler) else _class_here
    return load, ("".join(kind.__qualname__), make, args), state, None, None, _set_class


def _function(_name: str, *args: Any) -> FunctionType:
    function: FunctionType = parts._make_function(*args)
    _arrived.add(function)
    return function


def _set_function(function: FunctionType, state: Any) -> None:
    came: dict[str, Any] = state[1]["__globals__"]
    if getattr(process.current_process(), "_inheriting", False):
        _begun_with.setdefault(id(function.__globals__), (function.__globals__, {}))[1].update(came)
    else:
        came.update(_prepared(function))
    parts._function_setstate(function, state)


def _prepared(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """What the functions that this process began with have assigned to globals: an initializer, for the calls after it."""
    name = function.__globals__.get("__name__")
    for now, before in _begun_with.values():
        if now.get("__name__") == name:
            yield from ((key, now[key]) for key in now if key[:2] != "__" and before.get(key, now) is not now[key])


def _class(_name: str, make: Callable[..., type], args: tuple[Any, ...]) -> type:
    # looked up before it is made: making one calls what its bases do when they are derived from
    known = parts._DYNAMIC_CLASS_TRACKER_BY_ID.get(args[-2])
    kind: type = make(*args) if known is None else known
    if kind not in _mine:
        _arrived.add(kind)
    return kind


def _set_class(kind: type, state: Any) -> None:
    if kind not in _mine:  # excluded: methods of the class that this process defined becoming copies of their own past
        parts._class_setstate(kind, state)


def _function_here(*args: Any) -> FunctionType:
    install()
    return _function(*args)


def _class_here(*args: Any) -> type:
    install()
    return _class(*args)


class Pickler(reduction.ForkingPickler):
    """The stdlib's pickler for other processes, for which what has no name has a value.

    Args:
        buffer: Where the pickle goes.
        protocol: As for pickle.
        outside: As ``buffer_callback`` for pickle: takes a buffer, and says whether it belongs into the pickle all the same.
    """

    only_what_came = False
    reducer_override = _reduce

    def __init__(
        self, buffer: Any, protocol: int | None = None, outside: Callable[[pickle.PickleBuffer], Any] | None = None
    ) -> None:
        super().__init__(buffer, protocol, True, outside)
        self.sent: list[FunctionType] = []
        self.globals_ref: dict[int, dict[str, Any]] = {}

    def dump(self, obj: Any) -> None:
        """Write the pickle of an object.

        Raises:
            TypeError, AttributeError, pickle.PicklingError: It does not pickle; of what a function refers to, it is said.
            ProgramTooLarge: A function refers to more than ``MOST`` bytes.
        """
        self.sent.clear()
        self.globals_ref.clear()
        try:
            super().dump(obj)
        except (TypeError, AttributeError, pickle.PicklingError, OSError, RuntimeError) as exc:
            found = _culprit(self.sent) if type(exc).__module__ in ("builtins", "_pickle") else None
            if found is None:
                raise
            function, name = found
            raise type(exc)(
                f"{exc} (the function {function.__qualname__!r} is sent by value, and refers to it as {name!r};"
                " make it in the function, or hand over what it is made of)"
            ) from exc


class ResultPickler(Pickler):
    """Pickles what a call has returned: as in multiprocessing, not a function or class that the call itself has made.

    One that came by value goes back so.
    """

    only_what_came = True


dumps, loads = Pickler.dumps, Pickler.loads


def _variables(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """What a function refers to by names that are not its own: of its closure, its defaults and its module."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            yield name, cell.cell_contents
        except ValueError:  # it has no value yet
            continue
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    defaults = function.__defaults__ or ()
    yield from zip(names[len(names) - len(defaults) :], defaults, strict=False)
    yield from (function.__kwdefaults__ or {}).items()
    for name in parts._extract_code_globals(function.__code__):
        if name in function.__globals__:
            yield name, function.__globals__[name]


def _culprit(functions: list[FunctionType]) -> tuple[FunctionType, str] | None:
    """The last function that was taken apart of which a variable does not pickle, and the variable."""
    for function in reversed(functions):
        for name, value in _variables(function):
            if isinstance(value, (FunctionType, type, types.ModuleType, Connection)) or value in functions:
                continue
            try:
                Pickler.dumps(value)
            except Exception:  # noqa: BLE001 - whatever it is, it is the one
                return function, name
    return None


def _check_weight(function: FunctionType, sent: list[FunctionType]) -> None:
    if function in sent:
        return
    weights = {name: _weight(value, 2) for name, value in _variables(function)}
    if sum(weights.values()) > MOST:
        name = max(weights, key=lambda name: weights[name])
        raise ProgramTooLarge(
            f"The function {function.__qualname__!r} is sent by value, with each of its calls, and refers to"
            f" {sum(weights.values()) / 1e6:.0f} MB, of which {name!r} has {weights[name] / 1e6:.0f};"
            f" {MOST >> 20} MB are the most.",
            "Hand large data over once, as Process(args=...) or Pool(initializer=..., initargs=...).",
        )


def _weight(value: Any, depth: int, most: int = _LOOKED_AT) -> int:
    """About the bytes that a value has: its own, and those of what is in it as far as it is looked at."""
    if isinstance(value, (FunctionType, type, types.ModuleType)):
        return 0
    try:
        size = max(sys.getsizeof(value, 0), int(getattr(value, "nbytes", 0)))
    except Exception:  # noqa: BLE001 - an object may answer with what it likes
        return 0
    if depth and type(value) in (list, tuple, set, frozenset, dict):
        items = list(islice(value.values() if type(value) is dict else value, most))
        looked_at = sum(_weight(item, depth - 1, most // max(1, len(items))) for item in items)
        size += looked_at * len(value) // max(1, len(items))
    return size


def install() -> None:
    """Let the standard library's own processes on this host have a session's functions and classes by value.

    It pickles by name, and a spawned child finds no name of a session: it fails, and a pool waits for ever. Whoever gets
    something by value installs the same, so that instances find their way back. Nothing else pickles in another way.
    """
    pickler: Any = reduction.ForkingPickler
    if pickler.__dict__.get("reducer_override") is _reduce:
        return
    pickler.reducer_override = _reduce
    stdlib: Any = spawn
    standard = stdlib.get_preparation_data

    def get_preparation_data(name: str) -> dict[str, Any]:
        data: dict[str, Any] = standard(name)
        if mainmodule.is_session():  # there is no such file: "<stdin>", or one that the session has gone beyond
            data.pop("init_main_from_path", None)
        return data

    stdlib.get_preparation_data = get_preparation_data
