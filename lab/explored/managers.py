"""Manager: lists, dicts and namespaces of which every method call is one operation, and whatever it returns a copy."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from lab.explored import pool, queues, sharedctypes, synchronize
from lab.explored.scheduler import active
from lab.explored.shared import Packed, Shared, short

READS = {
    *("__contains__", "__getitem__", "__len__", "__eq__", "__ne__", "__reversed__"),
    *("count", "index", "copy", "get", "items", "keys", "values"),
}
"""Methods that change nothing."""


class _Managed(Shared):
    """A proxy: a call goes to the object, its result comes back as a copy."""

    _object: Any

    def __init__(self, obj: Any) -> None:
        super().__init__()
        self._object = obj

    def state(self) -> Any:
        """Its contents."""
        return repr(self._object)

    def show(self) -> str:
        """Its contents, short."""
        return short(self._object, 20)

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        given = Packed((args, kwargs))

        def act() -> Packed:
            mine, named = given.open()
            result = getattr(self._object, method)(*mine, **named)
            return Packed(list(result) if method in ("keys", "values", "items", "__reversed__") else result)

        answer: Packed = self._do(method.strip("_"), act, writes=method not in READS, note=lambda got: got.show())
        return answer.open()

    def _copy(self) -> Any:
        """The object's contents as a copy, of one operation."""
        answer: Packed = self._do("read", lambda: Packed(self._object), writes=False, note=lambda got: got.show())
        return answer.open()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._object!r}>"

    def __str__(self) -> str:
        return repr(self._copy())


def _forwarding(method: str) -> Callable[..., Any]:
    def call(self: _Managed, *args: Any, **kwargs: Any) -> Any:
        return self._call(method, *args, **kwargs)

    call.__name__ = method
    return call


def _proxy(name: str, methods: str) -> Any:
    return type(name, (_Managed,), {"kind": name, **{method: _forwarding(method) for method in methods.split()}})


_List: Any = _proxy(
    "list",
    "__contains__ __delitem__ __getitem__ __len__ __setitem__ append count extend index insert pop remove reverse sort",
)
_Dict: Any = _proxy(
    "dict",
    "__contains__ __delitem__ __getitem__ __len__ __setitem__ clear copy get items keys pop popitem setdefault update values",
)


class ListProxy(_List):  # type: ignore[misc]
    """A managed list."""

    def __iter__(self) -> Any:
        return iter(self._copy())

    def __iadd__(self, other: Iterable[Any]) -> ListProxy:
        self.extend(list(other))
        return self


class DictProxy(_Dict):  # type: ignore[misc]
    """A managed dict."""

    def __iter__(self) -> Any:
        return iter(self.keys())


class NamespaceProxy(Shared):
    """A managed namespace: reading an attribute is an operation, and so is setting one."""

    kind = "Namespace"

    def __init__(self, **names: Any) -> None:
        super().__init__()
        vars(self)["_names"] = {name: Packed(value) for name, value in names.items()}

    def state(self) -> Any:
        """Its attributes."""
        return tuple((name, value.state()) for name, value in self._names.items())

    def show(self) -> str:
        """Its attributes, short."""
        return short({name: value.open() for name, value in self._names.items()}, 20)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)

        def act() -> Packed:
            try:
                found: Packed = vars(self)["_names"][name]
            except KeyError:
                raise AttributeError(f"'Namespace' object has no attribute {name!r}") from None
            return found

        return self._do("read", act, writes=False, note=lambda got: got.show()).open()

    def __setattr__(self, name: str, value: Any) -> None:
        if "_names" not in vars(self) or name in ("clock", "key", "label"):
            object.__setattr__(self, name, value)
            return
        packed = Packed(value)
        self._do("write", lambda: vars(self)["_names"].__setitem__(name, packed), note=lambda _: packed.show())


def _sent(make: Callable[..., Any]) -> Any:
    """What makes such an object that may be sent to any process, as a proxy may."""

    def made(*args: Any, **kwargs: Any) -> Any:
        one = make(*args, **kwargs)
        one.inherited = ""
        return one

    return staticmethod(made)


class Manager:
    """Makes managed objects; there is no process behind them that could end."""

    def __init__(self) -> None:
        active().unforced = "a Manager"

    Namespace, Pool = NamespaceProxy, pool.Pool
    Queue, JoinableQueue = _sent(queues.Queue), _sent(queues.JoinableQueue)
    Lock, RLock, Condition = _sent(synchronize.Lock), _sent(synchronize.RLock), _sent(synchronize.Condition)
    Semaphore, BoundedSemaphore = _sent(synchronize.Semaphore), _sent(synchronize.BoundedSemaphore)
    Event, Barrier = _sent(synchronize.Event), _sent(synchronize.Barrier)

    def list(self, *args: Any) -> ListProxy:
        """A managed list."""
        return ListProxy(list(*args))

    def dict(self, *args: Any, **kwargs: Any) -> DictProxy:
        """A managed dict."""
        return DictProxy(dict(*args, **kwargs))

    def Value(self, typecode: str, value: Any, lock: Any = True) -> Any:
        """A value, without a lock as a manager's has none."""
        return _sent(sharedctypes.make_value)(typecode, value, lock=False)

    def Array(self, typecode: str, sequence: Any, lock: Any = True) -> Any:
        """An array, without a lock as a manager's has none."""
        return _sent(sharedctypes.make_array)(typecode, sequence, lock=False)

    def start(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing."""

    def shutdown(self) -> None:
        """Do nothing."""

    def __enter__(self) -> Manager:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.shutdown()
