"""``ctx.share`` across hosts: an object's bytes lie in Redis once, and come to each host once.

Who shares an object lays it into Redis in pieces, each sealed for its own key, as any message is. The first process of a host
that asks for its value fetches them, opens each into memory that the supervisor of the host has made
(``worker.shares``), and all processes of the host map that. A process without a supervisor, the program itself among them,
fetches them for itself.

Who has it is written down by process, as holders of a pipe's end are: who is taken for dead has it no more. A ``Shared`` in
a message has an entry too, from when it is pickled until it arrives, so it is not lost under way; one in a call of a pool has
none, as the pool keeps it until the call is answered. With the last entry the pieces go. What is under way in a message that
nobody reads stays until the program ends.

On Redis: set ``share:ID``, who has it: ``PROCESS/N`` or ``under-way/TICKET``; strings ``share:ID:0`` ..., the pieces; string
``share:ID:pieces``, how many; set ``shares:PROCESS``, what a process has, for who buries it.
"""

from __future__ import annotations

import json
import mmap
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from multiprocessing import context
from typing import Any, TypeVar

from lab import buffers
from lab.errors import KeyLost, LabError
from lab.sharing import SHELF, Kept, Shared, gone
from lab.store import run as runs
from lab.store.claimcheck import too_large
from lab.store.link import READ_LARGE
from lab.store.run import Run
from lab.store.script import Script
from lab.store.wire import HEAD_SIZE, TAG_SIZE

T = TypeVar("T")

PIECE = 1 << 20
"""Bytes of a piece: one command for Redis, which serves others in between."""
AT_ONCE = 4
"""Pieces that are asked for in one round trip."""
TELL = 0.3
"""Seconds after which whoever fetches says that it goes on; else another one is asked to."""

BEGIN = Script(
    """
redis.call('SADD', KEYS[3], ARGV[4])
redis.call('SADD', KEYS[4], ARGV[3] .. ' ' .. ARGV[4])
redis.call('SET', KEYS[3] .. ':pieces', ARGV[5])
create(KEYS[3])
create(KEYS[4])
create(KEYS[3] .. ':pieces')
return 1
""",
    fenced=True,
    grows=True,
)

REGISTER_PIECE = Script("create(KEYS[3])", fenced=True, numbered=False)

SEND_ON = Script(
    """
if redis.call('EXISTS', KEYS[3]) == 0 then return 0 end
redis.call('SADD', KEYS[3], ARGV[4])
if KEYS[4] then
  redis.call('SADD', KEYS[4], ARGV[3] .. ' ' .. ARGV[4])
  create(KEYS[4])
end
return 1
""",
    fenced=True,
)
"""One more who has it: a message, or a process that is about to be started. 0 if nobody had it any more."""

ARRIVE = Script(
    """
if redis.call('EXISTS', KEYS[3]) == 0 then return 0 end
redis.call('SADD', KEYS[3], ARGV[4])
redis.call('SADD', KEYS[4], ARGV[3] .. ' ' .. ARGV[4])
create(KEYS[4])
if ARGV[5] ~= '' then redis.call('SREM', KEYS[3], ARGV[5]) end
if KEYS[5] then redis.call('SREM', KEYS[5], ARGV[3] .. ' ' .. ARGV[5]) end
return 1
""",
    fenced=True,
)

LET_GO = Script("""
redis.call('SREM', KEYS[4], ARGV[3] .. ' ' .. ARGV[4])
let_go(ARGV[3], ARGV[4])
return 1
""")


class SharedOnHosts(Shared[T]):
    """An object that processes of a fleet share.

    On Redis: see above; GETRANGE of the pieces, once for each host.

    Args:
        run: The run.
        name: Of the object.
        kept: What this process has of it.
        size: Bytes of the object.
    """

    def __init__(self, run: Run, name: str, kept: Kept[T], size: int) -> None:
        self._run, self._size = run, size
        self._holder = f"{run.me}/{SHELF.number()}"
        super().__init__(name, kept)

    def _travel(self, held: bool) -> tuple[Any, ...]:
        run, ticket = self._run, ""
        popen: Any = context.get_spawning_popen()
        if popen is not None and hasattr(popen, "process_id"):
            ticket = f"{popen.process_id}/start-{secrets.token_hex(4)}"
            self._send_on(ticket, run.key("shares", popen.process_id))
        elif not held:
            ticket = f"under-way/{secrets.token_hex(8)}"
            self._send_on(ticket)
        return _arrive, (self.name, self._size, ticket)

    def _send_on(self, ticket: str, *holders: str) -> None:
        if not self._run.eval(SEND_ON, [_key(self._run, self.name), *holders], self.name, ticket):
            raise gone(self.name)

    def _let_go(self) -> None:
        run = self._run
        if not run.closed:
            run.store.defer(*run.command(LET_GO, _keys(run, self.name), self.name, self._holder))


