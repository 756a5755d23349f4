"""The settings of a fleet, read from the environment when asked for, never at import."""

from __future__ import annotations

import multiprocessing
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

from lab.errors import BadSettings

SCHEMES = ("redis://", "rediss://", "unix://")
MIN_KEY = 16


@dataclass(frozen=True)
class Settings:
    """Where the fleet is and how long its parts wait for each other.

    Attributes:
        broker_url: ``redis://``, ``rediss://`` (TLS) or ``unix://`` address of Redis, with user and password if it asks
            for them, and with the CA to verify it by (``?ssl_ca_certs=FILE``); empty means the embedded fleet.
        authkey: Shared secret that signs every pickle, bytes.
        host: Name of this host in reports; empty means the machine's host name.
        lease: Seconds that a silent process is still taken for alive; its host renews the lease three times as often.
        start_timeout: Seconds that ``Process.start()`` waits for a free slot.
        outage: Seconds that a program waits for a Redis that went away; as long as the root's lease at most.
        hosts: Number of hosts of an embedded fleet.
        slots: Number of processes that one host runs at once.
        start_method: How ``processes`` starts a child: spawn, forkserver or fork.
        keep: Seconds that a job and its results are kept.
    """

    broker_url: str = field(default="", repr=False)
    authkey: bytes = field(default=b"", repr=False)
    host: str = ""
    lease: float = 6.0
    start_timeout: float = 10.0
    outage: float = 30.0
    hosts: int = 3
    slots: int = 4
    start_method: str = "spawn"
    keep: float = 86_400.0

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the ``CROSSHOST_`` variables.

        Args:
            environ: Variables to read; the process's own when None.

        Raises:
            BadSettings: A variable has a value that cannot be used; the message names both.
        """
        env = os.environ if environ is None else environ
        url = env.get("CROSSHOST_BROKER_URL", "")
        _check_url(url)
        return cls(
            broker_url=_with_ca(_with_password(url, env), env),
            authkey=_authkey(env),
            host=env.get("CROSSHOST_HOST", ""),
            lease=_seconds(env, "CROSSHOST_LEASE", cls.lease),
            start_timeout=_seconds(env, "CROSSHOST_START_TIMEOUT", cls.start_timeout),
            outage=_seconds(env, "CROSSHOST_OUTAGE", cls.outage),
            hosts=_count(env, "CROSSHOST_HOSTS", cls.hosts),
            slots=_count(env, "CROSSHOST_SLOTS", cls.slots),
            start_method=_start_method(env),
            keep=_seconds(env, "CROSSHOST_KEEP", cls.keep),
        )

    def require_key(self) -> None:
        """Refuse to go on without a key.

        Raises:
            BadSettings: No key is set.
        """
        if not self.authkey:
            raise BadSettings(
                "There is no authkey: CROSSHOST_AUTHKEY and CROSSHOST_AUTHKEY_FILE are both empty.",
                "Every pickle is signed with it, so a fleet without one does not start. Make one for both sides:\n"
                "  export CROSSHOST_AUTHKEY=\"$(python -c 'import secrets; print(secrets.token_hex(32))')\"",
            )


def _check_url(url: str) -> None:
    name = "CROSSHOST_BROKER_URL"
    if url and not url.startswith(SCHEMES):
        raise _bad(name, url, "a URL that starts with " + ", ".join(SCHEMES))
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise _bad(name, url, "a URL with a port from 1 to 65535")
    if not url.startswith("unix://") and not parts.path.strip("/").isdigit() and parts.path.strip("/"):
        raise _bad(name, url, "a URL that ends with the number of a database, such as /0")
    if "ssl_" in parts.query:
        raise BadSettings(
            f"{name} has TLS options after its '?'. They are not for choice: the certificate is always verified.",
            "Leave them out, and name the file of a CA of your own: export CROSSHOST_CA_FILE=ca.crt",
        )


def _with_password(url: str, env: Mapping[str, str]) -> str:
    """The URL with the password from CROSSHOST_PASSWORD_FILE, so that it need not stand in the environment."""
    name = "CROSSHOST_PASSWORD_FILE"
    path = env.get(name, "")
    if not path or not url:
        return url
    parts = urlsplit(url)
    if parts.password:
        raise BadSettings(f"CROSSHOST_BROKER_URL has a password, and {name} is set too.", "Unset one of them.")
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{parts.username or ''}:{quote(_read(name, path).decode())}@{host}"))


def _with_ca(url: str, env: Mapping[str, str]) -> str:
    """The URL with the CA of CROSSHOST_CA_FILE, by which everything that connects verifies Redis's certificate."""
    name = "CROSSHOST_CA_FILE"
    path = env.get(name, "")
    if not path or not url:
        return url
    if not url.startswith("rediss://"):
        raise BadSettings(
            f"{name} is set, but CROSSHOST_BROKER_URL is {url.partition(':')[0]}://, which has no TLS.",
            f"Make it rediss://, with Redis's TLS port, or: unset {name}",
        )
    _read(name, path)
    try:
        ssl.create_default_context(cafile=path)
    except ssl.SSLError as exc:
        raise _bad(name, path, "a file with certificates (PEM)") from exc
    parts = urlsplit(url)
    query = f"{parts.query}&" if parts.query else ""
    return urlunsplit(parts._replace(query=f"{query}ssl_ca_certs={quote(os.path.abspath(path))}"))


def _read(name: str, path: str) -> bytes:
    try:
        text = Path(path).read_bytes().strip()
    except OSError as exc:
        raise _bad(name, path, f"a readable file ({exc.strerror})") from exc
    if not text:
        raise _bad(name, path, "a file with something in it")
    return text


def _authkey(env: Mapping[str, str]) -> bytes:
    name, key = "CROSSHOST_AUTHKEY", env.get("CROSSHOST_AUTHKEY", "").encode()
    if path := env.get("CROSSHOST_AUTHKEY_FILE", ""):
        if key:
            raise BadSettings("CROSSHOST_AUTHKEY and CROSSHOST_AUTHKEY_FILE are both set.", "Unset one of them.")
        name = "CROSSHOST_AUTHKEY_FILE"
        key = _read(name, path)
    if key and len(key) < MIN_KEY:
        raise BadSettings(f"The key in {name} has {len(key)} bytes; it needs at least {MIN_KEY}.", "Make a longer one.")
    return key


def _seconds(env: Mapping[str, str], name: str, default: float) -> float:
    text = env.get(name, "")
    try:
        value = float(text) if text else default
    except ValueError:
        value = 0.0
    if not 0.5 <= value <= 86_400:
        raise _bad(name, text, "a number of seconds from 0.5 to 86400")
    return value


def _count(env: Mapping[str, str], name: str, default: int) -> int:
    text = env.get(name, "")
    try:
        value = int(text) if text else default
    except ValueError:
        value = 0
    if not 1 <= value <= 1_000:
        raise _bad(name, text, "a whole number from 1 to 1000")
    return value


def _start_method(env: Mapping[str, str]) -> str:
    name, known = "CROSSHOST_START_METHOD", multiprocessing.get_all_start_methods()
    method = env.get(name, "") or "spawn"
    if method not in known:
        raise _bad(name, method, f"one of {', '.join(known)}")
    return method


def _bad(name: str, value: str, wanted: str) -> BadSettings:
    return BadSettings(f"{name} is {value!r}, which is not {wanted}.", f"Correct it, or: unset {name}")
