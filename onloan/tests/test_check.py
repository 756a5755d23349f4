"""No message can end a worker: a table of lies, and a product of them, told to real workers."""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import Any

import pytest
from celery import Celery, chain, chord, group

from onloan import check, deadletters
from tests.kit.celery_fixtures import nothing_left, send, server, workers
from tests.kit.celery_workers import Workers
from tests.kit.lies import SIGNATURE, TABLE, call, embed, examine, lies, refused
from tests.kit.server import Server
from tests.kit.wait import until, within

__all__ = ["send", "server", "workers"]


@pytest.mark.parametrize("name", TABLE)
def test_each_lie_is_refused_and_named(name: str) -> None:
    with pytest.raises(check.Refused):
        examine(json.dumps(TABLE[name]))


@pytest.mark.parametrize("links", [True, False], ids=["links allowed", "no links"])
def test_no_lie_ends_a_worker(server: Server, workers: Workers, send: Any, links: bool) -> None:
    workers.start("--pool", "prefork", "-c", "2", count=2, DELIVERY_NO_LINKS="" if links else "yes")
    seed = random.SystemRandom().randrange(1 << 32)
    print("seed", seed)
    told = [*TABLE.values(), *lies(seed, 400)]
    for message in told:
        server.client.lpush("short", json.dumps(message))
    for number in range(10):
        send("work", f"honest-{number}")
    assert sum(refused(map(json.dumps, told), links).values()) > len(TABLE)
    until(
        lambda: all(workers.count("end")[f"honest-{n}"] == 1 for n in range(10)) and nothing_left(server),
        "all are served, and nothing is left",
        60,
    )
    assert [worker.poll() for worker in workers.processes] == [None, None]
    letters = deadletters.read(server.client.execute_command, "dead")
    assert not refused(map(json.dumps, told), links) - Counter(letter.message for letter in letters)
    assert not [letter for letter in letters if letter.deliveries > 1], "each was refused by the first who took it"
    for worker in workers.processes:
        assert "\x1b[2J" not in workers.said(worker)
        assert "\u202e" not in workers.said(worker)


def test_a_link_is_refused_where_none_is_allowed(server: Server, workers: Workers, send: Any) -> None:
    workers.start("--pool", "prefork", "-c", "1", DELIVERY_NO_LINKS="yes")
    link = {**SIGNATURE, "options": {"queue": "elsewhere"}}
    for name, value in (("callbacks", [link]), ("errbacks", [link]), ("chain", [link]), ("chord", link)):
        server.client.lpush("short", json.dumps(call(body=embed(**{name: value}))))
        until(lambda: nothing_left(server), "it is refused")
        (letter, *_) = deadletters.read(server.client.execute_command, "dead")
        assert f"embed.{name}" in letter.reason
        assert "does not allow" in letter.reason
    assert not server.client.exists("elsewhere")
    assert not workers.count("begin")


def test_what_celery_itself_sends_passes(server: Server, workers: Workers) -> None:
    workers.start("--pool", "prefork", "-c", "2")
    app = Celery("canvas", broker=server.tcp_url, backend=server.tcp_url, set_as_current=False)
    app.conf.update(task_default_queue="short", task_compression="gzip")

    def one(name: str, **options: Any) -> Any:
        return app.signature("work", args=(name,), immutable=True).set(**options)

    one("plain", countdown=0.2, expires=60, time_limit=30, soft_time_limit=20, priority=0, shadow="a shadow",
        headers={"traceparent": "00-1"}).apply_async()  # fmt: skip
    chain(one("first"), one("second"), one("third"), app=app).apply_async()
    group([one(f"member-{n}") for n in range(3)], app=app).apply_async()
    chord([one("header")], one("after"), app=app).apply_async()
    one("linked", link=one("link"), link_error=one("never")).apply_async()
    app.conf.task_protocol = 1
    one("protocol-1", link=one("link-1")).apply_async()
    names = {"plain", "first", "second", "third", "member-0", "member-1", "member-2", "header", "linked", "link",
             "protocol-1", "link-1"}  # fmt: skip
    within(20, lambda: names <= set(workers.count("end")) and nothing_left(server))
    assert set(workers.count("end")) == names, workers.said(workers.processes[0])
    assert not deadletters.read(server.client.execute_command, "dead")
    app.close()


def test_what_an_app_pickles_passes_too() -> None:
    link = Celery("pickling", set_as_current=False).signature("work", args=(1,))
    check.body(
        ((1, 0), {}, {"callbacks": [link], "errbacks": (link,), "chain": None, "chord": link}), {"task": "work"}, True
    )
    with pytest.raises(check.Refused, match="does not allow"):
        check.body(((1, 0), {}, {"callbacks": [link]}), {"task": "work"}, False)


BROADCASTS = [
    b"7", b"[1]", b"{", b"\xff", b"null", b'"x"', b"{}", b"[" * 100_000, b'{"properties": {}}',
    b'{"headers": 1, "properties": 1}',
    json.dumps({"body": "x", "headers": {"clock": "x"}, "properties": {"delivery_tag": "a-1.1.0@short"}}).encode(),
    json.dumps({"body": "x", "headers": {}, "properties": {"delivery_tag": ["x"], "body_encoding": "base64"}}).encode(),
    json.dumps({"body": "[", "content-type": "application/json", "headers": {}, "properties": {}}).encode(),
    json.dumps({"body": "7", "content-type": "application/json", "headers": {}, "properties": {}}).encode(),
    json.dumps({"body": "{}", "content-type": "application/json", "headers": {"clock": 10**300}, "properties": {}}).encode(),
]  # fmt: skip


def test_no_broadcast_ends_a_worker(server: Server, workers: Workers, send: Any) -> None:
    (worker,) = workers.start("--pool", "prefork", "-c", "1")
    for n, broadcast in enumerate(BROADCASTS):
        until(lambda: server.client.publish("/0.celery.pidbox", broadcast) == 1, "the worker listens")  # noqa: B023
        send("work", n)
        until(lambda: workers.count("end")[str(n)] == 1, "the next call is served")  # noqa: B023
    assert worker.poll() is None


def test_a_tag_that_is_none_of_ours_is_forgotten(server: Server, workers: Workers, send: Any) -> None:
    for tag in (b"x", b"\xff.1.0", b"a-1.1e9.0", b"a-1.99999999999999999999.0", b"a-1.1.0"):
        server.client.zadd("short:leases", {tag: 1})
        server.client.hset("short:held", tag.rsplit(b".", 2)[0], b"7")
    (worker,) = workers.start("--pool", "prefork", "-c", "1")
    send("work", "after")
    until(lambda: workers.count("end")["after"] == 1, "the next call is served")
    until(lambda: not server.client.exists("short:leases"), "all are forgotten")
    assert worker.poll() is None