def _key(run: Run, name: str, *more: str) -> str:
    return run.key("share", name, *more)


def _keys(run: Run, name: str) -> list[str]:
    return [_key(run, name), run.key("shares", run.me)]


def share(run: Run, obj: T) -> SharedOnHosts[T]:
    """Share an object with the processes of a run, wherever they are.

    Args:
        run: The run.
        obj: The object; it is as it is now for all who get it.

    Raises:
        ValueError: It is larger than what hosts read of one message.
        RedisFull: Redis has no memory left for it.
        Whatever pickling raises.
    """
    parts = buffers.block(*buffers.Packer(0, views=True).pack(obj))
    size, name = buffers.size(parts), secrets.token_hex(8)
    if size > run.settings.message_size:
        raise ValueError(
            f"the object has {size:,} bytes, and CROSSHOST_MESSAGE_SIZE={run.settings.message_size} is set here: hosts read"
            " no more at once. Share it in parts, or raise CROSSHOST_MESSAGE_SIZE on all sides"
        )
    shared = SharedOnHosts(run, name, Kept(lambda _: obj, lambda: True), size)
    run.eval(BEGIN, _keys(run, name), name, shared._holder, -(-size // PIECE))
    for n, piece in enumerate(_pieces(parts)):  # if this is interrupted, nobody has it, and what was laid down goes
        _lay(run, _key(run, name, str(n)), piece)
    run.store.settle()  # an error is the caller's, now
    SHELF.made(shared)
    return shared


def _lay(run: Run, key: str, piece: list[memoryview]) -> None:
    message, lay = run.seal(key, *piece), run.store.post
    if not run.store.may_post(PIECE):
        lay = run.store.call  # waits until there is memory for it
    lay("SET", key, message, "PX", run.ttl)
    run.post(REGISTER_PIECE, [key])


def _pieces(parts: Iterable[Any]) -> Iterator[list[memoryview]]:
    """The parts, cut and put together so that each piece but the last has ``PIECE`` bytes."""
    piece, room = list[memoryview](), PIECE
    for part in parts:
        left = memoryview(part)
        while left:
            piece.append(left[:room])
            left, room = left[room:], room - len(piece[-1])
            if not room:
                yield piece
                piece, room = [], PIECE
    if piece:
        yield piece


def _arrive(name: str, size: int, ticket: str) -> SharedOnHosts[Any]:
    run = runs.current()
    assert run is not None
    started_with = [run.key("shares", run.me)] if ticket.startswith(f"{run.me}/") else []

    def make(kept: Kept[Any]) -> SharedOnHosts[Any]:
        made = SharedOnHosts(run, name, kept, size)
        if not run.eval(ARRIVE, [*_keys(run, name), *started_with], name, made._holder, ticket):
            raise gone(name)
        return made

    def new() -> Kept[Any]:
        return Kept(partial(_load, run, name, size), lambda: _is_there(run, name))

    shared, fresh = SHELF.arrived(name, make, new)
    if not fresh and ticket:
        run.post(LET_GO, _keys(run, name), name, ticket)
    assert isinstance(shared, SharedOnHosts)
    return shared


def _is_there(run: Run, name: str) -> bool:
    """Whether anybody has it; yes, if that cannot be known now."""
    if run.closed:
        return False
    with suppress(LabError, OSError):
        return bool(run.store.call("EXISTS", _key(run, name)))
    return True


def _load(run: Run, name: str, size: int, kept: Kept[Any]) -> Any:
    if size > (most := run.settings.message_size):
        raise too_large(_key(run, name), f"{size}", most)
    memory, kept.brought = HOST.memory(name, size, partial(fetch, run, name))
    return buffers.loads(memory)


def fetch(run: Run, name: str, memory: memoryview, tell: Callable[[], object] = lambda: None) -> None:
    """Bring an object's bytes here.

    Args:
        run: The run.
        name: Of the object.
        memory: Where they are to lie.
        tell: Called now and then, as it goes on.

    Raises:
        KeyLost: Some of them are not in Redis.
        WrongKey: They were altered.
    """
    told, pieces = time.monotonic(), -(-len(memory) // PIECE)
    for first in range(0, pieces, AT_ONCE):
        numbers = range(first, min(first + AT_ONCE, pieces))
        # No more of each than it has: excluded, reading whatever somebody has laid there.
        asked = [(READ_LARGE, _key(run, name, str(n)), 0, HEAD_SIZE + PIECE + TAG_SIZE) for n in numbers]
        for n, blob in zip(numbers, run.store.pipeline(asked), strict=True):
            key = _key(run, name, str(n))
            if not blob:
                raise gone(name) if not _is_there(run, name) else KeyLost.gone(key, "a piece of a shared object")
            run.unseal_into(key, blob, memory[n * PIECE : (n + 1) * PIECE])
        if time.monotonic() > told + TELL:
            told = time.monotonic()
            tell()


# --- the memory of this host

Fill = Callable[..., None]


class HostMemory:
    """What this process knows of the memory that the processes of its host share: a socket to the supervisor, if it has one.

    Lines of JSON: ``{"get": NAME, "size": BYTES}`` is answered with ``{"fill": true}`` and a file that this process is to
    fill, telling ``{"on": NAME}`` as it goes on and ``{"filled": NAME}`` or ``{"failed": NAME}`` in the end; or, at once or
    when another process has filled it, with ``{"fill": false}`` and the file; or with ``{"no": REASON}`` and none.
    """

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._turn, self._asks = threading.Lock(), 0
        os.register_at_fork(after_in_child=self.leave)

    def join(self, fd: int) -> None:
        """Be served by a supervisor from now on, over this socket."""
        os.set_inheritable(fd, False)
        self._socket = socket.socket(fileno=fd)

    def leave(self) -> None:
        """Be served no more: this is a process that the supervisor knows nothing of."""
        if self._socket is not None:
            self._socket.close()
        self._socket, self._turn, self._asks = None, threading.Lock(), 0

    def memory(self, name: str, size: int, fill: Fill) -> tuple[memoryview, bool]:
        """The bytes of an object, read-only, fetched if they are not on this host; and whether they were.

        Args:
            name: Of the object.
            size: Bytes.
            fill: Brings them into memory that it is given, and calls something now and then.

        Raises:
            Whatever ``fill`` raises.
        """
        got = self._get(name, size)
        if got is None:
            mine = mmap.mmap(-1, size)
            fill(memoryview(mine))
            return memoryview(mine).toreadonly(), True
        to_fill, file = got
        try:
            if to_fill:
                self._fill(name, file, size, fill)
            return memoryview(mmap.mmap(file, size, access=mmap.ACCESS_READ)), to_fill
        finally:
            os.close(file)

    def _fill(self, name: str, file: int, size: int, fill: Fill) -> None:
        whole = mmap.mmap(file, size)
        memory = memoryview(whole)
        try:
            fill(memory, partial(self._say, on=name))
        except BaseException:  # its traceback still refers to the memory
            self._say(failed=name)
            raise
        memory.release()
        whole.close()  # before it is said: what is mapped to be written to cannot be closed to writing
        self._say(filled=name)

    def _get(self, name: str, size: int) -> tuple[bool, int] | None:
        if self._asks == threading.get_ident():
            return None  # a signal's handler, in the middle of another question of its thread
        with self._turn:
            if self._socket is None:
                return None
            self._asks = threading.get_ident()
            try:
                self._socket.sendall(json.dumps({"get": name, "size": size}).encode() + b"\n")
                line, files = b"", list[int]()
                # As long as another process of the host brings it: the supervisor sees to it that one does.
                while not line.endswith(b"\n"):
                    data, fds, _, _ = socket.recv_fds(self._socket, 1 << 12, 1)
                    if not data:
                        return None
                    line += data
                    files += fds
            except OSError:
                return None
            finally:
                self._asks = 0
            said = json.loads(line)
            return None if "no" in said else (said["fill"], files[0])

    def _say(self, **said: Any) -> None:
        connection = self._socket
        if connection is not None:
            with suppress(OSError):  # the supervisor is gone, and this process is about to be
                connection.sendall(json.dumps(said).encode() + b"\n")


HOST = HostMemory()
"""That of this process."""
