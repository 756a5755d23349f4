"""A TCP proxy in front of a Redis, which can lose what a test wants to be lost."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType


class Proxy:
    """Forwards bytes between ``127.0.0.1:port`` and a Unix socket.

    ``lose_replies(n, after)``: n chunks that the server sends, after some others, are thrown away, and the connections that
    they came over are closed, as if the network had broken just then. ``cut()``: nothing passes any more, and nobody is told;
    ``heal()``: what is sent from then on passes again, over old connections and new ones.
    """

    def __init__(self, target: str) -> None:
        self.target = target
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._lock = threading.Lock()
        self._to_lose = self._to_pass = 0
        self.lost = 0
        self._open = threading.Event()
        self._open.set()
        self._sockets: list[socket.socket] = []

    def lose_replies(self, n: int, after: int = 0) -> None:
        with self._lock:
            self._to_lose, self._to_pass, self.lost = n, after, 0

    def cut(self) -> None:
        self._open.clear()

    def heal(self) -> None:
        self._open.set()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(self.target)
            except OSError:
                client.close()
                continue
            self._sockets += [client, server]
            for source, sink, reply in ((client, server, False), (server, client, True)):
                threading.Thread(target=self._pump, args=(source, sink, reply), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, reply: bool) -> None:
        try:
            while data := source.recv(1 << 16):
                self._open.wait()
                if reply and self._is_lost():
                    break
                sink.sendall(data)
        except OSError:
            pass
        _hang_up(source, sink)

    def _is_lost(self) -> bool:
        with self._lock:
            if not self._to_lose:
                return False
            if self._to_pass:
                self._to_pass -= 1
                return False
            self._to_lose -= 1
            self.lost += 1
            return True

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.heal()
        _hang_up(self._server, *self._sockets)
        for end in (self._server, *self._sockets):
            end.close()


def _hang_up(*ends: socket.socket) -> None:
    """Tell the peers, and wake the threads that wait for them; to close a socket does neither while a thread reads it."""
    for end in ends:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
