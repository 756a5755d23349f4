"""What a host is called that nobody has named: in a container of Compose as Compose does, ``worker-3``; else as its machine.

Docker gives a container twelve hex digits as its host name, and tells the name that Compose has given it only to who asks
its name server for the container's address. (``gethostbyaddr`` does not: it believes /etc/hosts, which has the digits.)
"""

from __future__ import annotations

import re
import secrets
import socket
import struct
from contextlib import suppress
from urllib.parse import urlsplit

DOCKER_DNS = ("127.0.0.11", 53)
TIMEOUT = 2.0
"""Seconds for an answer of Docker's name server, which runs on this machine."""
PTR, INTERNET = 12, 1


def default_name(broker_url: str) -> str:
    """The name of this host; the machine's host name wherever there is no better one.

    A container is named only where Redis is on the same network of Docker, as the names are unique there; on another
    machine there may be another ``worker-3``.

    Args:
        broker_url: Where Redis is.
    """
    here, broker = socket.gethostname(), urlsplit(broker_url)
    if re.fullmatch("[0-9a-f]{12}", here) and broker.hostname:
        with suppress(OSError, ValueError, IndexError, struct.error):  # the digits are a name too
            address, there = _ends(broker.hostname, broker.port or 6379)
            return _in_compose(_ask(address), socket.gethostbyaddr(there)[0]) or here
    return here


def _ends(host: str, port: int) -> tuple[str, str]:
    """The addresses of this host and of another, as they see each other; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, port))
        return probe.getsockname()[0], probe.getpeername()[0]


def _in_compose(name: str, redis: str) -> str:
    """``worker-3`` of ``lab-worker-3.lab_fleet``, if Redis is called ``lab-redis-1.lab_fleet`` or so; else nothing."""
    container, _, network = name.partition(".")
    project = network.rpartition("_")[0]
    if project and redis.partition(".")[2] == network and container.startswith(f"{project}-"):
        return container.removeprefix(f"{project}-")
    return ""


def _ask(address: str) -> str:
    """The name that Docker's name server has for an IPv4 address; RFC 1035, sections 4.1 and 3.5.

    Raises:
        OSError: It does not answer, or this container has none.
        ValueError: It has no name for that.
    """
    labels = [*reversed(address.split(".")), "in-addr", "arpa"]
    question = b"".join(bytes([len(label)]) + label.encode() for label in labels) + struct.pack("!xHH", PTR, INTERNET)
    number = secrets.randbits(16)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.settimeout(TIMEOUT)
        server.connect(DOCKER_DNS)
        server.send(struct.pack("!6H", number, 0x0100, 1, 0, 0, 0) + question)  # 0x0100: recursion is desired
        answer = server.recv(4096)
    told, _flags, _questions, answers = struct.unpack_from("!4H", answer)
    if told != number or not answers:
        raise ValueError(f"no name for {address}")
    _, at = _name(answer, 12 + len(question))  # of whom it is told, which we know
    return _name(answer, at + 10)[0]  # behind its type, class, time to live, length


def _name(message: bytes, at: int) -> tuple[str, int]:
    """The name that begins at a place in a message, and where the next thing begins."""
    labels: list[str] = []
    while length := message[at]:
        if length >= 0xC0:  # the rest is as at an earlier place, so this ends
            (rest,) = struct.unpack_from("!H", message, at)
            if rest & 0x3FFF >= at:
                raise ValueError("a name that refers to itself")
            return ".".join([*labels, _name(message, rest & 0x3FFF)[0]]), at + 2
        labels.append(message[at + 1 : at + 1 + length].decode())
        at += 1 + length
    return ".".join(labels), at + 1
