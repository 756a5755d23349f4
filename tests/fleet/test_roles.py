"""What each Redis user of deploy/acl may do to a fleet, command by command: what somebody can who has one role's password.

The table is what SECURITY.md says of the roles. Redis itself is asked (ACL DRYRUN), so nothing is changed by asking.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from lab.store import script
from lab.store.run import MAIL
from tests import ROOT
from tests.kit.server import Server

RUN = "crosshost:{0123456789ab}:"
CELERY = "crosshost:celery:"
NOBODY: tuple[str, ...] = ()
WORKER, PRODUCER, BOTH = ("worker",), ("producer",), ("producer", "worker")
ALL = ("monitor", "producer", "worker")

MAY: dict[str, tuple[tuple[str, ...], list[list[str]]]] = {
    # what is done: who may, and how it is tried
    "send a start, or a forged one": (BOTH, [["LPUSH", f"{CELERY}processes", "x"]]),
    "send a job, or a forged one": (BOTH, [["LPUSH", f"{CELERY}{queue}", "x"] for queue in ("jobs", "jobs.long")]),
    "send with a priority": (BOTH, [["LPUSH", f"{CELERY}jobs\x06\x163", "x"]]),
    "take what waits in a queue, or delete it": (
        WORKER,
        [
            [*command[:1], f"{CELERY}{queue}", *command[1:]]
            for queue in ("processes", "jobs", "jobs.long")
            for command in (["RPOP"], ["LPOP"], ["DEL"], ["UNLINK"], ["LTRIM", "1", "0"], ["LREM", "0", "x"],
                            ["BRPOP", "1"], ["RPUSH", "x"], ["RENAME", f"{RUN}x"], ["SET", "x"], ["PEXPIRE", "1"])
        ],
    ),
    "read what waits in a queue": (("monitor", "worker"), [["LLEN", f"{CELERY}processes:held"]]),
    "read the messages in a queue": (WORKER, [["LRANGE", f"{CELERY}processes", "0", "-1"]]),
    "see how long a queue is": (ALL, [["LLEN", f"{CELERY}processes"], ["LLEN", f"{CELERY}jobs"]]),
    "touch what is on loan": (
        WORKER,
        [["HSET", f"{CELERY}processes:held", "x", "x"], ["DEL", f"{CELERY}processes:leases"],
         ["ZADD", f"{CELERY}leases", "1", "x"]],
    ),
    "write a dead letter": (WORKER, [["LPUSH", f"{CELERY}dead", "x"], ["SET", f"{CELERY}dead", "x"]]),
    "read and clear dead letters": (BOTH, [["LRANGE", f"{CELERY}dead", "0", "-1"], ["LTRIM", f"{CELERY}dead", "0", "-2"]]),
    "ask workers by remote control, which obey what the key has signed": (
        ALL, [["PUBLISH", f"{CELERY}/0.celery.pidbox", "x"]],
    ),
    "publish Celery's events": (("monitor", "worker"), [["PUBLISH", f"{CELERY}/0.celeryev/worker.online", "x"]]),
    "publish or hear anything else": (NOBODY, [["PUBLISH", "x", "x"], ["SUBSCRIBE", "x"], ["PSUBSCRIBE", "*"]]),
    "hear remote control": (("monitor", "worker"), [["SUBSCRIBE", f"{CELERY}/0.celery.pidbox"]]),
    "push calls, items and mail of a run": (
        BOTH,
        [["LPUSH", f"{RUN}pool:root-1:calls", "x"], ["RPUSH", f"{RUN}mail:root", "x"], ["SETBIT", f"{RUN}x:seen", "1", "1"]],
    ),
    "overwrite what a run has": (
        BOTH,
        [["SET", f"{RUN}calls:root", "x"], ["DEL", f"{RUN}pool:root-1:calls"], ["SETRANGE", f"{RUN}memory:1", "0", "x"]],
    ),
    "read what a run has": (BOTH, [["LRANGE", f"{RUN}mail:root", "0", "-1"], ["GET", f"{RUN}luggage:1"]]),
    "see how much a run has": (ALL, [["LLEN", f"{RUN}mail:root"]]),
    "invent a host, or delete one": (
        WORKER, [["HSET", "crosshost:host:x", "slots", "1"], ["SADD", "crosshost:hosts", "x"], ["DEL", "crosshost:host:x"]],
    ),
    "see the hosts": (BOTH, [["HGETALL", "crosshost:host:x"]]),
    "see the hosts' names": (ALL, [["SMEMBERS", "crosshost:hosts"]]),
    "write a job's record, or cancel it": (BOTH, [["HSET", "crosshost:job:1", "state", "x"], ["DEL", "crosshost:job:1"]]),
    "read a job's result": (BOTH, [["GET", "crosshost:result:celery-task-meta-1"]]),
    "write a job's result": (
        WORKER, [["SET", "crosshost:result:celery-task-meta-1", "x"], ["DEL", "crosshost:result:celery-task-meta-1"]],
    ),
    "end others' connections": (BOTH, [["CLIENT", "KILL", "ID", "1"], ["CLIENT", "LIST"]]),
    "name its own connection": (ALL, [["CLIENT", "SETNAME", "x"]]),
    "touch what is not Crosshost's": (
        NOBODY, [["GET", "x"], ["SET", "x", "x"], ["DEL", "x"], ["LPUSH", "celery", "x"], ["EVAL", "return 1", "1", "x"]],
    ),
    "find keys": (NOBODY, [["KEYS", "*"], ["SCAN", "0"], ["RANDOMKEY"], ["DBSIZE"]]),
    "administer Redis": (
        NOBODY,
        [
            command.split()
            for command in (
                "CONFIG SET maxmemory 1|CONFIG GET *|FLUSHALL|FLUSHDB|SHUTDOWN|DEBUG SLEEP 1|ACL SETUSER x|ACL LIST|MONITOR|"
                "SLAVEOF x 1|REPLICAOF x 1|FAILOVER|PSYNC x 1|SYNC|CLUSTER RESET|MODULE LOAD x|FUNCTION LOAD x|SCRIPT FLUSH|"
                "SCRIPT KILL|SAVE|BGSAVE|BGREWRITEAOF|CLIENT PAUSE 1000|CLIENT NO-EVICT on|CLIENT TRACKING on|SLOWLOG GET|"
                "SWAPDB 0 1|LATENCY RESET|MEMORY PURGE|MIGRATE x 1 RUN 0 1|DUMP RUN|RESTORE RUN 0 x|MOVE RUN 1|COPY RUN RUN|"
                "SORT RUN|OBJECT FREQ RUN|PERSIST RUN"
            ).replace("RUN", f"{RUN}x").split("|")
        ],
    ),
    "read Redis's figures": (ALL, [["INFO"]]),  # a program and a worker must know how much memory is left
}  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("roles")
    users = ["user default off", "user admin on >admin ~* &* +@all"]
    for role in ALL:
        text = re.sub("#.*", "", (ROOT / "deploy/acl" / role).read_text())
        users.append(f"user {role} on >{role} " + " ".join(text.split()))
    (folder / "acl").write_text("\n".join(users) + "\n")
    with Server(folder, "--aclfile", str(folder / "acl"), login="admin:admin@") as server:
        yield server


@pytest.mark.parametrize("role", ALL)
@pytest.mark.parametrize("what", MAY)
def test_a_role_may_do_this_or_not(role: str, what: str, server: Server) -> None:
    who, commands = MAY[what]
    allowed = {" ".join(command): server.client.execute_command("ACL", "DRYRUN", role, *command) in (b"OK", True)
               for command in commands}  # fmt: skip
    assert allowed == dict.fromkeys(allowed, role in who)


@pytest.mark.parametrize("role", ALL)
def test_nobody_comes_in_without_a_password_or_as_the_default_user(role: str, server: Server, tmp_path: Path) -> None:
    for login in ("", f"{role}:x@", "default:@", f"{role}:@"):
        client: Any = redis.Redis.from_url(f"unix://{login}{server.socket}")
        with pytest.raises((redis.AuthenticationError, redis.exceptions.NoPermissionError)):
            client.ping()


@pytest.mark.parametrize(
    "key", ["x", f"{CELERY}processes", f"{CELERY}dead", "crosshost:host:x", "crosshost:result:celery-task-meta-1"]
)
def test_a_script_may_do_no_more_than_the_role_that_runs_it(key: str, server: Server) -> None:
    producer: Any = redis.Redis.from_url(f"unix://producer:producer@{server.socket}")
    for declared in ([key], []):
        text = f"return redis.call('DEL', '{key}')"
        with pytest.raises((redis.exceptions.NoPermissionError, redis.ResponseError), match=r"(?i)permission|NOPERM"):
            producer.eval(text, len(declared), *declared)
    assert producer.eval("return redis.call('SET', KEYS[1], 'x', 'PX', 1000)", 1, f"{RUN}x") == b"OK"


def test_the_scripts_of_a_run_work_for_a_role_that_may_run_them(server: Server) -> None:
    assert MAIL in script.SCRIPTS
    for role in BOTH:
        client: Any = redis.Redis.from_url(f"unix://{role}:{role}@{server.socket}")
        assert client.script_load(MAIL.text)
    monitor: Any = redis.Redis.from_url(f"unix://monitor:monitor@{server.socket}")
    with pytest.raises(redis.exceptions.NoPermissionError):
        monitor.evalsha(MAIL.sha, 3, f"{RUN}processes", f"{RUN}journal:x", f"{RUN}mail:root", "x", 1000, "x", "x", 1)
