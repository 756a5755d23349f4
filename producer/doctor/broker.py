"""The Redis that CROSSHOST_BROKER_URL names: whether it answers, keeps what it is given, and may be used."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from lab.errors import LabError
from lab.fleet.remote import FRESH
from lab.settings import Settings
from lab.store.outage import unreachable
from producer.doctor import allowed
from producer.doctor.finding import Check, Finding, all_of, fine, note, of_error, wrong

ANSWERS_WITHIN = 3.0
OLDEST = (6, 2)
"""Of Redis: BLMOVE came with it; the scripts' flags, which let what frees memory run when there is none, with 7.0."""

FLAGS_OF_SCRIPTS = (7, 0)
NEARLY_FULL, LITTLE = 0.9, 256 << 20
CLOCK_NOTED = 2.0
SLOW = 0.05
LOCAL = ("localhost", "127.0.0.1", "::1")


@dataclass
class Broker:
    """A Redis that is looked at.

    Attributes:
        url: Its URL, with the password.
        address: Its URL without.
        pool: Makes connections to it.
        info: What INFO says; empty if it is refused.
    """

    url: str
    address: str
    pool: redis.ConnectionPool
    info: dict[str, str] = field(default_factory=dict)

    @classmethod
    def at(cls, settings: Settings) -> Broker:
        """The one that the settings name, not connected yet."""
        scheme, _, rest = settings.broker_url.partition("?")[0].partition("://")
        pool = redis.ConnectionPool.from_url(
            settings.broker_url, protocol=2, socket_connect_timeout=ANSWERS_WITHIN, socket_timeout=ANSWERS_WITHIN,
            driver_info=None, retry=Retry(NoBackoff(), 0), client_name="crosshost-doctor",
        )  # fmt: skip
        return cls(settings.broker_url, f"{scheme}://{rest.rpartition('@')[2]}", pool)

    def ask(self, *command: Any) -> Any:
        """The reply to a command; an error reply is returned.

        Raises:
            redis.RedisError, OSError: There is none.
        """
        client = redis.Redis(connection_pool=self.pool)
        try:
            return client.execute_command(*command)  # type: ignore[no-untyped-call]
        except redis.ResponseError as exc:
            return exc

    def setting(self, name: str) -> str | None:
        """A setting of Redis's; None if the user may not ask."""
        reply = self.ask("CONFIG", "GET", name)
        return reply[1].decode(errors="replace") if isinstance(reply, list) and len(reply) == 2 else None

    def number(self, name: str) -> int:
        """A number of INFO; 0 if it is not there."""
        said = self.info.get(name, "")
        return int(said) if said.isdecimal() else 0

    @property
    def user(self) -> str:
        """Who this terminal is to Redis."""
        return unquote(urlsplit(self.url).username or "default")

    @property
    def here(self) -> bool:
        """Whether it runs on this machine, as far as its address says."""
        parts = urlsplit(self.url)
        return parts.scheme == "unix" or (parts.hostname or "localhost") in LOCAL


def look(settings: Settings) -> Iterator[Finding]:
    """All that can be found; if nobody answers, that alone."""
    broker = Broker.at(settings)
    try:
        if isinstance(reply := broker.ask("PING"), Exception):
            raise reply
    except (redis.RedisError, OSError) as exc:
        yield of_error(_unreachable(broker, exc), "Every command and program that needs the fleet ends with it.")
        return
    yield fine(f"Redis at {broker.address} answers" + (f", to user {broker.user}" if broker.user != "default" else ""))
    yield from all_of(CHECKS, broker)


def _unreachable(broker: Broker, exc: Exception) -> LabError:
    if isinstance(exc, redis.TimeoutError):
        exc = redis.TimeoutError(
            f"no answer within {ANSWERS_WITHIN:g} s; it hangs, or a firewall swallows what is sent"
        )
    return unreachable(broker.address, exc)


def version(broker: Broker) -> Iterator[Finding]:
    """The version of Redis, and what else INFO says."""
    # redis-py's own parser makes a dict of it, with the numbers converted
    reply = broker.ask("INFO")
    if isinstance(reply, Exception):
        yield note(f"User {broker.user} may not ask Redis how it is: {reply}",
                   "Whether it is full, and keeps what it is given, could not be looked at; nor can programs see that.",
                   f"In Redis: ACL SETUSER {broker.user} +info, as deploy/acl/producer says")  # fmt: skip
        return
    broker.info = {str(name): str(value) for name, value in reply.items()}
    name = "Valkey" if broker.info.get("server_name") == "valkey" else "Redis"
    said = broker.info.get("valkey_version" if name == "Valkey" else "redis_version", "0")
    if name == "Redis" and (numbers := tuple(int(part) for part in said.split(".")[:2] if part.isdecimal())):
        if numbers < OLDEST:
            yield wrong(
                f"Redis is {said}.", "Scripts of programs use commands that came with 6.2.", "Use Redis 7 or later"
            )
            return
        if numbers < FLAGS_OF_SCRIPTS:
            yield wrong(f"Redis is {said}.", "Scripts say by flags, which came with 7.0, that they may run without memory.",
                        "Use Redis 7 or later, or Valkey")  # fmt: skip
            return
    hours = broker.number("uptime_in_seconds") / 3600
    yield fine(f"it is {name} {said}, up for {hours:.1f} hours, with {broker.number('connected_clients')} connections")


