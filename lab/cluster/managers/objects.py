"""The objects behind a manager's proxies: three kinds, each reachable by its key from any process of the run.

* ``Stored``: a list, a dict, anything that pickles. Its state is one sealed pickle with a version. A call runs the real
  method, in the process that calls, on the state as it was last seen, and commits state and answer by compare-and-set: a
  script replaces the state only if its version is still the one that the method saw; otherwise the method runs again on
  what is there now. So each call is atomic, no update is lost, and every method is the type's own.
* ``Live``: locks, queues, events: what blocks. The primitive is shared in Redis already (``synchronize``, ``managed``);
  kept here is only what another process needs to use the same one.
* ``Resident``: what neither pickles nor lives in Redis (a generator, a pool). It stays in the process that made it, which
  answers for it (``residents``).

An object lives as long as somebody refers to it: a process through its proxies, or another object that contains one. A
proxy that was pickled in any other way (for a queue, or as an argument) may be loaded anywhere, at any time, so from then
on its object lives until the manager is shut down. So does one to which only a process referred that has ended: nobody is
there to say that it let go.

On Redis: hash ``object:ID`` (manager, type, version, state, contains: the objects in it, keys: the primitive's), set
``object:ID:refs`` (who refers to it), set ``manager:ID`` (its objects).

Cost: a call on a stored object is one round trip while nobody else changes it, two after somebody did. A change sends the
whole pickle, each process that looks at it afterwards receives it, and keeps a copy for as long as it has a proxy. So it
grows with the size: for megabytes, or for a counter that all contend for, use ``ctx.Value``, ``ctx.Array`` or a Queue.
"""

from __future__ import annotations

import array
import io
import itertools
import os
import threading
import time
import weakref
from collections.abc import Iterator
from multiprocessing import context, managers
from multiprocessing.managers import RemoteError
from traceback import format_exc
from typing import Any, ClassVar

from lab import byvalue
from lab.cluster.synchronize import SEMAPHORE, SemLock
from lab.errors import ObjectGone, WrongKey
from lab.store import run as runs
from lab.store.run import Run
from lab.store.script import Script

GETVALUE = "#GETVALUE"
TRIES = 3
"""How often a call runs ahead of others and is overtaken before it asks them to wait."""

CHECK = 2.0
"""Seconds after which one who waits asks whether what it waits for is still there."""

WAITED = 0.01
"""Seconds after which a call has waited, so that another round trip adds little to it."""

TRAVELS = "*"
"""Who refers to an object whose proxy was pickled: whoever will load it."""

_REFERENCES = """
local function hold(id, holder)
  if redis.call('EXISTS', id) == 0 then return end
  redis.call('SADD', id .. ':refs', holder)
  create(id .. ':refs')
end
local function forget(key)
  redis.call('UNLINK', key)
  redis.call('SREM', registry, key)
  redis.call('ZREM', base .. 'locks', key)
end
local function delete(id)
  for key in string.gmatch(redis.call('HGET', id, 'keys') or '', '%S+') do forget(key) end
  forget(id)
  forget(id .. ':refs')
end
local function wanted(id)
  for _, holder in ipairs(redis.call('SMEMBERS', id .. ':refs')) do
    if holder == '*' or string.sub(holder, 1, #base) == base or alive(string.match(holder, '^[^/]+')) then return true end
  end
end
local function release(id, holder)  -- and whatever only it referred to
  local todo = {{id, holder}}
  while #todo > 0 do
    local id, holder = unpack(table.remove(todo))
    redis.call('SREM', id .. ':refs', holder)
    if redis.call('EXISTS', id) == 1 and not wanted(id) then
      for inner in string.gmatch(redis.call('HGET', id, 'contains') or '', '%S+') do todo[#todo + 1] = {inner, id} end
      redis.call('SREM', redis.call('HGET', id, 'manager'), id)
      delete(id)
    end
  end
end
"""

OPEN = Script(
    "redis.call('SADD', KEYS[3], '') create(KEYS[3]) return 1  -- the empty name says that the manager is not shut down"
)

