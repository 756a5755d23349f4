"""Celery's remote control: what the fleet's key signs is obeyed, within a short list; all else is ignored."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from lab.fleet import remote
from lab.fleet.engine import make_app
from lab.keyring import key_id
from lab.settings import Settings
from tests.kit.server import Server
from tests.kit.wait import until


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("fleet"), hosts=1, slots=2) as server:
        yield server


def ask(fleet: Server, key: bytes | None = None) -> Any:
    settings = fleet.settings if key is None else replace(fleet.settings, authkey=key)
    return make_app(settings)


def answers(app: Any, timeout: float = 5.0) -> list[str]:
    replies = app.control.broadcast("ping", reply=True, limit=1, timeout=timeout)
    return [name for reply in replies for name in reply]


def log(fleet: Server) -> str:
    return (fleet.directory / "host-1.log").read_text()


def test_a_signed_ping_is_answered(fleet: Server) -> None:
    assert answers(ask(fleet)) == ["host-1@crosshost"]


@pytest.mark.parametrize("key", [b"", b"another key, as long as one should be"], ids=["unsigned", "another key"])
def test_who_has_no_key_is_not_obeyed_and_the_worker_says_so_once(fleet: Server, key: bytes) -> None:
    stranger = ask(fleet, key)
    for command, arguments in (
        ("cancel_consumer", {"queue": "processes"}), ("shutdown", {}), ("pool_shrink", {"n": 2}),
        ("revoke", {"task_id": "x"}),
        ("rate_limit", {"task_name": "worker.process", "rate_limit": "1/h"}), ("no_such_command", {}), ("", {}),
    ):  # fmt: skip
        stranger.control.broadcast(command, arguments)
    assert not answers(stranger, 1.0)
    assert answers(ask(fleet)) == ["host-1@crosshost"]
    assert fleet.workers[0].poll() is None
    assert log(fleet).count("a command that no fleet obeys") == 1
    assert log(fleet).count("a command without a valid signature") == 1


def test_not_even_the_key_makes_a_worker_obey_what_is_not_on_the_list(fleet: Server) -> None:
    app = ask(fleet)
    app.control.broadcast("shutdown")
    app.control.cancel_consumer("processes")
    assert answers(app) == ["host-1@crosshost"]
    assert fleet.workers[0].poll() is None


def test_a_command_is_obeyed_once_and_only_as_it_was_said() -> None:
    heard: list[Any] = []
    app = make_app(Settings(broker_url="redis://127.0.0.1:1/0", authkey=b"k" * 32))
    node = app.control.mailbox.Node("one@crosshost", handlers={"ping": lambda state, **given: heard.append(given)})
    said: dict[str, Any] = {
        "method": "ping",
        "arguments": {},
        "destination": ["one@crosshost"],
        "pattern": None,
        "matcher": None,
    }

    def signed(sent_ago: float = 0.0, ticket: str = "t", **changed: Any) -> dict[str, Any]:
        sent = time.time() - sent_ago
        seal = {
            "key": key_id(b"k" * 32).hex(),
            "ticket": ticket,
            "sent": sent,
            "signature": remote.signature(b"k" * 32, said, ticket, sent),
        }
        return {**said, "arguments": {"signed": seal}, **changed}

    first = signed()
    again = {**first, "arguments": dict(first["arguments"])}
    node.handle_message(first)
    assert heard == [{}]
    node.handle_message(again)
    node.handle_message(signed(ticket="old", sent_ago=2 * remote.FRESH))
    node.handle_message(signed(ticket="future", sent_ago=-2 * remote.FRESH))
    node.handle_message(signed(ticket="elsewhere", destination=None))
    node.handle_message(signed(ticket="answer", reply_to={"exchange": "x", "routing_key": "y"}))
    lies: tuple[Any, ...] = (
        None,
        7,
        [],
        {"method": ["ping"]},
        {"method": "ping", "arguments": {"signed": {"sent": "x"}}},
    )
    for wrong in lies:
        node.handle_message(wrong)
    assert heard == [{}]
    node.handle_message(signed(ticket="another"))
    assert heard == [{}, {}]


def test_a_monitor_may_ask_for_events_without_a_key_and_gets_no_answer(fleet: Server) -> None:
    with fleet.client.pubsub() as events:
        events.psubscribe("crosshost:celery:/0.celeryev/*")
        assert events.get_message(timeout=5)
        monitor = ask(fleet, b"")
        assert not monitor.control.broadcast("enable_events", reply=True, timeout=1.0)
        until(lambda: events.get_message(timeout=1), "there are events", 10)
