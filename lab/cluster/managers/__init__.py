"""Manager: the stdlib's managers and proxies, without a server.

A manager of multiprocessing is a process that holds objects, and proxies that send it calls. Here Redis holds them
(``objects``), and a call runs in the process that makes it. The registry, the proxy types with their methods, ``str`` and
``repr`` are ``multiprocessing.managers``' own; replaced is what talks to the server.

On Redis: see ``objects`` and ``managed``.

Differs from multiprocessing:

* There is no server process: nothing to place on a host, to connect to, or to lose. ``get_server`` and ``connect`` raise,
  and an initializer is not run.
* A call on a list, dict, Namespace, Value, Array or an object of a registered class is atomic: several processes may append
  to a list, or call a method that changes much, and nothing is lost. (``d[k] += 1`` is still two calls.) An object of a
  registered class runs one method at a time, so a method that waits holds up the others.
* An object that does not pickle, and a Pool, stays in the process that made it and ends with it (``residents``).
* A dict may be iterated in any process. What a method returns as a proxy (``method_to_typeid``) is a copy.
"""

from __future__ import annotations

import queue
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from functools import cache
from multiprocessing import ProcessError, managers, pool
from multiprocessing.managers import RemoteError, State, Token  # type: ignore[attr-defined]
from traceback import format_exc
from typing import Any

from lab.cluster import current
from lab.cluster.managers import managed, objects, residents

_AutoProxy: Any = managers.AutoProxy  # type: ignore[attr-defined]

LIVE: dict[Any, Callable[..., Any]] = {
    threading.Lock: managed.Lock,
    threading.RLock: managed.RLock,
    threading.Semaphore: managed.Semaphore,
    threading.BoundedSemaphore: managed.BoundedSemaphore,
    threading.Condition: managed.Condition,
    threading.Event: lambda *args, ctx: ctx.Event(*args),
    threading.Barrier: lambda *args, ctx, **kwds: ctx.Barrier(*args, **kwds),
    queue.Queue: managed.Queue,
}
"""What stands for a class of which a server process would have made an object."""


class _OverRedis:
    """The stdlib's proxy with the connection to a server replaced; goes first in the bases.

    Args:
        shared: The referent.
        token: Type, manager and key of the referent.
        entry: As in a manager's registry: callable, exposed names, type of what a method returns, type of the proxy.
        registry: The entries of the types that its methods return.
    """

    _exposed_: tuple[str, ...]

    def __init__(self, shared: objects.Shared, token: Any, entry: tuple[Any, ...], registry: dict[str, Any]) -> None:
        self._shared, self._token, self._entry, self._registry = shared, token, entry, registry
        self._id = token.id

    def _callmethod(self, methodname: str, args: Any = (), kwds: Any = {}) -> Any:  # noqa: B006 - the stdlib's signature
        """Call a method of the referent; a copy of its result, or a proxy of it if it was registered to be one."""
        if self._token.address in _shut_down:
            raise self._shared.gone()
        _, exposed, results, _ = self._entry
        if methodname not in exposed and methodname not in ("__str__", "__repr__", objects.GETVALUE):
            raise RemoteError(
                f"AttributeError: method {methodname!r} of {self._token.typeid!r} object is not in {exposed=}\n"
            )
        if isinstance(self._shared, residents.Resident) and self._shared.obj is None:
            return self._shared.ask(self, methodname, args, kwds)
        if results and methodname in results:
            result = self._shared.call(methodname, args, kwds, copy=False)
            return _create(self._token.address, self._registry, results[methodname], (result,), {})
        return self._shared.call(methodname, args, kwds)

    def __reduce__(self) -> Any:
        self._shared.travels()
        token = self._token
        return _rebuild, (self._shared.kind, token.typeid, token.address, token.id, self._entry, self._registry)


def _rebuild(kind: str, typeid: str, address: str, key: str, entry: tuple[Any, ...], registry: dict[str, Any]) -> Any:
    return _proxy(objects.find(kind, key), Token(typeid, address, key), entry, registry)


def _proxy(shared: objects.Shared, token: Any, entry: tuple[Any, ...], registry: dict[str, Any]) -> Any:
    return _proxy_class(entry[3], token.typeid, entry[1])(shared, token, entry, registry)