SHUT_DOWN = Script(
    _REFERENCES
    + """
redis.call('SREM', KEYS[3], '')  -- from now on nothing is made for it
local ids = redis.call('SPOP', KEYS[3], 20)
for _, id in ipairs(ids) do
  for key in string.gmatch(redis.call('HGET', id, 'keys') or '', '%S+') do
    if string.find(key, ':waiters$') or string.sub(key, 1, #base + 10) == base .. 'condition:' then
      local waiter = next_waiter(key)      -- they wait for what is no more: see Live.call
      while waiter do push(base .. 'wake:' .. waiter, 1) waiter = next_waiter(key) end
    end
  end
  delete(id)
end
if #ids == 20 then return 1 end
forget(KEYS[3])
return 0
""",
    numbered=False,  # the second time, it deletes the next slice
)
"""Delete a slice of a manager's objects; whether more may be left."""

CREATE = Script(
    _REFERENCES
    + """
local id, manager = KEYS[3], KEYS[4]
if redis.call('SISMEMBER', manager, '') == 0 then return 0 end
redis.call('HSET', id, 'manager', manager, 'version', 1, 'state', ARGV[4], 'contains', ARGV[5], 'keys', ARGV[6],
  'type', ARGV[7])
create(id)
redis.call('SADD', manager, id)
hold(id, ARGV[3])
for inner in string.gmatch(ARGV[5], '%S+') do hold(inner, id) end
return 1
""",
    fenced=True,
    grows=True,
)

LIST = Script(
    """
local found = {}
for _, id in ipairs(redis.call('SMEMBERS', KEYS[3])) do
  if id ~= '' then
    found[#found + 1] = {id, redis.call('HGET', id, 'type') or '', redis.call('SCARD', id .. ':refs')}
  end
end
return found
""",
    numbered=False,
)

HOLD = Script(_REFERENCES + "hold(KEYS[3], ARGV[3]) return 1")

DROP = Script(_REFERENCES + "release(KEYS[3], ARGV[3]) return 1")

_COMMIT = (
    _REFERENCES
    + """
local id, state = KEYS[3], ARGV[4]
local version = redis.call('HGET', id, 'version')
if not version then return false end
if version ~= ARGV[3] then return {tonumber(version), redis.call('HGET', id, 'state'), redis.call('HGET', id, 'contains')} end
if state == '' then return 1 end
if ARGV[6] ~= '1' and redis.call('HGET', id .. ':turn', 'value') == '0' then return 0 end
local before, now_in = redis.call('HGET', id, 'contains'), {}
redis.call('HSET', id, 'version', version + 1, 'state', state, 'contains', ARGV[5])
if before ~= ARGV[5] then
  for inner in string.gmatch(ARGV[5], '%S+') do now_in[inner] = true hold(inner, id) end
  for inner in string.gmatch(before, '%S+') do if not now_in[inner] then release(inner, id) end end
end
return 1
"""
)
COMMIT = Script(_COMMIT, fenced=True)
COMMIT_MORE = Script(_COMMIT, fenced=True, grows=True)
"""The same for a state that is larger than the one before: refused while Redis has no memory left."""

FETCH = Script("return redis.call('HGET', KEYS[3], 'state')", numbered=False)

loads = byvalue.loads
_holders = itertools.count()
_packing = threading.local()


def pack(obj: Any, kind: type[byvalue.Pickler] = byvalue.Pickler) -> tuple[bytes, list[str]]:
    """A pickle that stays among managed objects, and the keys of the objects whose proxies are in it."""
    outer = getattr(_packing, "found", None)
    found: dict[str, None] = {}
    _packing.found = found
    try:
        buffer = io.BytesIO()
        kind(buffer, 5).dump(obj)
    finally:
        _packing.found = outer
    return buffer.getvalue(), list(found)


