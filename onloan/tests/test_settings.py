"""One call sets everything, whenever it comes, and refuses what it cannot do."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import ImproperlyConfigured
from onloan.__main__ import main
from onloan.logs import Neutral
from onloan.settings import address

import onloan
from onloan import deadletters, transport
from tests.kit.celery_fixtures import server
from tests.kit.server import Server

__all__ = ["server"]


def app(broker: Any = None, **settings: Any) -> Any:
    made = Celery("project", broker=broker, set_as_current=False)
    made.conf.update(settings)
    return made


@pytest.mark.parametrize(
    "when", ["before", "after", "once the settings were read", "before they are read from a module"]
)
@pytest.mark.parametrize("scheme", ["redis", "unix", "redis+socket"])
def test_it_works_whenever_the_broker_is_known(server: Server, when: str, scheme: str) -> None:
    url = server.tcp_url if scheme == "redis" else f"{scheme}://{server.socket}"
    project = app(None if "before" in when else url)
    if "read" in when and "before" not in when:
        assert project.conf.broker_url == url
    onloan.configure(project, lease=3, max_deliveries=2)
    if when == "before":
        project.conf.broker_url = url
    elif "before" in when:
        project.config_from_object({"broker_url": url, "task_acks_late": False})
    with project.connection_for_read() as connection:
        assert isinstance(connection.transport, transport.Transport)
        channel = connection.default_channel
        assert (channel.visibility_timeout, channel.max_deliveries) == (3, 2)
        channel.client.ping()
    assert project.conf.task_acks_late
    assert project.conf.task_reject_on_worker_lost


def test_what_the_app_says_after_it_counts() -> None:
    project = app("redis://127.0.0.1:1")
    onloan.configure(project)
    project.conf.worker_soft_shutdown_timeout = 30
    project.conf.broker_transport_options = {"socket_timeout": 9}
    with project.connection_for_write() as connection:
        assert connection.transport_options["socket_timeout"] == 9
        assert connection.transport_options["visibility_timeout"] == 6
    assert project.conf.worker_soft_shutdown_timeout == 30


@pytest.mark.parametrize(
    "url",
    [
        "amqp://guest:secret@host//",
        "memory://",
        "sqs://",
        "redis://a;redis://b",
        ["redis://a", "redis://b"],
        "host:6379",
    ],
)
def test_a_broker_that_is_not_one_redis_is_refused_at_once_and_without_its_password(url: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match="onloan needs") as refused:
        onloan.configure(app(url))
    assert "secret" not in str(refused.value)


def test_a_broker_that_is_set_later_is_refused_when_it_connects() -> None:
    project = app()
    onloan.configure(project)
    project.conf.broker_url = "amqp://host"
    with pytest.raises(ImproperlyConfigured, match="onloan needs a Redis"):
        project.connection_for_write()


@pytest.mark.parametrize("option", [{"lease": 0}, {"lease": -1.0}, {"max_deliveries": 0}, {"max_message_bytes": 0}])
def test_a_number_that_makes_no_sense_is_refused(option: Any) -> None:
    with pytest.raises(ValueError, match="more than 0"):
        onloan.configure(app("redis://host"), **option)


def test_certificates_are_verified_unless_the_address_says_otherwise() -> None:
    assert address("rediss://host/1") == (
        "rediss://host/1",
        {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True},
    )
    _, own = address("rediss://host?ssl_ca_certs=/ca.crt")
    assert own == {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True, "ssl_ca_certs": "/ca.crt"}
    _, none = address("rediss://host?ssl_cert_reqs=none")
    assert none == {"ssl_cert_reqs": ssl.CERT_NONE, "ssl_check_hostname": False}
    project = app("rediss://host")
    onloan.configure(project)
    with project.connection_for_write() as connection:
        parameters = connection.transport.Channel._connparams(_Unconnected(connection))
    assert (parameters["ssl_cert_reqs"], parameters["ssl_check_hostname"]) == (ssl.CERT_REQUIRED, True)


class _Unconnected(transport.Channel):
    """A channel that has options and no Redis."""

    def __init__(self, client: Any) -> None:
        self.connection = type("Connection", (), {"client": client, "default_port": 6379})

    def __del__(self) -> None:
        pass


def test_control_characters_are_made_visible_in_what_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.handler.addFilter(Neutral())
    try:
        raise ValueError("\x1b[2J")
    except ValueError:
        logging.getLogger("celery.anything").exception("said %s and\nmore: %s", "a\x1b]0;title\x07", "\u202e\x9b")
    assert "\x1b" not in caplog.text
    assert "\\x1b]0;title\\x07" in caplog.text
    assert "and\nmore: \\u202e\\x9b" in caplog.text
    assert "ValueError: \\x1b[2J" in caplog.text


def test_dead_letters_are_shown_and_cleared(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    add = server.client.execute_command
    server.client.delete("shop:dead")
    deadletters.add(add, "shop:dead", deadletters.letter("no such task: x", "celery", "x", "\x1b[2J"), b"the message")
    for forged in (b"7", b'{"time": 1e300}', b"\xff", b"[" * 100_000):
        server.client.rpush("shop:dead", forged)
    for url in (server.tcp_url, server.url):
        assert main([url, "--key", "shop:dead"]) == 0
        said = capsys.readouterr().out
        assert "no such task: x" in said
        assert said.count("not a dead letter") == 4
        assert "\x1b" not in said
    assert main([server.tcp_url, "--key", "shop:dead", "--json", "--clear"]) == 0
    assert "the message" in capsys.readouterr().out
    assert main([server.tcp_url, "--key", "shop:dead"]) == 0
    assert capsys.readouterr().out == "No dead letters.\n"


def test_a_broker_that_cannot_be_asked_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for url in ("amqp://host", f"unix://{tmp_path}/none.sock"):
        assert main([url]) == 2
        assert "python -m onloan: " in capsys.readouterr().err
