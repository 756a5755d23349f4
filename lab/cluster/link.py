"""One connection to Redis, without the client object around it.

Connections are redis-py's own, so TLS, authentication and the handshake are too. What is left out is its client object, which
looks up, times and retries each command, and has no way to send now and read later: what it does for a reply is hiredis'
``pack_command``, ``sendall``, ``recv_into`` and hiredis' ``Reader``, and that is what stands here.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

import hiredis
import redis

from lab.cluster.script import SCRIPTS
from lab.cluster.wire import LARGE

READ_BYTES = 1 << 18
"""Size of the buffer into which replies are read."""


class Link:
    """One connection; a reply belongs to whoever sent the command, so its user holds it alone.

    Args:
        pool: Says how to connect.
        timeout: Seconds after which a server that has not answered is taken for dead.
    """

    def __init__(self, pool: redis.ConnectionPool, timeout: float) -> None:
        self._name = f"crosshost-{secrets.token_hex(6)}"
        kwargs = {**pool.connection_kwargs, "socket_timeout": timeout, "client_name": self._name}
        self._connection: Any = pool.connection_class(**kwargs)
        self._connection.register_connect_callback(self._on_connect)
        self._buffer = bytearray(READ_BYTES)
        self._reader: Any = None
        self._id: int | None = None
        self._former: set[int] = set()

    def _on_connect(self, connection: Any) -> None:
        # on every connect, so that a restarted server knows the scripts again
        commands = [("SCRIPT", "LOAD", script.text) for script in SCRIPTS]
        connection.send_packed_command(pack([*commands, ("CLIENT", "ID")]))
        for _ in commands:
            connection.read_response()
        self._id = int(connection.read_response())
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
            self._connection.connect()
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
            self._connection.connect()
        try:
            for buffer in buffers:
                self._connection._sock.sendall(buffer)
        except BaseException:
            self.close()  # half a command may have been sent
            raise
        return sum(map(len, buffers))

    def read(self) -> Any:
        """The next reply; an error reply is returned, not raised, so that the ones after it keep their places."""
        try:
            while (reply := self._reader.gets()) is False:  # not all of it has come
                socket = self._connection._sock
                if socket is None or not (many := socket.recv_into(self._buffer)):
                    raise redis.ConnectionError("Connection closed by server.")
                self._reader.feed(self._buffer, 0, many)
        except BaseException:
            self.close()  # half a reply may have been read
            raise
        return reply

    def fileno(self) -> int:
        """The socket's descriptor, to select on."""
        return int(self._connection._sock.fileno())

    @property
    def closed(self) -> bool:
        """Whether the next command would connect first."""
        return self._connection._sock is None

    def close(self) -> None:
        """Disconnect."""
        self._connection.disconnect()


def pack(commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Commands as buffers to send one after another: one for all that is small, and each large part as it is."""
    try:
        return [b"".join(map(hiredis.pack_command, commands))]
    except TypeError:  # a list, which says that its parts are large
        pass
    buffers: list[Any] = []
    small: list[Any] = []
    for command in commands:
        if list not in map(type, command):
            small.append(hiredis.pack_command(command))
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


def _bytes(argument: Any) -> Any:
    return argument if isinstance(argument, (bytes, memoryview)) else str(argument).encode()
