"""One connection to Redis, without the client object around it.

Connections are redis-py's own, so TLS, authentication and the handshake are too. What is left out is its client object, which
looks up, times and retries each command, and has no way to send now and read later: what it does for a reply is hiredis'
``pack_command``, ``sendall``, ``recv_into`` and hiredis' ``Reader``, and that is what stands here.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Sequence
from functools import cache
from typing import Any

import hiredis
import redis

from lab.store.script import SCRIPTS
from lab.store.wire import LARGE

READ_LARGE = b"GETRANGE"
"""The first word of a command whose reply is large, to be compared by ``is``: it is read to where it is to lie."""

READ_BYTES, READ_MANY_BYTES = 1 << 14, 1 << 18
"""Size of the buffer into which each thread reads replies; and when it has been full."""


class Link:
    """One connection; a reply belongs to whoever sent the command, so its user holds it alone.

    Args:
        pool: Says how to connect.
        timeout: Seconds after which a server that has not answered is taken for dead.
    """

    def __init__(self, pool: redis.ConnectionPool, timeout: float) -> None:
        self._name = f"crosshost-{secrets.token_hex(6)}"
        self._pool, self._timeout = pool, timeout
        self._connection: Any = None  # until it is needed: a forked child makes a link for each of its parent's
        self._reader: Any = None
        self._id: int | None = None
        self._former: set[int] = set()

    def _made(self) -> Any:
        if self._connection is None:
            kwargs = {**self._pool.connection_kwargs, "socket_timeout": self._timeout, "client_name": self._name}
            self._connection = self._pool.connection_class(**kwargs)
            self._connection.register_connect_callback(self._on_connect)
        return self._connection

    def rehearse(self) -> None:
        """Work out what each process forked from here would work out for itself when it connects."""
        self._made()
        _greeting(len(SCRIPTS))

    def _on_connect(self, connection: Any) -> None:
        # on every connect, as the server may have been started again, and know no script
        connection.send_packed_command(_greeting(len(SCRIPTS)))
        self._id = int(connection.read_response())
        known = connection.read_response()
        if not all(known):
            unknown = [script for script, there in zip(SCRIPTS, known, strict=True) if not there]
            connection.send_packed_command(pack([("SCRIPT", "LOAD", script.text) for script in unknown]))
            for _ in unknown:
                connection.read_response()
        self._reader = hiredis.Reader(protocolError=redis.InvalidResponse, replyError=redis.ResponseError)

    def connect_again(self) -> None:
        """Make the connection anew, and make sure that nothing sent over a former one can still take effect.

        Excluded: a connection that broke on this side alone, in a network that swallows packets. Redis would still run what
        arrives late over it, and give the next item to a blocked command whose reply nobody reads.
        """
        if self._id is not None:
            self._former.add(self._id)
        self.close()
        try:
            self._made().connect()
            for former in list(self._former):
                self._end(former)
                self._former.discard(former)
        except BaseException:
            self.close()  # excluded: the next command taking a reply that is still on its way for its own
            raise

    def _end(self, former: int) -> None:
        # after a restart of the server the number may belong to somebody else's connection, so the name is compared
        self.send([("CLIENT", "LIST", "ID", former)])
        listed = self.read()
        if isinstance(listed, Exception):
            raise listed
        if f"name={self._name} ".encode() in listed:
            self.send([("CLIENT", "KILL", "ID", former)])
            self.read()

    def send(self, commands: Sequence[tuple[Any, ...]]) -> int:
        """Send commands, connecting first if need be; as many replies will come. Returns the number of bytes."""
        buffers = pack(commands)
        if self.closed:
            self._made().connect()
        try:
            for buffer in buffers:
                self._connection._sock.sendall(buffer)
        except BaseException:
            self.close()  # half a command may have been sent
            raise
        return sum(map(len, buffers))

    def read(self, large: bool = False) -> Any:
        """The next reply; an error reply is returned, not raised, so that the ones after it keep their places.

        Args:
            large: Whether it may be a large string, which then comes from the socket into a ``bytearray``, without a copy.
        """
        try:
            while (reply := self._reader.gets()) is False:  # not all of it has come
                buffer = _take_buffer()
                many = self._receive(buffer)
                if large and not self._reader.has_data() and (found := self._read_large(buffer, many)) is not None:
                    _buffers.buffer = buffer
                    return found
                self._reader.feed(buffer, 0, many)
                _buffers.buffer = (
                    buffer if many < READ_BYTES or len(buffer) > READ_BYTES else bytearray(READ_MANY_BYTES)
                )
        except BaseException:
            self.close()  # half a reply may have been read
            raise
        return reply

    def _receive(self, memory: Any) -> int:
        socket = self._connection._sock
        if socket is None or not (many := socket.recv_into(memory)):
            raise redis.ConnectionError("Connection closed by server.")
        return int(many)

    def _read_large(self, buffer: bytearray, many: int) -> bytearray | None:
        """A large string whose first bytes have come, read to its end; None if it is none."""
        head = buffer.find(b"\r\n", 0, many) + 2
        if buffer[:1] != b"$" or head < 2 or (size := int(buffer[1 : head - 2])) < LARGE or many > head + size:
            return None
        reply = bytearray(size + 2)
        with memoryview(reply) as memory:
            at = many - head
            memory[:at] = memoryview(buffer)[head:many]
            while at < size + 2:
                at += self._receive(memory[at:])
        del reply[size:]
        return reply

    def fileno(self) -> int:
        """The socket's descriptor, to select on."""
        return int(self._connection._sock.fileno())

    @property
    def closed(self) -> bool:
        """Whether the next command would connect first."""
        return self._connection is None or self._connection._sock is None

    def close(self) -> None:
        """Disconnect."""
        if self._connection is not None:
            self._connection.disconnect()