class Shared:
    """One managed object, as this process knows it; its proxies here have it in common.

    Args:
        key: Its key in Redis.
        holder: This process's name among those who refer to it, used once.
        obj: The object itself, if this process has it.
    """

    kind: ClassVar[str]

    def __init__(self, run: Run, key: str, holder: str, obj: Any = None) -> None:
        self.run, self.key, self.obj = run, key, obj
        weakref.finalize(self, _drop, run, key, holder, os.getpid()).atexit = False

    def call(self, method: str, args: Any, kwds: Any, copy: bool = True) -> Any:
        """Call a method of the object.

        Args:
            method: Its name, or ``GETVALUE`` for the object itself.
            args: Positional arguments.
            kwds: Keyword arguments.
            copy: Whether a result that does not pickle is an error.
        """
        raise NotImplementedError

    def travels(self) -> None:
        """Note that a proxy is being pickled: into a managed object, or into something whose ways nobody knows."""
        found = getattr(_packing, "found", None)
        if found is not None:
            found[self.key] = None
        else:
            self.run.post(HOLD, [self.key], TRAVELS)

    def exists(self) -> bool:
        """Whether Redis has it."""
        return bool(self.run.store.call("EXISTS", self.key))

    def gone(self) -> ObjectGone:
        """The error for an object that Redis does not have."""
        return ObjectGone(
            f"The managed object {self.key} is gone.",
            "Its manager was shut down, or its run has ended. Keep the manager for as long as its objects are used.",
        )


def _drop(run: Run, key: str, holder: str, pid: int) -> None:
    # May run inside any other command of this thread. A forked copy is not among the holders.
    if pid == os.getpid():
        run.store.defer(*run.command(DROP, [key], holder))


class Stored(Shared):
    """An object whose state is a pickle in Redis."""

    kind = "stored"
    # What is known to change nothing but its own state runs ahead and is verified after; a method of another type may do
    # more than that, so it runs once, holding the object's lock.
    PLAIN = (list, dict, set, array.array, managers.Namespace, managers.Value)  # type: ignore[attr-defined]
    READS = frozenset(
        {"__getitem__", "__len__", "__contains__", "__iter__", "__reversed__", "__add__", "__mul__", "__rmul__"}
        | {"__getattribute__", "__str__", "__repr__", "count", "index", "get", "keys", "values", "items", "copy"}
    )

    def __init__(self, run: Run, key: str, holder: str, obj: Any = None) -> None:
        super().__init__(run, key, holder, obj)
        self._lock = threading.Lock()
        self._caller = 0
        self._version, self._packed = 0, b""  # what Redis had when we last looked
        self._newest = 0  # the last version that we have seen
        self._state: Any = None
        self._contains: list[str] = []

    def call(self, method: str, args: Any, kwds: Any, copy: bool = True) -> Any:
        """Run the method here and commit what it did.

        Raises:
            RemoteError: There is no such method, or its result does not pickle.
            ObjectGone: The object is not in Redis any more.
            Whatever the method raises; what it changed before that is kept, as a server would.
        """
        request = pack((args, kwds))[0]  # the object gets copies, as it would from a server
        if self._caller == threading.get_ident():
            raise RuntimeError(f"a method of {self.key} called {method!r} of the same object through its proxy")
        with self._lock:
            self._caller = threading.get_ident()
            try:
                return _result(self._call(method, request), copy)
            finally:
                self._caller = 0

    def _call(self, method: str, request: bytes) -> list[Any]:
        fresh = self._version == 0 and self._load()
        for _ in range(TRIES if type(self._state) in self.PLAIN else 0):
            if outcome := self._attempt(method, request, fresh):
                return outcome
            if self._version == 0:
                break
            fresh = True
        # Excluded: a slow call overtaken for ever by quick ones, and a method that does more than compute being run twice.
        # While this lock is held nobody else's change is accepted; who is refused stands in line for it.
        with SemLock(self.run, f"{self.key}:turn", SEMAPHORE, 1, 1, owned=True):
            self._load()
            outcome = self._attempt(method, request, fresh=True, turn=1)
            assert outcome is not None
        return outcome

    def _attempt(self, method: str, request: bytes, fresh: bool, turn: int = 0) -> list[Any] | None:
        """Run the method on the state that we have.

        Args:
            method: Its name.
            request: Its pickled arguments.
            fresh: Whether we have just received the state.
            turn: 1 if we hold the object's lock.

        Returns:
            Whether the method returned and its result, or what it raised. None if the state was not that of now, which we
            have after it; or if somebody else holds the object's lock, then we have none.
        """
        try:
            outcome = _run(self._state, method, request)
            packed, contains = b"", self._contains
            if method != GETVALUE and not (method in self.READS and type(self._state) in self.PLAIN):
                packed, contains = pack(self._state)
                packed = b"" if packed == self._packed else packed
            if fresh and not packed and not self._contains:
                return outcome  # a read of what we have just received
            # Not so if it contains proxies. They count as ours since we loaded it, which Redis has heard by now: if the
            # version is still the same, the object held them until then, and none of them is gone.
            state = self.run.seal(_state_of(self.key, self._version + 1), packed) if packed else b""
            script = COMMIT_MORE if len(packed) > len(self._packed) else COMMIT
            reply = self.run.eval(script, [self.key], self._version, state, " ".join(contains), turn)
        except BaseException:
            self._forget()  # what the method did to it is not committed
            raise
        if reply == 0:
            self._forget()
        if reply == 0 or self._received(reply):
            return None
        if packed:
            self._newest = self._version = self._version + 1
            self._packed, self._contains = packed, contains
        return outcome

    def _forget(self) -> None:
        self._version, self._state, self._packed, self._contains = 0, None, b"", []

    def _load(self) -> bool:
        """Have the state of now; whether it is another than we had."""
        return self._received(self.run.eval(COMMIT, [self.key], self._version, b"", b"", 0))

    def _received(self, reply: Any) -> bool:
        if reply == 1:
            return False
        self._forget()
        if reply is None:
            raise self.gone()
        version, blob, contains = reply
        packed = bytes(self.run.unseal(_state_of(self.key, version), blob))
        if version < self._newest:
            newest, self._newest = self._newest, 0  # told once; who calls again has it as it is now
            raise WrongKey(
                f"The managed object {self.key} is at version {version} and was at {newest}: changes to it are lost.",
                "Somebody has put an earlier state back, or Redis has lost the last moments before it was started again.",
            )
        self._newest = version
        self._state = loads(packed)
        self._version, self._packed, self._contains = version, packed, contains.decode().split()
        return True


