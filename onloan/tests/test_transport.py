"""What the transport keeps: a real Valkey, real workers, faults that are caused."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from typing import Any

from onloan import deadletters
from tests import ROOT
from tests.kit.celery_fixtures import LEASE, altered, good_message, nothing_left, send, server, workers
from tests.kit.celery_workers import Workers
from tests.kit.proxy import Proxy
from tests.kit.server import Server
from tests.kit.wait import until

__all__ = ["send", "server", "workers"]


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


def test_what_a_frozen_worker_took_is_run_by_another_and_not_by_it(server: Server, workers: Workers, send: Any) -> None:
    (frozen,) = workers.start()
    frozen.send_signal(signal.SIGSTOP)
    for number in range(5):
        send("work", number, 0.1)
    workers.start()
    until(lambda: len(workers.count("end")) == 5, "the other one does them all", 15)
    frozen.send_signal(signal.SIGCONT)
    send("work", "last")
    until(lambda: workers.count("end")["last"] == 1 and nothing_left(server), "the next call is served")
    assert set(workers.count("begin").values()) == {1}


def test_a_network_that_goes_silent_loses_no_call(server: Server, workers: Workers, send: Any) -> None:
    with Proxy(server.socket) as proxy:
        workers.start(url=proxy.url)
        send("work", "before", 2.0)
        until(lambda: workers.count("begin"), "it runs")
        proxy.cut()
        for number in range(20):
            send("work", number, 0.01)
        time.sleep(2 * LEASE)
        proxy.heal()
        until(lambda: len(workers.count("end")) == 21 and nothing_left(server), "all are done")
    assert max(workers.count("begin")[str(number)] for number in range(20)) == 1


def test_a_redis_that_is_killed_and_comes_back_loses_no_call_and_runs_none_twice(
    server: Server, workers: Workers, send: Any
) -> None:
    workers.start("--pool", "prefork", "-c", "2", count=2)
    for number in range(2):
        send("work", number, 3 * LEASE)
    until(lambda: len(workers.count("begin")) == 2, "they run")
    for number in range(2, 22):
        send("work", number, 0.05)
    server.kill()
    time.sleep(1.5 * LEASE)  # longer than a lease: they all look lapsed
    server.start()
    server.wait()
    until(lambda: len(workers.count("end")) == 22 and nothing_left(server), "all are done")
    assert workers.count("begin")["0"] == workers.count("begin")["1"] == 1


def test_a_task_that_kills_its_slot_is_given_up(server: Server, workers: Workers, send: Any) -> None:
    workers.start("--pool", "prefork", "-c", "1", DELIVERY_MAX="2")
    send("poison", "p")
    send("work", "next")
    until(lambda: dead(server), "it is a dead letter", 60)
    (letter,) = dead(server)
    assert (letter.task, letter.queue) == ("poison", "short")
    assert "2 deliveries" in letter.reason
    assert workers.count("begin")["p"] == 2
    until(lambda: workers.count("end")["next"] and nothing_left(server), "the next call is served")


def headers(**changes: Any) -> dict[str, Any]:
    return {**good_message()["headers"], **changes}


BAD = {
    "no JSON": (b"\xff\xfe not JSON", "JSONDecodeError"),
    "cut short": (altered()[:-10], "JSONDecodeError"),
    "a number": (b"7", "the message is 7, not an object"),
    "a list": (b"[1, 2]", "the message is [1, 2], not an object"),
    "no properties": (b'{"body": ""}', "properties is None"),
    "deeply nested": (b"[" * 100_000 + b"]" * 100_000, "RecursionError"),
    "huge": (altered(body="A" * 40_000_000), "more than the 1,048,576"),
    "no base64": (altered(body="%%%"), "body is b'', not [args, kwargs, embed]"),
    "not a call": (altered(body="eyJhIjogMX0="), "body is {'a': 1}, not [args, kwargs, embed]"),
    "pickled": (altered(content_type="application/x-python-serialize"), "ContentDisallowed"),
    "unknown type": (altered(content_type="application/x-nothing"), "ContentDisallowed"),
    "unknown task": (altered(headers=headers(task="no.such.task")), "no such task: no.such.task"),
    "no task": (altered(headers={}), "not a task"),
    "headers are a list": (altered(headers=[1]), "headers is [1], not an object"),
    "impossible ETA": (altered(headers=headers(eta="soon")), "headers.eta is 'soon'"),
    "expired": (altered(headers=headers(expires="2020-01-01T00:00:00+00:00")), "expired at 2020-01-01"),
}


def test_a_bad_message_costs_itself_and_nothing_else(server: Server, workers: Workers, send: Any) -> None:
    (worker,) = workers.start("--pool", "prefork", "-c", "1")
    for n, (raw, reason) in enumerate(BAD.values()):
        server.client.lpush("short", raw)
        send("work", n)
        until(lambda: workers.count("end")[str(n)] == 1, "the next call is served")  # noqa: B023
        until(lambda: nothing_left(server), "it is gone from the queue")
        letter = dead(server)[0]
        assert reason in letter.reason
        assert letter.queue == "short"
        assert letter.size == len(raw)
        assert len(letter.message) <= deadletters.HEAD
    assert worker.poll() is None
    assert len(dead(server)) == len(BAD)
    assert (letter.task, letter.id) == ("work", "the-id")
    assert 0 < server.client.pttl("dead") <= deadletters.TTL_MS
    assert workers.count("begin")["1"] == 1  # none of the bad ones has run: all of them say work(1)


def test_the_list_of_dead_letters_is_bounded(server: Server) -> None:
    server.client.delete("dead")
    for n in range(deadletters.KEEP + 5):
        deadletters.add(
            server.client.execute_command, "dead", deadletters.letter(f"reason {n}"), b"\xff" * 100_000 * (n < 3)
        )
    letters = dead(server)
    assert len(letters) == deadletters.KEEP
    assert letters[0].reason == f"reason {deadletters.KEEP + 4}"
    deadletters.add(server.client.execute_command, "dead", deadletters.letter("came since"))
    deadletters.clear(server.client.execute_command, "dead", len(letters) - 1)
    assert [each.reason for each in dead(server)] == ["came since"]


def test_a_host_that_is_told_to_stop_finishes_what_is_short_and_hands_over_what_is_long(
    server: Server, workers: Workers, send: Any
) -> None:
    stopping, _ = workers.start("--pool", "prefork", "-c", "2", count=2)
    for number in range(2):
        send("work", f"short-{number}", 1.0)
        send("work", f"long-{number}", 5.0)
    until(lambda: len(workers.count("begin")) == 4, "all run")
    send("work", "waits")
    stopping.send_signal(signal.SIGTERM)
    assert until(lambda: stopping.poll() is not None, "it ends", 30) < 15
    assert stopping.returncode == 0
    until(lambda: len(workers.count("end")) == 5 and nothing_left(server), "all are done", 40)
    assert set(workers.count("end").values()) == {1}
    assert {name: n for name, n in workers.count("begin").items() if not name.startswith("long")} == {
        "short-0": 1, "short-1": 1, "waits": 1}  # fmt: skip
    assert not dead(server)


def test_a_worker_that_is_told_to_stop_does_not_wait_for_what_is_ended_at_once(
    server: Server, workers: Workers, send: Any
) -> None:
    (stopping,) = workers.start("--pool", "prefork", "-c", "2", DELIVERY_GRACE="60")
    send("immovable", "long", 60.0)
    send("work", "short", 3.0)
    until(lambda: len(workers.count("begin")) == 2, "both run")
    stopping.send_signal(signal.SIGTERM)
    assert until(lambda: stopping.poll() is not None, "it ends", 50) > 1
    assert stopping.returncode == 0
    assert workers.count("end") == {"short": 1}
    assert "mingle" not in workers.said(stopping)
    assert server.client.exists("short:leases"), "the other is for another worker"


def test_one_worker_serves_several_queues(server: Server, workers: Workers, send: Any) -> None:
    workers.start()
    waits = []
    for number in range(10):
        send("work", number, queue=("short", "long")[number % 2])
        waits.append(until(lambda: workers.count("end")[str(number)] == 1, "it is done"))  # noqa: B023
        time.sleep(random.Random(number).random() / 5)
    assert sorted(waits)[5] < 1.0


def test_killed_workers_lose_none_of_many_short_tasks() -> None:
    few = ("--tasks", "200", "--kills", "2", "--workers", "2", "--lease", "2")  # make faults: 4,000, 20, 4
    done = subprocess.run([sys.executable, "-m", "faults.kills", *few], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
