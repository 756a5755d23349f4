"""The settings of a fleet, read from the environment when asked for, never at import."""

from __future__ import annotations

import multiprocessing
import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from lab import secretfile
from lab.errors import BadSettings
from lab.keyring import Keyring, check_length, read_keys

SCHEMES = ("redis://", "rediss://", "unix://")
MOST = 1000
LEAST_MEMORY = 1 << 24


@dataclass(frozen=True)
class Settings:
    """Where the fleet is and how long its parts wait for each other.

    Attributes:
        broker_url: ``redis://``, ``rediss://`` (TLS) or ``unix://`` address of Redis, with user and password if it asks
            for them, and with the CA to verify it by (``?ssl_ca_certs=FILE``); empty means the embedded fleet.
        authkey: Shared secret under which everything is sealed, bytes.
        old_authkey: Another one that opens as well, while keys are exchanged; else empty.
        authkey_file: The file that both were read from; empty if they were not.
        host: Name of this host in reports; empty means the machine's host name.
        lease: Seconds that a silent process is still taken for alive; its host renews the lease three times as often.
        start_timeout: Seconds that ``Process.start()`` waits for a free slot.
        outage: Seconds that a program waits for a Redis that went away; as long as the root's lease at most.
        hosts: Number of hosts of an embedded fleet.
        slots: Places to compute of one host: how many processes it runs before it takes more than others do.
        most_processes: Number of processes that one host takes at most; 0 for as many as it has memory for.
        memory: Bytes that the Valkey of an embedded fleet may hold; 0 for half of this machine's memory.
        start_method: How ``processes`` starts a child: spawn, forkserver or fork.
        keep: Seconds that a job and its results are kept.
        message_size: Bytes of one message, sealed, that this side reads at most: arguments, results, a process, an item.
        run_processes: Processes of one program that this host runs at once, at most; 0 for no limit.
        run_output: Bytes that this host sends on of what the processes of one program print on it; 0 for no limit.
        process_memory: Bytes of private memory that one process may have on this host, on Linux; 0 for no limit.
        process_files: Files, sockets and pipes that one process may have open on this host; 0 for the host's own limit.
        packages: Folder into which this host installs what ``producer sync`` brings; empty to take nothing.
    """

    broker_url: str = field(default="", repr=False)
    authkey: bytes = field(default=b"", repr=False)
    old_authkey: bytes = field(default=b"", repr=False)
    authkey_file: str = ""
    host: str = ""
    lease: float = 6.0
    start_timeout: float = 10.0
    outage: float = 30.0
    hosts: int = 3
    slots: int = 4
    most_processes: int = 0
    memory: int = 0
    start_method: str = "spawn"
    keep: float = 86_400.0
    message_size: int = 512 << 20
    run_processes: int = 0
    run_output: int = 0
    process_memory: int = 0
    process_files: int = 0
    packages: str = ""

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
            **_authkeys(env),
            host=env.get("CROSSHOST_HOST", ""),
            lease=_seconds(env, "CROSSHOST_LEASE", cls.lease),
            start_timeout=_seconds(env, "CROSSHOST_START_TIMEOUT", cls.start_timeout),
            outage=_seconds(env, "CROSSHOST_OUTAGE", cls.outage),
            hosts=_count(env, "CROSSHOST_HOSTS", cls.hosts),
            slots=_count(env, "CROSSHOST_SLOTS", cls.slots),
            most_processes=_count(env, "CROSSHOST_MOST_PROCESSES", cls.most_processes, least=0),
            memory=_bytes(env, "CROSSHOST_MEMORY"),
            start_method=_start_method(env),
            keep=_seconds(env, "CROSSHOST_KEEP", cls.keep),
            message_size=_bytes(env, "CROSSHOST_MESSAGE_SIZE", cls.message_size, 1 << 20),
            run_processes=_count(env, "CROSSHOST_RUN_PROCESSES", cls.run_processes, least=0),
            run_output=_bytes(env, "CROSSHOST_RUN_OUTPUT", cls.run_output, 1 << 10, off=True),
            process_memory=_bytes(env, "CROSSHOST_PROCESS_MEMORY", cls.process_memory, 128 << 20, off=True),
            process_files=_count(env, "CROSSHOST_PROCESS_FILES", cls.process_files, 64, 1 << 20, off=True),
            packages=os.path.abspath(folder) if (folder := env.get("CROSSHOST_PACKAGES", "")) else "",
        )

    @cached_property
    def keyring(self) -> Keyring:
        """The fleet's keys, as this side holds them."""
        return Keyring(self.authkey, self.old_authkey, self.authkey_file)

    def require_key(self) -> None:
        """Refuse to go on without a key.

        Raises:
            BadSettings: No key is set.
        """
        if not self.authkey:
            raise BadSettings(
                "There is no authkey: CROSSHOST_AUTHKEY and CROSSHOST_AUTHKEY_FILE are both empty.",
                "Everything is sealed with it, so a fleet without one does not start. Make one for both sides:\n"
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
    secretfile.warn(name, path)
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


def _authkeys(env: Mapping[str, str]) -> dict[str, Any]:
    key, path = env.get("CROSSHOST_AUTHKEY", "").encode(), env.get("CROSSHOST_AUTHKEY_FILE", "")
    if path:
        if key:
            raise BadSettings("CROSSHOST_AUTHKEY and CROSSHOST_AUTHKEY_FILE are both set.", "Unset one of them.")
        key, *old = read_keys("CROSSHOST_AUTHKEY_FILE", path)
        secretfile.warn("CROSSHOST_AUTHKEY_FILE", path)
        return {"authkey": key, "old_authkey": b"".join(old), "authkey_file": os.path.abspath(path)}
    if key:
        check_length("CROSSHOST_AUTHKEY", key)
    return {"authkey": key}


def _seconds(env: Mapping[str, str], name: str, default: float) -> float:
    text = env.get(name, "")
    try:
        value = float(text) if text else default
    except ValueError:
        value = 0.0
    if not 0.5 <= value <= 86_400:
        raise _bad(name, text, "a number of seconds from 0.5 to 86400")
    return value


def _count(env: Mapping[str, str], name: str, default: int, least: int = 1, most: int = MOST, off: bool = False) -> int:
    text = env.get(name, "")
    try:
        value = int(text) if text else default
    except ValueError:
        value = -1
    if not least <= value <= most and not (off and value == 0):
        raise _bad(name, text, f"a whole number from {least} to {most}" + (", or 0 for no limit" if off else ""))
    return value


def _bytes(env: Mapping[str, str], name: str, default: int = 0, least: int = LEAST_MEMORY, off: bool = False) -> int:
    """A number of bytes; ``off`` if 0 stands for no limit."""
    text = env.get(name, "")
    parts = re.fullmatch(r"([0-9]+)([kmgt]?)b?", text.lower())
    size = int(parts[1]) << 10 * " kmgt".index(parts[2] or " ") if parts else -1
    if text and not least <= size < 1 << 50 and not (off and size == 0):
        from_on = f"{least >> 20}m" if least >> 20 else f"{least >> 10}k"
        wanted = f"a number of bytes from {from_on} on, such as 512m or 2g"
        raise _bad(name, text, f"{wanted}, or 0 for no limit" if off else wanted)
    return size if text else default


def _start_method(env: Mapping[str, str]) -> str:
    name, known = "CROSSHOST_START_METHOD", multiprocessing.get_all_start_methods()
    method = env.get(name, "") or "spawn"
    if method not in known:
        raise _bad(name, method, f"one of {', '.join(known)}")
    return method


def _bad(name: str, value: str, wanted: str) -> BadSettings:
    return BadSettings(f"{name} is {value!r}, which is not {wanted}.", f"Correct it, or: unset {name}")