class Live(Shared):
    """A primitive that is shared in Redis by itself; ``obj`` is this process's handle on it."""

    kind = "live"

    def call(self, method: str, args: Any, kwds: Any, copy: bool = True) -> Any:
        """Call the primitive's method.

        Raises:
            ObjectGone: It waited, and the manager was shut down meanwhile.
        """
        if method == GETVALUE:
            raise RemoteError(f"Unserializable message: {self.primitive!r} is shared, and has no value to copy\n")
        function, begun = method_of(self.primitive, method), time.monotonic()
        try:
            result = function(*args, **kwds)
        except Exception:
            self._check(begun)
            raise
        self._check(begun)
        return result

    def _check(self, begun: float) -> None:
        if time.monotonic() - begun > WAITED and not self.exists():
            raise self.gone() from None

    @property
    def primitive(self) -> Any:
        """The primitive, for this process."""
        if self.obj is None:
            blob = self.run.eval(FETCH, [self.key])
            if blob is None:
                raise self.gone()
            primitive = loads(self.run.unseal(_state_of(self.key, 1), blob))
            primitive.managed = self.key
            with _lock:  # excluded: two threads that use one lock through two handles, which count its holds apart
                self.obj = self.obj or primitive
        return self.obj


KINDS: dict[str, Any] = {Stored.kind: Stored, Live.kind: Live}
_known: weakref.WeakValueDictionary[str, Shared] = weakref.WeakValueDictionary()
_lock = threading.RLock()


def find(kind: str, key: str) -> Any:
    """The object with a key, which from now on this process refers to."""
    run = runs.current()
    if run is None:
        raise RuntimeError(
            "a proxy was loaded in a process that belongs to no run: call connect() of the context first"
        )
    with _lock:
        shared = _known.get(key)
        if shared is None:
            shared = _known[key] = KINDS[kind](run, key, holder := _holder(run))
            run.post(HOLD, [key], holder)
        return shared


