"""A longer way to Redis, for measuring: a round trip that a delay line between a fleet and its Redis adds.

The line (``worker.delay``) stands where Redis's address points to, passes every byte on, and holds none back until somebody
asks it to. To ask is to connect and send, instead of a Redis command, ``DELAY`` and the round trip in microseconds. The delay
lasts as long as that connection. A Redis that is reached directly answers that it knows no such command.
"""

from __future__ import annotations

import re
import socket
from urllib.parse import urlsplit

from lab.errors import BadSettings, BrokerUnreachable

COMMAND = b"DELAY "
SHORTEST, LONGEST = 50e-6, 0.2
ANSWER_WITHIN = 5.0
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


def duration(text: str) -> float:
    """Seconds of a round trip such as ``500us``, ``2ms`` or ``0.1s``.

    Raises:
        ValueError: It is none, or not between ``SHORTEST`` and ``LONGEST``.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(us|ms|s)", text.strip())
    seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if not SHORTEST <= seconds <= LONGEST:
        raise ValueError(f"{text!r} is not a round trip from 50us to 200ms, such as 500us, 2ms or 20ms")
    return seconds


class Distance:
    """A round trip that is added for all who reach Redis by this URL, until ``close()``.

    Args:
        url: Of the broker, ``redis://`` or ``unix://``.
        rtt: Seconds.

    Raises:
        BadSettings: There is no delay line at this address, or somebody else measures with another delay now.
        BrokerUnreachable: Nobody answers.
    """

    def __init__(self, url: str, rtt: float) -> None:
        parts = urlsplit(url)
        if parts.scheme == "rediss":
            raise BadSettings("--rtt is not for a fleet that is reached over TLS: nobody between can hold back its bytes.",
                              "It has a network already: leave --rtt out.")  # fmt: skip
        try:
            self._socket = _connected(parts.path if parts.scheme == "unix" else (parts.hostname, parts.port or 6379))
            self._socket.sendall(COMMAND + b"%d\r\n" % round(rtt * 1e6))
            answer = self._socket.recv(200)
        except OSError as exc:
            raise BrokerUnreachable(
                f"Nobody answers where Redis should be: {exc}", "Start it, or correct CROSSHOST_BROKER_URL."
            ) from exc
        if answer.startswith(b"+OK"):
            return
        self.close()
        if answer.startswith(b"-BUSY"):
            said = answer.decode().removeprefix("-BUSY ").strip()
            raise BadSettings(f"The delay line is in use: {said}.", "Wait until the other command has ended.")
        raise BadSettings(
            "There is no delay line between this fleet and its Redis, so nothing can add --rtt to their way.",
            "In containers: docker compose -f compose.yaml -f compose.rtt.yaml up -d\n"
            "Or with a fleet of its own for the command: unset CROSSHOST_BROKER_URL",
        )

    def close(self) -> None:
        """Bring the two together again."""
        self._socket.close()


def _connected(address: str | tuple[str | None, int]) -> socket.socket:
    if isinstance(address, tuple):
        return socket.create_connection(address, timeout=ANSWER_WITHIN)
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(ANSWER_WITHIN)
    try:
        connection.connect(address)
    except OSError:
        connection.close()
        raise
    return connection
