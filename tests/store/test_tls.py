"""TLS to Redis cannot be had half: what is set wrong is refused before anything connects."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import redis

from lab.errors import BadSettings
from lab.fleet.engine import make_app
from lab.settings import Settings
from lab.store.store import Store

AUTHORITIES = ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt"


def settings(url: str, ca: str = "") -> Settings:
    return Settings.from_env({"CROSSHOST_BROKER_URL": url, "CROSSHOST_CA_FILE": ca})


@pytest.mark.parametrize("option", ["ssl_cert_reqs=none", "ssl_check_hostname=false", "ssl_ca_certs=/x"])
def test_verification_cannot_be_turned_off(option: str) -> None:
    with pytest.raises(BadSettings, match="always verified"):
        settings(f"rediss://redis.test:6380/0?{option}")


@pytest.mark.parametrize("url", ["redis://redis.test/0", "unix:///tmp/x.sock"])
def test_a_ca_for_a_connection_without_tls_is_refused(url: str) -> None:
    with pytest.raises(BadSettings, match="has no TLS"):
        settings(url, AUTHORITIES)


def test_a_ca_that_is_none_is_refused_by_name(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path / "empty", Path(__file__)):
        (tmp_path / "empty").touch()
        with pytest.raises(BadSettings, match=f"CROSSHOST_CA_FILE is '{path}'"):
            settings("rediss://redis.test/0", str(path))


def test_the_ca_reaches_both_kinds_of_connection(tmp_path: Path) -> None:
    ca = tmp_path / "a folder & more" / "ca.crt"
    ca.parent.mkdir()
    ca.write_bytes(Path(AUTHORITIES).read_bytes())
    here = settings("rediss://worker:secret@redis.test:6380/0", str(ca))
    link = Store(here.broker_url).link()
    ours: redis.SSLConnection = link._made()
    assert (ours.ca_certs, ours.cert_reqs, ours.check_hostname) == (str(ca), ssl.CERT_REQUIRED, True)
    with make_app(here).connection_for_write() as connection:
        assert connection.ssl == {
            "ssl_ca_certs": str(ca),
            "ssl_cert_reqs": ssl.CERT_REQUIRED,
            "ssl_check_hostname": True,
        }
        assert connection.virtual_host == "0"


def test_without_a_ca_of_its_own_celery_still_verifies() -> None:
    with make_app(settings("rediss://redis.test/0")).connection_for_write() as connection:
        assert connection.ssl == {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True}
    with make_app(settings("redis://redis.test/0")).connection_for_write() as connection:
        assert not connection.ssl


def test_an_address_for_reports_has_neither_password_nor_options() -> None:
    store = Store(settings("rediss://worker:secret@redis.test:6380/0", AUTHORITIES).broker_url)
    assert store.address == "rediss://redis.test:6380/0"
