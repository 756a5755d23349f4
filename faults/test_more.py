"""More faults of delivery, each with its own workers: too slow for every run of the tests."""

from __future__ import annotations

import signal
import time
from base64 import b64encode
from typing import Any

import pytest

from tests.kit.celery_fixtures import LEASE, altered, nothing_left, send, server, workers  # noqa: F401
from tests.kit.celery_workers import Workers
from tests.kit.server import Server
from tests.kit.wait import until


def test_a_solo_worker_renews_while_its_only_thread_works(server: Server, workers: Workers, send: Any) -> None:
    workers.start(count=2)
    send("work", "long", 3 * LEASE)
    until(lambda: len(workers.count("end")) == 1 and nothing_left(server), "it is done")
    assert workers.count("begin") == {"long": 1}


@pytest.mark.parametrize("thaws", [True, False], ids=["thawed", "killed"])
def test_a_frozen_worker_loses_no_call(server: Server, workers: Workers, send: Any, thaws: bool) -> None:
    frozen, _ = workers.start(count=2)
    frozen.send_signal(signal.SIGSTOP)
    for number in range(20):
        send("work", number, 0.02)
    time.sleep(0.5)  # what it had asked for before is on its way into its buffer
    frozen.send_signal(signal.SIGCONT if thaws else signal.SIGKILL)
    until(lambda: len(workers.count("end")) == 20 and nothing_left(server), "all 20 are done")


def test_what_was_done_while_redis_was_away_is_acknowledged_when_it_is_back(
    server: Server, workers: Workers, send: Any
) -> None:
    workers.start("--pool", "prefork", "-c", "1", count=2)
    send("work", "x", LEASE / 2)
    until(lambda: workers.count("begin"), "it runs")
    server.kill()
    until(lambda: workers.count("end"), "it is done, and cannot say so")
    time.sleep(LEASE)
    server.start()
    server.wait()
    until(lambda: nothing_left(server), "it is acknowledged")
    time.sleep(1.5 * LEASE)  # as long as another worker would need to take it over
    assert workers.count("begin") == {"x": 1}


def test_a_copied_message_is_another_message(server: Server, workers: Workers, send: Any) -> None:
    # the stock transport files both under the producer's tag, so that one's end is taken for the other's
    first, _ = workers.start(count=2)
    raw = altered(body=b64encode(b'[["c", 2], {}, {}]').decode())
    server.client.lpush("short", raw, raw)
    until(lambda: len(server.client.zrange("short:leases", 0, -1)) == 2, "both are taken")
    assert server.client.hlen("short:held") == 2
    first.kill()
    until(lambda: workers.count("end")["c"] == 2 and nothing_left(server), "both are done")


def test_a_worker_that_is_told_to_stop_hands_over_what_it_holds(server: Server, workers: Workers, send: Any) -> None:
    stopping, _ = workers.start("--pool", "prefork", "-c", "1", count=2, REMAP_SIGTERM="SIGQUIT")
    for number in range(2):
        send("work", number, 4.0)
    until(lambda: len(workers.count("begin")) == 2, "both run")
    stopping.send_signal(signal.SIGTERM)
    assert until(lambda: stopping.poll() is not None, "it ends", 20) < 10
    until(lambda: len(workers.count("end")) == 2 and nothing_left(server), "the other does both")
    assert sum(workers.count("end").values()) == 2
