"""The hosts of a fleet, as they announce themselves.

On Redis: ``crosshost:hosts`` (set of names), ``crosshost:host:NAME`` (hash, lives for one lease and is renewed three
times as often by the worker's main process), ``crosshost:busy`` (sorted set, "HOST PROCESS" -> when its lease lapses).
Workers for jobs announce themselves apart, as their slots run no processes: ``crosshost:hosts:jobs``,
``crosshost:host:jobs:NAME``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lab.cluster.store import Store

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
        slots: Processes it runs at once.
        busy: Slots taken now.
        version: Version of Crosshost.
        key: Fingerprint of its authkey.
        age: Seconds since it started.
        kernel: Which running kernel it shares with others, as ``kernel()`` gives it; empty if not known.
    """

    name: str
    pid: int
    slots: int
    busy: int
    version: str
    key: str
    age: float
    kernel: str = ""


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


def list_hosts(store: Store, kind: str = "") -> list[HostInfo]:
    """The hosts of a kind whose announcement has not lapsed, by name."""
    names, (seconds, micros) = store.pipeline([("SMEMBERS", hosts_key(kind)), ("TIME",)])
    if not names:
        return []
    now = int(seconds) * 1000 + int(micros) // 1000
    names = sorted(name.decode() for name in names)
    *hashes, taken = store.pipeline(
        [("HGETALL", host_key(name, kind)) for name in names] + [("ZRANGEBYSCORE", BUSY, now, "+inf")]
    )
    busy = [member.decode().partition(" ")[0] for member in taken]
    hosts = []
    for name, flat in zip(names, hashes, strict=True):
        info = {key.decode(): value.decode() for key, value in zip(flat[::2], flat[1::2], strict=True)}
        if info:
            age = (now - int(info["started"])) / 1000
            hosts.append(HostInfo(name, int(info["pid"]), int(info["slots"]), busy.count(name), info["version"],
                                  info["key"], age, info.get("kernel", "")))  # fmt: skip
    return hosts
