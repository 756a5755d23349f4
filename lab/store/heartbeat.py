"""The program of a keeper (``keeper``): beat for a program that cannot, for as long as it lives.

It runs on the standard library alone, ``python -I -S heartbeat.py``, and imports little of that, as there is one beside each
program. It reads one line of JSON from standard input and ends when that is at its end, when its parent is another, or when
Redis does not know the run any more; after each beat it writes a byte to standard output. All it ever does is to run one
script, ``lab.store.run.BEAT``, which changes nothing for a run that has ended; and it does not while the program is stopped,
so that one is missed as a dead one is.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import time
from contextlib import suppress
from typing import Any

TICK = 1.0
"""Seconds between two looks at the program: a descriptor that a forked child has kept open hides its end."""

CONNECT, ANSWER = 2.0, 5.0
"""Seconds to wait for a connection, and for an answer."""


class Ended(Exception):
    """The program, or its run, is no more."""


class Redis:
    """One connection.

    Args:
        options: Of a redis-py connection: ``path``, or ``host`` and ``port``; ``username``, ``password``, ``db``,
            ``ssl_...``; and whether it is over ``tls``.
    """

    hears_of_end = True
    """Whether the end of the program ends the waiting for an answer."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._unread = b""
        if "path" in options:
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.settimeout(CONNECT)
            self._socket.connect(options["path"])
        else:
            self._socket = socket.create_connection((options["host"], options["port"]), CONNECT)
        if options["tls"]:
            self._socket = _secured(self._socket, options)
        self._socket.settimeout(ANSWER)
        if options.get("password") is not None:
            user = [options["username"]] if options.get("username") else []
            self.ask("AUTH", *user, options["password"])
        if options.get("db"):
            self.ask("SELECT", options["db"])

    def ask(self, *command: Any) -> Any:
        """The answer to a command.

        Raises:
            OSError: There is none, or it is an error.
            Ended: The program ended meanwhile.
        """
        parts = [str(part).encode() for part in command]
        self._socket.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts))
        return self._answer()

    def _answer(self) -> Any:
        line = self._take(b"\r\n")
        kind, rest = line[:1], line[1:]
        if kind == b"-":
            raise OSError(rest.decode(errors="replace"))
        if kind == b"$":
            return self._take(int(rest) + 2)[:-2] if rest != b"-1" else None
        if kind == b"*":
            return [self._answer() for _ in range(int(rest))]
        return int(rest) if kind == b":" else rest

    def _take(self, until: bytes | int) -> bytes:
        """What has come up to a mark, without it, or so many bytes."""
        while (end := self._unread.find(until) if isinstance(until, bytes) else until) == -1 or len(self._unread) < end:
            self._receive()
        taken, self._unread = self._unread[:end], self._unread[end + (len(until) if isinstance(until, bytes) else 0) :]
        return taken

    def _receive(self) -> None:
        ready, _, _ = select.select([0] * self.hears_of_end + [self._socket.fileno()], [], [], ANSWER)
        if 0 in ready:
            raise Ended
        if not ready or not (data := self._socket.recv(1 << 16)):
            raise OSError("closed, or silent")
        self._unread += data

    def close(self) -> None:
        """Disconnect."""
        self._socket.close()


def _secured(plain: socket.socket, options: dict[str, Any]) -> socket.socket:
    import ssl

    tls = ssl.create_default_context(
        cafile=options.get("ssl_ca_certs"), capath=options.get("ssl_ca_path"), cadata=options.get("ssl_ca_data")
    )
    if options.get("ssl_certfile"):
        tls.load_cert_chain(options["ssl_certfile"], options.get("ssl_keyfile"), options.get("ssl_password"))
    return tls.wrap_socket(plain, server_hostname=options["host"])


def is_stopped(pid: int) -> bool:
    """Whether a process is stopped, by a signal or by a debugger."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            state = file.read().rpartition(b")")[2].split()[0].decode()
    except FileNotFoundError:  # not Linux
        import subprocess

        command = ["/bin/ps", "-o", "state=", "-p", str(pid)]
        state = subprocess.run(command, stdout=subprocess.PIPE, check=False).stdout.decode().strip()
    return state[:1] in ("T", "t")


def keep(about: dict[str, Any]) -> None:
    """Beat until the program has ended.

    Args:
        about: ``root``, the program's process id; ``options``; ``script``; ``beat``, the command that runs it, and ``last``,
            the same for a program that is no more; ``silence``.

    Raises:
        Ended: It has, or its run has.
    """
    redis, beat_at = None, time.monotonic()
    while True:
        left = min(TICK, max(beat_at - time.monotonic(), 0.0))
        if select.select([0], [], [], left)[0] or os.getppid() != about["root"]:
            raise Ended
        if time.monotonic() < beat_at:
            continue
        pause = about["silence"]
        if not is_stopped(about["root"]):
            try:
                if redis is None:
                    redis = Redis(about["options"])
                    redis.ask("SCRIPT", "LOAD", about["script"])
                if os.getppid() != about["root"]:  # excluded: a beat for a program that ended while we were connecting
                    raise Ended
                reply = redis.ask(*about["beat"])
                if not isinstance(reply, list):
                    raise Ended
                pause = min(pause, reply[0] / 1000)
                with suppress(BlockingIOError):  # nobody reads it while the program is held up
                    os.write(1, b".")
            except OSError:
                if redis is not None:
                    redis.close()
                redis, pause = None, min(pause, TICK)
        beat_at = time.monotonic() + pause


def beat_last(about: dict[str, Any]) -> None:
    """Beat for a program whose process is no more, so that it is missed soon; not if it has become another one (exec)."""
    for _ in range(20):
        if os.getppid() != about["root"]:
            break
        time.sleep(0.05)  # a process that ends closes what it has open before its children have another parent
    else:
        return
    with suppress(OSError):
        Redis.hears_of_end = False
        redis = Redis(about["options"])
        redis.ask("SCRIPT", "LOAD", about["script"])
        redis.ask(*about["last"])


def main() -> None:
    """What ``python heartbeat.py`` does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.set_blocking(1, False)
    line = b""
    while not line.endswith(b"\n"):
        if not (part := os.read(0, 1 << 16)):
            return
        line += part
    about = json.loads(line)
    try:
        keep(about)
    except Ended:
        if about["last"]:
            beat_last(about)


if __name__ == "__main__":
    main()
