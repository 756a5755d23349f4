"""One run as a watcher sees it."""

from __future__ import annotations

import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from lab.errors import WrongKey
from lab.settings import Settings
from lab.store import wire
from lab.store.run import ROOT, ROOT_LEASES
from lab.watching.functions import function_of
from lab.watching.reader import Reader
from lab.watching.state import Lock, Pool, Process, Queue, Run, Waiter

SLICE = 500
"""Names of keys that one look reads."""
FIRST_SLICES = 20
"""The first look reads more of them, so that a single look sees most programs whole."""
MOST = 500
"""Processes, and keys of each kind, that are looked at."""
MOST_WAITERS = 100

RUNS, IN_CALL, IDLE = "runs", "in a call", "waits for a call"
WAITS, NOTIFIED, FULL = "waits for", "waits to be notified", "waits for room in"

_NUMBER = struct.Struct(">Q")


@dataclass(frozen=True)
class _Facts:
    """What does not change of a process."""

    pid: int
    since: int | None
    parent: str
    name: str


class Program:
    """Looks at one run, and remembers what it saw first when.

    Args:
        reader: Redis.
        settings: The fleet's.
        run_id: The run.
    """

    def __init__(self, reader: Reader, settings: Settings, run_id: str) -> None:
        self._reader, self._id, self._lease = reader, run_id, settings.lease
        self._base = f"crosshost:{{{run_id}}}:"
        self._keys = wire.Keys(settings.keyring, f"run {run_id}") if settings.authkey else None
        self._cursor, self._names, self._round = "0", set[str](), set[str]()
        self._complete = False
        self._facts: dict[str, _Facts] = {}
        self._owned: dict[str, bool] = {}
        self._seen: dict[tuple[Any, ...], int] = {}
        self._seen_now: dict[tuple[Any, ...], int] = {}
        self._handed_out: dict[str, tuple[int, int]] = {}
        self._now = 0

    def look(self, now: int, hosts: dict[str, str]) -> Run | None:
        """What there is now; None if the run is over.

        Args:
            now: Redis's clock.
            hosts: Of its processes, by id.
        """
        self._now, self._seen_now = now, {}
        leases = self._leases()
        if not leases:
            return None
        self._read_names()
        locks = self._locks() + self._conditions()
        queues = self._queues()
        pools, calls = self._pools()
        processes = self._processes(leases, hosts, locks, queues, calls)
        self._seen = self._seen_now
        return Run(self._id, processes, locks, queues, pools, self._complete)

    def _since(self, *what: Any) -> int:
        """When this was seen first, without a break."""
        self._seen_now[what] = since = self._seen.get(what, self._now)
        return since

    def _key(self, name: str) -> str:
        return self._base + name

    def _leases(self) -> dict[str, float]:
        """Seconds that are left of each lease."""
        bounds = ("-inf", "+inf", "WITHSCORES", "LIMIT", 0, MOST)
        flat = self._reader.call("ZRANGEBYSCORE", self._key("processes"), *bounds)
        ids = [each.decode() for each in flat[::2]]
        return {name: (float(at) - self._now) / 1000 for name, at in zip(ids, flat[1::2], strict=True)}

    # --- what there is

    def _read_names(self) -> None:
        for _ in range(1 if self._names or self._complete else FIRST_SLICES):
            cursor, names = self._reader.call("SSCAN", self._key("keys"), self._cursor, "COUNT", SLICE)
            self._cursor = cursor.decode()
            self._round |= {name.decode().removeprefix(self._base) for name in names if _matters(name, self._base)}
            if self._cursor == "0":
                self._names, self._round, self._complete = self._round, set(), True
                return
        self._names |= self._round

    def _of(self, kind: str) -> list[str]:
        """The names of one kind, in their order."""
        found = [name for name in self._names if name.startswith(f"{kind}:")]
        self._complete = self._complete and len(found) <= MOST
        return sorted(found, key=_by_number)[:MOST]

    def _locks(self) -> list[Lock]:
        names = self._of("sem")
        new = [name for name in names if name not in self._owned]
        replies = self._ask([("HMGET", self._key(name), "value", "holder") for name in names]
                            + [("ZSCORE", self._key("locks"), self._key(name)) for name in new])  # fmt: skip
        self._owned |= {name: score is not None for name, score in zip(new, replies[len(names) :], strict=True)}
        states = dict(zip(names, replies, strict=False))
        used = [name for name in names if states[name][0] is not None]
        taken = [name for name in used if int(states[name][0]) == 0]
        lists = self._ask([("LRANGE", self._key(f"{name}:waiters"), 0, MOST_WAITERS - 1) for name in taken])
        waiting = dict(zip(taken, lists, strict=True))
        locks = []
        for name in used:
            value, ticket = int(states[name][0]), (states[name][1] or b"").decode()
            owned = self._owned[name]
            held = owned and value == 0
            locks.append(
                Lock(
                    name=name,
                    kind="lock" if owned else "semaphore",
                    value=value,
                    holder=ticket.partition("/")[0] if held else "",
                    ticket=ticket if held else "",
                    since=self._since("held", name, ticket) if held else None,
                    waiters=self._waiters(name, waiting.get(name, [])),
                )
            )
        return locks

    def _conditions(self) -> list[Lock]:
        names = self._of("condition")
        lists = self._ask([("LRANGE", self._key(name), 0, MOST_WAITERS - 1) for name in names])
        return [
            Lock(name, "condition", None, "", "", None, self._waiters(name, tickets))
            for name, tickets in zip(names, lists, strict=True)
            if tickets
        ]

    def _waiters(self, name: str, tickets: list[bytes]) -> list[Waiter]:
        texts = [ticket.decode() for ticket in tickets]
        return [Waiter(text.partition("/")[0], text, self._since("waits", name, text)) for text in texts]

    def _queues(self) -> list[Queue]:
        names = [name for name in self._of("queue") if name.count(":") == 1]
        names += [name for name in self._of("pipe") if name.endswith((":a", ":b"))]
        lengths = dict(zip(names, self._ask([("LLEN", self._key(name)) for name in names]), strict=True))
        filled = [name for name in names if lengths[name]]
        heads = dict(zip(filled, self._ask([("LINDEX", self._key(name), 0) for name in filled]), strict=True))
        full = [name for name in filled if f"{name}:room:waiters" in self._names]
        bounds = ("-inf", "+inf", "LIMIT", 0, MOST_WAITERS)
        lists = self._ask([("ZRANGEBYSCORE", self._key(f"{name}:room:waiters"), *bounds) for name in full])
        senders = {name: self._waiters(name, tickets) for name, tickets in zip(full, lists, strict=True)}
        return [
            Queue(
                name,
                lengths[name],
                self._since("first", name, hash(heads[name])) if heads.get(name) else None,
                senders.get(name, []),
            )
            for name in names
            if name.startswith("queue:") or lengths[name]
        ]

    def _pools(self) -> tuple[list[Pool], dict[str, tuple[str, bytes | None]]]:
        """The pools; and for each of their workers its pool and the call that it is in."""
        parts = [name for name in self._of("pool") if name.count(":") >= 2]
        names = [part.removesuffix(":calls") for part in parts if part.endswith(":calls")]
        workers = [part for part in parts if ":taken:" in part]
        numbers = self._ask([command for name in names for command in (
            ("LLEN", self._key(f"{name}:calls")), ("BITCOUNT", self._key(f"{name}:seen")),
            ("LLEN", self._key(f"{name}:results")), ("HMGET", self._key(f"{name}:deaths"), "put back"))])  # fmt: skip
        taken = self._ask([command for part in workers for command in (
            ("LLEN", self._key(part)), ("LINDEX", self._key(part), 0))])  # fmt: skip
        counts, calls = dict[str, dict[str, int]](), dict[str, tuple[str, bytes | None]]()
        for part, length, call in zip(workers, taken[::2], taken[1::2], strict=True):
            pool, _, process = part.partition(":taken:")
            counts.setdefault(pool, {})[process] = length
            calls[process] = (pool, call)
        pools = []
        for at, name in enumerate(names):
            waiting, handed_out, answers, again = numbers[4 * at : 4 * at + 4]
            rate = self._rate(name, handed_out)
            pools.append(Pool(name, waiting, counts.get(name, {}), handed_out, rate, answers, int(again[0] or 0)))
        return pools, calls

    def _rate(self, pool: str, handed_out: int) -> float | None:
        before, self._handed_out[pool] = self._handed_out.get(pool), (self._now, handed_out)
        if before is None or before[0] >= self._now:
            return None
        return max(0.0, (handed_out - before[1]) * 1000 / (self._now - before[0]))

    # --- who does what

    def _processes(
        self,
        leases: dict[str, float],
        hosts: dict[str, str],
        locks: list[Lock],
        queues: list[Queue],
        calls: dict[str, tuple[str, bytes | None]],
    ) -> list[Process]:
        self._learn([name for name in leases if name != ROOT and name not in self._facts])
        waits = {waiter.process: (FULL, queue.name, waiter) for queue in queues for waiter in queue.senders}
        for lock in locks:
            what = NOTIFIED if lock.kind == "condition" else f"{WAITS} a {lock.kind}"
            waits |= {waiter.process: (what, lock.name, waiter) for waiter in lock.waiters}
        processes = []
        for name, left in leases.items():
            facts = self._facts.get(name, _Facts(0, None, "", "MainProcess" if name == ROOT else ""))
            lease = self._lease * (ROOT_LEASES if name == ROOT else 1)
            silent = lease - left if lease - left > lease / 2 else 0.0
            doing: dict[str, Any] = {"doing": RUNS, "doing_since": facts.since}
            if name in waits:
                what, on, waiter = waits[name]
                doing = {"doing": what, "on": on, "doing_since": waiter.since}
            elif name in calls:
                doing = self._in_pool(name, *calls[name])
            processes.append(
                Process(name, facts.name, hosts.get(name, ""), facts.pid, facts.parent, facts.since, round(left, 3),
                        round(silent, 3), **doing)
            )  # fmt: skip
        return sorted(processes, key=lambda each: (each.id != ROOT, each.since or 0, each.id))

    def _in_pool(self, process: str, pool: str, call: bytes | None) -> dict[str, Any]:
        if call is None or len(call) < wire.HEAD_SIZE + _NUMBER.size:
            return {"doing": IDLE, "on": pool, "doing_since": self._since(IDLE, process, pool)}
        (number,) = _NUMBER.unpack_from(call, wire.HEAD_SIZE)
        function = ""
        if self._keys is not None and not wire.is_ticket(call):
            with suppress(WrongKey):
                function = function_of(self._keys.unseal(self._key(f"{pool}:calls"), call))
        return {"doing": IN_CALL, "on": pool, "call": number, "function": function,
                "doing_since": self._since(IN_CALL, process, pool, number)}  # fmt: skip

    def _learn(self, ids: list[str]) -> None:
        hashes = self._ask([("HMGET", self._key(f"process:{name}"), "pid", "since", "parent", "name") for name in ids])
        for name, (pid, since, parent, sealed) in zip(ids, hashes, strict=True):
            if pid is not None:  # else it has yet to begin
                parent_id = (parent or b"").decode().rpartition(":")[2]
                self._facts[name] = _Facts(int(pid), int(since), parent_id, self._open_name(name, sealed))

    def _open_name(self, process: str, sealed: bytes) -> str:
        if self._keys is not None:
            with suppress(WrongKey):
                return bytes(self._keys.unseal(f"{self._key(f'process:{process}')}:name", sealed)).decode()
        return ""

    def _ask(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        return self._reader.pipeline(commands) if commands else []


def _matters(name: bytes, base: str) -> bool:
    kind = name[len(base) :].partition(b":")[0]
    if kind in (b"queue", b"pipe") and name.endswith(b":room:waiters"):
        return True
    known = kind in (b"sem", b"condition", b"queue", b"pipe", b"pool")
    return known and not name.endswith((b":room", b":waiters", b":holders", b":watchers")) and b":swept:" not in name


def _by_number(name: str) -> tuple[str, int, str]:
    """sem:root-9 before sem:root-10."""
    head, _, number = name.rpartition("-")
    return (head, int(number), "") if number.isdecimal() else (head, 0, number)