@cache
def _proxy_class(proxytype: Any, typeid: str, exposed: tuple[str, ...]) -> Any:
    if proxytype is _AutoProxy:
        proxytype = managers.MakeProxyType(f"AutoProxy[{typeid}]", exposed)  # type: ignore[attr-defined]
    return type(proxytype.__name__, (_OverRedis, proxytype), {"__module__": proxytype.__module__})


def _create(address: str, registry: dict[str, Any], typeid: str, args: Any, kwds: Any) -> Any:
    """Make an object and a proxy of it, as ``multiprocessing.managers.Server.create`` does."""
    ctx, (factory, exposed, results, proxytype) = current.context(), registry[typeid]
    live = factory in LIVE
    try:
        if factory is None:
            (obj,) = args
        elif live:
            obj = LIVE[factory](*args, **kwds, ctx=ctx)
        elif factory is pool.Pool:
            obj = ctx.Pool(*args, **kwds)
        else:
            obj = factory(*args, **kwds)
        exposed = tuple(exposed or managers.public_methods(obj))  # type: ignore[attr-defined]
    except Exception:  # noqa: BLE001 - what a server would send back
        raise RemoteError(format_exc()) from None
    shared, _ = _singletons.get((address, id(obj)), (None, None))
    if shared is None:
        # More than the name here and the argument: who made it has it still, and may return it again.
        kept = factory is not None and not live and sys.getrefcount(obj) > 2
        shared = objects.create(ctx.connect(), address, obj, live)
        if kept:
            _singletons[address, id(obj)] = shared, obj
    entry = (None, (*exposed, *(results or ())), results, proxytype)
    return _proxy(shared, Token(typeid, address, shared.key), entry, _reachable(registry, results))


def _reachable(registry: dict[str, Any], results: dict[str, str] | None) -> dict[str, Any]:
    """The entries that the objects which the methods return will need, and those that theirs return."""
    found: dict[str, Any] = {}
    todo = list((results or {}).values())
    while todo:
        typeid = todo.pop()
        if typeid not in found:
            found[typeid] = registry[typeid]
            todo += (registry[typeid][2] or {}).values()
    return found


class DictProxy(managers.DictProxy):  # type: ignore[type-arg]
    """The stdlib's, but iterating needs no object for the iterator, so it works in every process.

    Differs from multiprocessing: the keys are those of the moment in which the iteration begins; each step asks whether the
    size is still the same.
    """

    _method_to_typeid_ = None

    def __iter__(self) -> Iterator[Any]:
        callmethod: Any = self._callmethod
        return self._keys_in_turn(callmethod("keys"))

    def _keys_in_turn(self, keys: list[Any]) -> Iterator[Any]:
        for n in range(len(keys) + 1):
            if len(self) != len(keys):
                raise RuntimeError("dictionary changed size during iteration")
            if n < len(keys):
                yield keys[n]


_shut_down: set[str] = set()
_singletons: dict[tuple[str, int], tuple[objects.Shared, Any]] = {}
"""Objects that a factory may return again, by manager and id; they are kept so that the id is not another's."""


