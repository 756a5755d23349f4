"""Fixtures of the tests of delivery: a Valkey, workers of a plain Celery project on it, a producer; and what it sends."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.celery_workers import Workers, producer
from tests.kit.server import Server

LEASE = 2.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture
def workers(server: Server, tmp_path: Path) -> Iterator[Workers]:
    server.client.flushall()
    with Workers(tmp_path, server.tcp_url, DELIVERY_LEASE=str(LEASE)) as workers:
        yield workers


@pytest.fixture
def send(server: Server) -> Iterator[Any]:
    app = producer(server.tcp_url)
    yield lambda name, *args, **options: app.send_task(name, args, **options)
    app.close()


def nothing_left(server: Server, *queues: str) -> bool:
    kinds = ("", ":leases", ":held")
    return not any(server.client.exists(queue + kind) for queue in queues or ("short", "long") for kind in kinds)


def good_message() -> dict[str, Any]:
    """A message as a stock producer writes it."""
    return {
        "body": b64encode(b"[[1, 0], {}, {}]").decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": "work", "id": "the-id", "retries": 0, "argsrepr": "", "kwargsrepr": "{}"},
        "properties": {
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": "short"},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": "the-tag",
        },
    }  # fmt: skip


def altered(**changes: Any) -> bytes:
    message = good_message()
    for name, value in changes.items():
        message[name.replace("_", "-")] = value
    return json.dumps(message).encode()