def role(broker: Broker) -> Iterator[Finding]:
    """Whether it takes writes."""
    if broker.info.get("role") == "slave":
        yield wrong(f"Redis at {broker.address} is a replica.", "It takes no writes: READONLY.",
                    "Point CROSSHOST_BROKER_URL at its primary, "
                    f"{broker.info.get('master_host')}:{broker.info.get('master_port')}")  # fmt: skip
    elif broker.info.get("loading") == "1":
        yield wrong("Redis is still loading its file.", "Until then it refuses everything.", "Wait, and ask again")


def distance(broker: Broker) -> Iterator[Finding]:
    """How long a round trip takes."""
    times = []
    for _ in range(20):
        began = time.perf_counter()
        broker.ask("PING")
        times.append(time.perf_counter() - began)
    middle = sorted(times)[len(times) // 2]
    if middle > SLOW:
        yield note(f"A round trip to Redis takes {middle * 1000:.0f} ms.", "Each lock, item and call costs one at least.",
                   "Run programs nearer to it; what that changes: producer compare --rtt 50ms")  # fmt: skip
    else:
        yield fine(f"a round trip takes {middle * 1000:.2f} ms")


def rights(broker: Broker) -> Iterator[Finding]:
    """Whether the user may do what programs do."""
    connection = broker.pool.make_connection()
    try:
        missing = list(allowed.refused(connection))
    except allowed.NoTransactions as exc:
        why = "What is taken from Celery's queues is taken in transactions."
        if exc.forbidden:
            yield wrong(f"User {broker.user} may not do what programs do: MULTI is refused; of the rest nothing is"
                        " known.", why,
                        "Use the user that deploy/acl/producer describes, or in Redis: "
                        f"ACL SETUSER {broker.user} +multi +exec")  # fmt: skip
        else:
            yield note(f"What user {broker.user} may do is not known: MULTI is answered by {exc}.", why,
                       "Does something stand between here and Redis? Point CROSSHOST_BROKER_URL at Redis itself.",
                       )  # fmt: skip
        return
    if not missing:
        yield fine(f"user {broker.user} may do all that programs do")
        return
    some = "; ".join(f"{command} ({reply})" for command, reply in missing[:3])
    more = f"; and {len(missing) - 3} more" if len(missing) > 3 else ""
    yield wrong(f"User {broker.user} may not do {len(missing)} of {len(allowed.probes())} things that programs do:"
                f" {some}{more}",
                "A program ends where it comes to the first of them: Redis refuses the command.",
                "Use the user that deploy/acl/producer describes; after a new version: sh deploy/setup, then restart Redis.\n"
                f"What it may: ACL GETUSER {broker.user}, asked by an administrator")  # fmt: skip


def memory(broker: Broker) -> Iterator[Finding]:
    """How full Redis is, and what it does when it is."""
    if not broker.info:
        return
    used, most, policy = (
        broker.number("used_memory"),
        broker.number("maxmemory"),
        broker.info.get("maxmemory_policy", ""),
    )
    if policy not in ("", "noeviction"):
        how = wrong if most else note
        yield how(f"Redis throws keys away when its memory is full: maxmemory-policy is {policy}.",
                  "Then programs lose queues, results and locks, one by one, and end with KeyLost.",
                  "redis-cli CONFIG SET maxmemory-policy noeviction, and the same in its configuration")  # fmt: skip
    mb = f"{used / 1e6:.0f} MB"
    if not most:
        whole = broker.number("total_system_memory")
        if whole and used > NEARLY_FULL * whole:
            yield wrong(f"Redis holds {mb}, and its machine has {whole / 1e6:.0f} MB.",
                        "It has no bound (maxmemory 0), so the kernel ends it when memory is out, with all that it holds.",
                        "redis-cli CONFIG SET maxmemory 2gb; producer top shows who holds it")  # fmt: skip
        else:
            yield note(f"Redis holds {mb}, and may take all memory of its machine: maxmemory is 0.",
                       "Who sends faster than others take is held back by that bound alone in the end; without one the"
                       " kernel ends Redis.",
                       "redis-cli CONFIG SET maxmemory 2gb, and the same in its configuration")  # fmt: skip
    elif used > NEARLY_FULL * most:
        yield wrong(f"Redis is nearly full: {mb} of {most / 1e6:.0f} MB.",
                    "At the end what adds to it is refused, and programs wait, for CROSSHOST_OUTAGE seconds.",
                    "Have what lies there read: producer top shows queues; old jobs go by CROSSHOST_KEEP.\n"
                    "Or give it more: redis-cli CONFIG SET maxmemory 4gb")  # fmt: skip
    elif most < LITTLE:
        yield note(f"Redis may hold {most / 1e6:.0f} MB, and holds {mb}.",
                   "A pool's arguments and results, queues and shared objects lie there.",
                   "redis-cli CONFIG SET maxmemory 2gb; in containers: CROSSHOST_MEMORY=2g")  # fmt: skip
    else:
        yield fine(f"it holds {mb} of {most / 1e6:.0f} MB, and evicts nothing")


def persistence(broker: Broker) -> Iterator[Finding]:
    """Whether Redis keeps what it holds when it is started again."""
    if not broker.info:
        return
    for name, what in (("aof_last_write_status", "write to its append-only file"),
                       ("rdb_last_bgsave_status", "save its file")):  # fmt: skip
        if broker.info.get(name, "ok") != "ok":
            yield wrong(f"Redis could not {what}: {name} is {broker.info[name]}.",
                        "It refuses writes meanwhile (MISCONF), or loses what it holds at its end.",
                        "Look at its log, and at the space that its disk has: redis-cli CONFIG GET dir")  # fmt: skip
    if broker.info.get("aof_enabled") == "1":
        how = broker.setting("appendfsync")
        yield fine("it writes an append-only file" + (f", appendfsync {how}" if how else ""))
        return
    saves = broker.setting("save")
    snapshots = (
        "it saves snapshots alone" if saves else "it keeps nothing" if saves == "" else "it has no append-only file"
    )
    yield note(f"Redis does not keep all that it is given: {snapshots}.",
               "If it is started again, programs that run and jobs that wait end, or lose the last minutes.",
               "redis-cli CONFIG SET appendonly yes, and the same in its configuration; here: producer fleet --durable",
               )  # fmt: skip


def overcommit(broker: Broker) -> Iterator[Finding]:
    """Whether the kernel lets Redis fork while it writes its file."""
    if not broker.here or broker.info.get("aof_enabled") != "1":
        return
    try:
        with open("/proc/sys/vm/overcommit_memory") as file:
            mode = file.read().strip()
    except OSError:
        return
    if mode != "1":
        yield note(f"vm.overcommit_memory is {mode} on this machine.",
                   "Redis forks to write its file anew; with much in memory the kernel may refuse that.",
                   "sudo sysctl vm.overcommit_memory=1")  # fmt: skip


def encryption(broker: Broker) -> Iterator[Finding]:
    """Whether somebody on the way can read along."""
    if broker.here or broker.url.startswith("rediss://"):
        return
    yield note(f"Redis at {broker.address} is reached without TLS.",
               "Payloads are sealed all the same; but the password, names of keys and shared numbers are seen on the way.",
               "docs/containers.md says how to have TLS; then: rediss:// and CROSSHOST_CA_FILE")  # fmt: skip


def password(broker: Broker) -> Iterator[Finding]:
    """Whether anybody may use a Redis that others reach."""
    if not broker.here and not urlsplit(broker.url).password:
        yield wrong(f"Redis at {broker.address} asks for no password.",
                    "Whoever reaches it can stop the fleet, and read what is not sealed.",
                    "Give it users: sh deploy/setup makes passwords and rules (deploy/acl)")  # fmt: skip


def clock(broker: Broker) -> Iterator[Finding]:
    """Whether this machine's clock and Redis's agree."""
    before = time.time()
    reply = broker.ask("TIME")
    after = time.time()
    if isinstance(reply, Exception):
        return  # named among what is refused
    seconds, micros = (int(part) for part in reply)
    theirs = seconds + micros / 1e6
    ahead = before - theirs if theirs < before else after - theirs if theirs > after else 0.0
    yield from apart("This machine's clock", ahead)


def apart(whose: str, ahead: float) -> Iterator[Finding]:
    """What it means that a clock is so many seconds ahead of Redis's, or behind it."""
    said = f"{whose} is {abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} Redis's"
    if abs(ahead) < CLOCK_NOTED:
        yield fine(said if abs(ahead) > 0.1 else f"{whose[0].lower() + whose[1:]} agrees with Redis's")
    elif abs(ahead) < FRESH:
        yield note(f"{said}.", "Leases go by Redis's clock alone; but times in traces, logs and jobs do not fit together.",
                   "timedatectl set-ntp true, on the machine whose clock is wrong")  # fmt: skip
    else:
        yield wrong(f"{said}.", f"Commands to hosts are signed with the time, and refused after {FRESH:.0f} s: hosts do not"
                    " answer pings, jobs cannot be cancelled.",
                    "timedatectl set-ntp true, on the machine whose clock is wrong")  # fmt: skip


CHECKS: list[Check] = [
    version, role, distance, rights, memory, persistence, overcommit, encryption, password, clock,
]  # fmt: skip
