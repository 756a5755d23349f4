"""What a worker is called that nobody has named, by a name server such as Docker has."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator

import pytest

from worker import name

DIGITS = "17b0af62ea60"
ADDRESS = "127.0.0.1"
BROKER = f"redis://worker@{ADDRESS}:6379/0"
Serve = Callable[[Callable[[bytes], bytes]], None]


def labels(text: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in text.split("."))


def answer(query: bytes, *, owner: bytes, told: bytes) -> bytes:
    """An answer to a query, whose parts are as they lie in the message."""
    head = query[:2] + struct.pack("!5H", 0x8180, 1, 1, 0, 0)
    return head + query[12:] + owner + struct.pack("!2HIH", name.PTR, name.INTERNET, 600, len(told)) + told


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """A name server for one query, in a container whose Redis is on its own network."""
    monkeypatch.setattr(socket, "gethostname", lambda: DIGITS)
    monkeypatch.setattr(socket, "gethostbyaddr", lambda address: ("lab-redis-1.lab_fleet", [], [address]))
    monkeypatch.setattr(name, "TIMEOUT", 0.3)
    threads = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((ADDRESS, 0))
        server.settimeout(10)
        monkeypatch.setattr(name, "DOCKER_DNS", server.getsockname())

        def serve(reply: Callable[[bytes], bytes]) -> None:
            def once() -> None:
                query, whom = server.recvfrom(4096)
                assert query[12:].startswith(labels("1.0.0.127.in-addr.arpa") + b"\0")
                server.sendto(reply(query), whom)

            threads.append(threading.Thread(target=once))
            threads[-1].start()

        yield serve
        for thread in threads:
            thread.join(10)


def test_a_container_is_called_as_compose_calls_it(serve: Serve) -> None:
    serve(lambda query: answer(query, owner=b"\xc0\x0c", told=labels("lab-worker-3.lab_fleet") + b"\0"))
    assert name.default_name(BROKER) == "worker-3"


def test_a_name_that_refers_forwards_is_not_followed(serve: Serve) -> None:
    def reply(query: bytes) -> bytes:  # whose it is, spelled out; then the name, its end as in front of it
        network = labels("lab_fleet") + b"\0"
        asked = query[12:-4]
        owner = labels("x") + struct.pack("!H", 0xC000 | 12)
        at = len(query) + len(owner) + 10 + len(labels("lab-worker-12")) + 2
        told = labels("lab-worker-12") + struct.pack("!H", 0xC000 | at)
        assert asked.endswith(b"\x04arpa\0")
        return answer(query, owner=owner, told=told + network)

    serve(reply)
    assert name.default_name(BROKER) == DIGITS  # a reference forwards, which could go round for ever, is not followed


@pytest.mark.parametrize(
    ("container", "redis", "expected"),
    [
        ("lab-worker-3.lab_fleet", "lab-redis-1.lab_fleet", "worker-3"),
        ("my-lab-jobs-10.my-lab_fleet", "my-lab-redis-1.my-lab_fleet", "jobs-10"),
        ("my_lab-jobs-1.my_lab_fleet", "my_lab-line-1.my_lab_fleet", "jobs-1"),
        ("workers-worker-3.workers_default", "redis.example.org", ""),  # another machine may have one too
        ("workers-worker-3.workers_default", "lab-redis-1.lab_fleet", ""),
        ("box.example.org", "redis.example.org", ""),
        ("box", "redis", ""),
    ],
)
def test_a_name_is_taken_where_it_is_the_only_one(container: str, redis: str, expected: str) -> None:
    assert name._in_compose(container, redis) == expected


@pytest.mark.parametrize(
    "reply",
    [
        lambda query: query[:2] + struct.pack("!5H", 0x8183, 1, 0, 0, 0) + query[12:],  # no such name
        lambda query: b"\0\0" + answer(query, owner=b"\xc0\x0c", told=labels("lab-worker-3.lab_fleet") + b"\0")[2:],
        lambda query: answer(query, owner=b"\xc0\x0c", told=b"\x3flab"),  # ends in the middle of a label
        lambda query: answer(query, owner=b"\xc0\x0c", told=b"\xc0\xff"),
        lambda query: answer(query, owner=b"\xff\xff", told=b"\0"),
        lambda query: b"",
    ],
)
def test_what_is_no_answer_leaves_the_digits(serve: Serve, reply: Callable[[bytes], bytes]) -> None:
    serve(reply)
    assert name.default_name(BROKER) == DIGITS


def test_a_server_that_says_nothing_holds_a_worker_up_for_no_longer_than_its_timeout(serve: Serve) -> None:
    assert name.default_name(BROKER) == DIGITS


def test_a_machine_has_its_host_name_and_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(name, "_ask", lambda address: pytest.fail("asked"))
    assert name.default_name(BROKER) == socket.gethostname()
    monkeypatch.setattr(socket, "gethostname", lambda: DIGITS)
    assert name.default_name("unix:///run/redis.sock") == DIGITS