def create(run: Run, manager: str, obj: Any, live: bool = False) -> Shared:
    """Make an object of a manager.

    Args:
        run: This process's run.
        manager: Key of the manager.
        obj: The object; it is copied, unless it is live or does not pickle.
        live: Whether it is a primitive of this package.
    """
    key, holder = run.new_name("object"), _holder(run)
    state, contains, keys = b"", list[str](), [f"{key}:turn", f"{key}:turn:waiters"]
    shared: Shared
    if live:
        shared, keys = Live(run, key, holder, obj), list(_keys_of(obj, run.base))
        state, contains = _pack_primitive(obj)
    else:
        try:
            # what an object of a user's class has made for itself, a closure over its own state, does not leave it
            state, contains = pack(obj, byvalue.Pickler if type(obj) in Stored.PLAIN else byvalue.ResultPickler)
            shared = Stored(run, key, holder)
        except Exception:  # noqa: BLE001 - whatever a class raises to say that it does not pickle
            shared = KINDS["resident"](run, key, holder, obj)
    sealed = run.seal(_state_of(key, 1), state) if state else b""
    kind = f"{type(obj).__module__}.{type(obj).__qualname__}"
    if not run.eval(CREATE, [key, manager], holder, sealed, " ".join(contains), " ".join(keys), kind):
        raise shared.gone()
    with _lock:
        _known[key] = shared
    if live:
        obj.managed = key  # from now on it pickles by its key
    return shared


def _state_of(key: str, version: int) -> str:
    """What a state is sealed for. Excluded: an earlier one under the number of a later."""
    return f"{key} version {version}"


def _holder(run: Run) -> str:
    return f"{run.me}/{next(_holders)}"


def _pack_primitive(obj: Any) -> tuple[bytes, list[str]]:
    """``pack`` for a primitive, which otherwise pickles only for a process that is being started."""
    before = context.get_spawning_popen()
    context.set_spawning_popen(_Anyone())  # type: ignore[arg-type]
    try:
        return pack(obj)
    finally:
        context.set_spawning_popen(before)


_PRIMITIVES = (
    "lab.cluster.managers.managed",
    "lab.cluster.synchronize",
    "lab.cluster.sharedctypes",
    "lab.cluster.queues",
    "multiprocessing.synchronize",
)


class _Anyone:
    """Stands where the process that is being started would."""


def _keys_of(part: Any, base: str) -> Iterator[str]:
    """The Redis keys of a primitive: the strings in it, and in the primitives that it is made of, that are such keys."""
    if isinstance(part, str):
        if part.startswith(base):
            yield from (part, f"{part}:waiters", f"{part}:room", f"{part}:room:waiters")
    elif isinstance(part, tuple):
        for item in part:
            yield from _keys_of(item, base)
    elif type(part).__module__.startswith(_PRIMITIVES) and getattr(part, "managed", None) is None:
        # not if it is managed by itself: then it is another object's
        yield from _keys_of(tuple(getattr(part, "__dict__", {}).values()), base)


def copied(obj: Any) -> Any:
    """A copy of what an object holds, as a server would send it.

    Raises:
        RemoteError: It does not pickle.
    """
    if obj is None or type(obj) in (int, float, bool, str, bytes):
        return obj
    try:
        return loads(pack(obj)[0])
    except Exception:  # noqa: BLE001 - whatever pickling runs
        raise RemoteError(f"Unserializable message: {format_exc()}\n") from None


def _run(state: Any, method: str, request: bytes) -> list[Any]:
    args, kwds = loads(request)
    function = method_of(state, method)
    try:
        return [True, function(*args, **kwds)]
    except Exception as exc:  # noqa: BLE001 - it is the caller's
        return [False, exc]


def method_of(obj: Any, name: str) -> Any:
    """A method of an object by its name; RemoteError if it has none of that name."""
    if name == GETVALUE:
        return lambda: obj
    try:
        return getattr(obj, name)
    except AttributeError:
        raise RemoteError(format_exc()) from None


def _result(outcome: list[Any], copy: bool) -> Any:
    ok, result = outcome
    outcome.clear()  # the frames that an error refers to have this list: it must not refer to the error
    if not ok:
        try:
            raise result
        finally:
            del result
    try:
        return copied(result)
    except RemoteError:
        if copy:
            raise
        return result
