"""The hosts of a fleet, as they announce themselves.

On Redis: ``crosshost:hosts`` (set of names), ``crosshost:host:NAME`` (hash, lives for one lease and is renewed three
times as often by the worker's main process), ``crosshost:busy`` (sorted set, "HOST PROCESS RUN" -> when its lease lapses).
Workers for jobs announce themselves apart, as their slots run no processes: ``crosshost:hosts:jobs``,
``crosshost:host:jobs:NAME``.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lab.errors import KeyLost

HOSTS = "crosshost:hosts"
BUSY = "crosshost:busy"
JOBS = "jobs"
"""The kind of hosts that take jobs; the kind of those that take processes is the empty string."""


@dataclass(frozen=True)
class HostInfo:
    """One live host.

    Attributes:
        name: What reports call it.
        pid: Process id of its Celery worker there.
        slots: Places to compute on it: processes it runs before it takes more than others do.
        busy: Processes it runs now.
        version: Version of Crosshost.
        key: Fingerprints of its authkeys: of one, of two while keys are exchanged.
        age: Seconds since it started.
        kernel: Which running kernel it shares with others, as ``kernel()`` gives it; empty if not known.
        lacks: What it lacks for one more process, such as memory; empty if it has room.
        python: Version of its Python; empty if not known.
        packages: Digest of the list of its packages (``lab.fleet.packages``); empty if not known.
        clock: Seconds that its clock was ahead of Redis's when it connected.
    """

    name: str
    pid: int
    slots: int
    busy: int
    version: str
    key: str
    age: float
    kernel: str = ""
    lacks: str = ""
    python: str = ""
    packages: str = ""
    clock: float = 0.0


def host_key(name: str, kind: str = "") -> str:
    """The key under which a host announces itself."""
    return f"crosshost:host:{kind}:{name}" if kind else f"crosshost:host:{name}"


def hosts_key(kind: str = "") -> str:
    """The key of the names of the hosts of a kind."""
    return f"{HOSTS}:{kind}" if kind else HOSTS


def kernel() -> str:
    """The kernel that runs this process, the same for all containers of a machine; empty where there is no way to know."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


class Redis(Protocol):
    """Whoever can ask Redis (``lab.store.store.Store``)."""

    def pipeline(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Run commands in one round trip; their replies."""


def list_hosts(store: Redis, kind: str = "") -> list[HostInfo]:
    """The hosts of a kind whose announcement has not lapsed, by name.

    Announcements are not sealed. What no host writes is left out: it may have been written to confuse whoever reads this.
    """
    try:
        return _list_hosts(store, kind)
    except KeyLost:  # put right by now; what a host had written there, it writes again
        return _list_hosts(store, kind)


def _list_hosts(store: Redis, kind: str) -> list[HostInfo]:
    names, (seconds, micros) = store.pipeline([("SMEMBERS", hosts_key(kind)), ("TIME",)])
    if not names:
        return []
    now = int(seconds) * 1000 + int(micros) // 1000
    names = sorted(name.decode(errors="replace") for name in names)
    *hashes, taken = store.pipeline(
        [("HGETALL", host_key(name, kind)) for name in names] + [("ZRANGEBYSCORE", BUSY, now, "+inf")]
    )
    busy = [] if kind else [member.decode(errors="replace").partition(" ")[0] for member in taken]
    hosts = []
    for name, flat in zip(names, hashes, strict=True):
        with suppress(KeyError, ValueError):
            hosts.append(_announced(name, flat, busy.count(name), now))
    return hosts


def _announced(name: str, flat: list[bytes], busy: int, now: int) -> HostInfo:
    """A host from its announcement; KeyError or ValueError if that is none."""
    info = {key.decode(): value.decode() for key, value in zip(flat[::2], flat[1::2], strict=True)}
    if not all(text.isprintable() for text in (name, *info.values())):
        raise ValueError("control characters")
    age = (now - int(info["started"])) / 1000
    return HostInfo(name, int(info["pid"]), int(info["slots"]), busy, info["version"], info["key"], age,
                    info.get("kernel", ""), info.get("lacks", ""), info.get("python", ""), info.get("packages", ""),
                    int(info.get("clock", 0)) / 1000)  # fmt: skip
