"""What the transport keeps: a real Valkey, real workers, faults that are caused."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.cluster import deadletters
from tests.delivery_kit import Proxy, Server, Workers, producer, until

LEASE = 3.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("valkey"))
    yield server
    server.kill()


@pytest.fixture
def workers(server: Server, tmp_path: Path) -> Iterator[Workers]:
    server.client.flushall()
    workers = Workers(tmp_path, server.url, DELIVERY_LEASE=str(LEASE))
    yield workers
    workers.stop()


@pytest.fixture
def send(server: Server) -> Iterator[Any]:
    app = producer(server.url)
    yield lambda name, *args, **options: app.send_task(name, args, **options)
    app.close()


def nothing_left(server: Server, *queues: str) -> bool:
    kinds = ("", ":leases", ":held")
    return not any(server.client.exists(queue + kind) for queue in queues or ("short", "long") for kind in kinds)


def dead(server: Server) -> list[deadletters.DeadLetter]:
    return deadletters.read(server.client.execute_command, "dead")


def test_a_killed_worker_loses_no_call(server: Server, workers: Workers, send: Any) -> None:
    first, _ = workers.start(count=2)
    for number in range(2):
        send("work", number, 4.0)
    until(lambda: len(workers.count("begin")) == 2, "both run")
    first.kill()
    begun = until(lambda: sum(workers.count("begin").values()) == 3, "its task runs elsewhere", 15)
    assert begun <= 8
    until(lambda: len(workers.count("end")) == 2 and nothing_left(server), "both are done")
    assert sum(workers.count("begin").values()) == 3


def test_what_takes_longer_than_the_lease_runs_once(server: Server, workers: Workers, send: Any) -> None:
    workers.start("--pool", "prefork", "-c", "2", count=2)
    send("work", "long", 3 * LEASE)
    send("work", "later", 0.0, countdown=3 * LEASE)
    until(lambda: len(workers.count("end")) == 2 and nothing_left(server), "both are done")
    assert workers.count("begin") == {"long": 1, "later": 1}


def test_a_solo_worker_renews_while_its_only_thread_works(server: Server, workers: Workers, send: Any) -> None:
    workers.start(count=2)
    send("work", "long", 3 * LEASE)
    until(lambda: len(workers.count("end")) == 1 and nothing_left(server), "it is done")
    assert workers.count("begin") == {"long": 1}