class BaseManager(managers.BaseManager):
    """A manager without a server, to register one's own classes with.

    On Redis: set ``manager:ID``.

    Differs from multiprocessing: see above. ``address`` is the manager's key, given by ``start``; ``authkey``,
    ``serializer`` and ``shutdown_timeout`` are accepted and of no use, as there is no connection to protect or to close:
    what is in Redis is sealed with the fleet's key.

    Args:
        ctx: The cluster's context.
    """

    def __init__(
        self,
        address: Any = None,
        authkey: bytes | None = None,
        serializer: str = "pickle",
        ctx: Any = None,
        *,
        shutdown_timeout: float = 1.0,
    ) -> None:
        self._ctx = ctx or current.context()
        self._address: Any = None
        self._state = State()
        self._state.value = State.INITIAL
        self._pools: weakref.WeakSet[Any] = weakref.WeakSet()

    def start(self, initializer: Callable[..., object] | None = None, initargs: Any = ()) -> None:
        """Begin.

        Raises:
            ProcessError: It was started before.
        """
        if self._state.value != State.INITIAL:
            started = self._state.value == State.STARTED
            raise ProcessError("Already started server" if started else "Manager has shut down")
        if initializer is not None:
            if not callable(initializer):
                raise TypeError("initializer must be a callable")
            warnings.warn("a manager of the cluster has no server process: its initializer is not run", stacklevel=2)
        run = self._ctx.connect()
        self._address = run.new_name("manager")
        run.eval(objects.OPEN, [self._address])
        self._state.value = State.STARTED

    def shutdown(self) -> None:  # type: ignore[override]
        """Delete the manager's objects and end its pools."""
        if self._state.value != State.STARTED:
            return
        self._state.value = State.SHUTDOWN
        _shut_down.add(self._address)
        for unfinished in list(self._pools):
            unfinished.terminate()
            unfinished.join()
        for address, number in list(_singletons):
            if address == self._address:
                del _singletons[address, number]
        run = self._ctx.connect()
        residents.forget({name.decode() for name in run.store.call("SMEMBERS", self._address)})
        while run.eval(objects.SHUT_DOWN, [self._address]):
            pass

    def join(self, timeout: float | None = None) -> None:
        """Do nothing: there is no process to wait for."""

    def get_server(self) -> Any:
        """Refused: there is no server."""
        raise NotImplementedError("a manager of the cluster has no server: its objects are in Redis")

    def connect(self) -> None:
        """Refused: there is no server."""
        raise NotImplementedError(
            "a manager of the cluster has no server to connect to: hand its proxies to the processes that need them"
        )

    @classmethod
    def register(
        cls,
        typeid: str,
        callable: Callable[..., Any] | None = None,
        proxytype: Any = None,
        exposed: Any = None,
        method_to_typeid: Any = None,
        create_method: bool = True,
    ) -> None:
        """Give the manager's class a method that makes objects of a type.

        Args:
            typeid: Name of the method.
            callable: Makes the object. One that pickles is kept in Redis; another stays in the process that made it. What
                it returned before, it stands for again. Classes of ``threading`` and ``queue`` stand for the cluster's.
            proxytype: Class of the proxies, derived from ``multiprocessing.managers.BaseProxy``.
            exposed: Names of the methods that may be called.
            method_to_typeid: For methods that return proxies, of what type.
            create_method: Whether to make the method, or only to know the type.
        """
        if proxytype not in (None, _AutoProxy) and not isinstance(proxytype, type):
            raise TypeError(f"proxytype must be a class, not {proxytype!r}")
        super().register(typeid, callable, proxytype, exposed, method_to_typeid, create_method=False)
        if create_method:

            def create(self: BaseManager, /, *args: Any, **kwds: Any) -> Any:
                return self._new_object(typeid, args, kwds)

            create.__name__ = typeid
            setattr(cls, typeid, create)

    def _new_object(self, typeid: str, args: Any, kwds: Any) -> Any:
        assert self._state.value == State.STARTED, "the manager is not started, or was shut down"
        registry: dict[str, Any] = self._registry  # type: ignore[attr-defined]
        proxy = _create(self._address, registry, typeid, args, kwds)
        if registry[typeid][0] is pool.Pool:
            self._pools.add(proxy._shared.obj)
        return proxy

    def _objects(self) -> list[tuple[bytes, bytes, int]]:
        found: list[tuple[bytes, bytes, int]] = self._ctx.connect().eval(objects.LIST, [self._address])
        return sorted(map(tuple, found))  # type: ignore[arg-type]

    def _number_of_objects(self) -> int:
        return len(self._objects())

    def _debug_info(self) -> str:
        """Key, number of references and type of each object, in the lines of ``multiprocessing.managers.Server``."""
        lines = (f"  {key.decode()}:       refcount={refs}\n    {kind.decode()}" for key, kind, refs in self._objects())
        return "\n".join(lines)

    def __reduce__(self) -> Any:
        raise TypeError("a manager does not pickle; its proxies do")


class SyncManager(BaseManager, managers.SyncManager):
    """The manager that ``Manager()`` starts: dict, list, Namespace, Value, Array, Pool, and what is in ``LIVE``.

    On Redis, and differs from multiprocessing: see above.
    """


def _register_what_the_stdlib_has() -> None:
    for typeid, (factory, *_, proxytype) in managers.SyncManager._registry.items():  # type: ignore[attr-defined]
        proxytype = DictProxy if proxytype is managers.DictProxy else proxytype
        SyncManager.register(typeid, factory, proxytype, create_method=hasattr(managers.SyncManager, typeid))


_register_what_the_stdlib_has()