_buffers = threading.local()


def _take_buffer() -> bytearray:
    """The buffer of this thread, into which it reads whatever link it reads from.

    It is nobody's while it is used. Excluded: a signal's handler that reads before what is in it was fed to the parser.
    """
    buffer: bytearray | None = vars(_buffers).pop("buffer", None)
    return bytearray(READ_BYTES) if buffer is None else buffer


@cache
def _greeting(scripts: int) -> list[Any]:
    # Made once: to look at each script takes a page of memory for most of them, in each forked process.
    return pack([("CLIENT", "ID"), ("SCRIPT", "EXISTS", *(script.sha for script in SCRIPTS[:scripts]))])


def pack(commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Commands as buffers to send one after another: one for all that is small, and each large part as it is."""
    try:
        return [b"".join(map(_pack, commands))]
    except TypeError:  # a list, which says that its parts are large
        pass
    buffers: list[Any] = []
    small: list[Any] = []
    for command in commands:
        if list not in map(type, command):
            small.append(_pack(command))
            continue
        small.append(b"*%d\r\n" % len(command))
        for argument in command:
            parts = argument if type(argument) is list else [_bytes(argument)]
            small.append(b"$%d\r\n" % sum(map(len, parts)))
            for part in parts:
                if len(part) < LARGE:
                    small.append(part)
                else:
                    buffers += [b"".join(small), part]
                    small = []
            small.append(b"\r\n")
    return [*buffers, b"".join(small)]


def _pack(command: tuple[Any, ...]) -> bytes:
    # Numbers as text. Excluded: a signal's handler that raises while hiredis makes text of one, which it does not survive.
    plain: Any = tuple(
        [str(each) if type(each) in _NUMBERS else each if type(each) in _TEXT else _plain(each) for each in command]
    )
    packed: bytes = hiredis.pack_command(plain)
    return packed


_NUMBERS = (int, float)
_TEXT = (str, bytes, list)


def _plain(argument: Any) -> Any:
    """A number of another class as text: numpy's, a bool. Its ``repr``, which hiredis would take, may be no number at all."""
    if isinstance(argument, (str, bytes)):
        return argument
    if hasattr(argument, "__index__"):
        return str(int(argument))
    return str(float(argument)) if hasattr(argument, "__float__") else argument


def _bytes(argument: Any) -> Any:
    return argument if isinstance(argument, (bytes, bytearray, memoryview)) else str(argument).encode()
