"""Forged, altered, replayed and undecodable payloads: none is executed, the worker lives, the next call is served."""

from __future__ import annotations

import json
import os
import pickle
import re
import struct
import subprocess
import sys
from dataclasses import replace
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import pytest
import redis

from lab.cluster import sharedctypes
from lab.cluster.failure import ForeignError
from lab.cluster.pool import pending
from lab.cluster.process import Popen
from lab.fleet.engine import PROCESS_QUEUE, PROCESS_TASK
from lab.keyring import Keyring
from lab.store import wire
from lab.store.script import SCRIPTS
from tests.cluster import cluster_targets as targets
from tests.cluster import watch_targets
from tests.kit import variables
from tests.kit.wait import until

OTHER_KEY = b"some other fleet's key"


@pytest.fixture
def intruder(cluster: Any) -> redis.Redis:
    """A client of the same Redis that does not hold the authkey."""
    cluster.connect()
    return redis.Redis.from_url(cluster.settings.broker_url)


def plant(cluster: Any, intruder: redis.Redis, process_id: str, payload: bytes) -> None:
    """Put a process into Redis as the context does, and have Celery start it."""
    run = cluster.connect()
    intruder.hset(run.key("process", process_id), mapping={"payload": payload, "parent": run.key("mail", "intruder")})
    cluster.app.send_task(PROCESS_TASK, [run.id, process_id], queue=PROCESS_QUEUE, ignore_result=True)


def ended(cluster: Any, intruder: redis.Redis) -> None:
    """Wait until the planted process is reported as ended."""
    run = cluster.connect()
    mailbox = run.key("mail", "intruder")
    while True:
        mail: Any = intruder.blpop([mailbox], timeout=10)
        assert mail, "the end was not reported"
        if json.loads(bytes(run.unseal(mailbox, mail[1])))["event"] == "exit":
            return


def foreign_keys(cluster: Any) -> wire.Keys:
    """What somebody has who knows all but the key."""
    return wire.Keys(Keyring(OTHER_KEY), f"run {cluster.connect().id}")


def next_call_is_served(cluster: Any) -> None:
    process = cluster.Process(target=targets.nothing)
    process.start()
    process.join(10)
    assert process.exitcode == 0


def evil_process(cluster: Any, path: Path, age_ms: int = 0) -> bytes:
    """A packed process, sound in every respect, that writes a file as soon as it is unpickled."""
    prepare = {"name": "x", "sys_path": [os.getcwd(), *sys.path]}
    issued = cluster.connect().server_ms() - age_ms
    head = json.dumps(
        {"issued": issued, "python": list(sys.version_info[:2]), "prepare": prepare, "authkey": b"any".hex()}
    ).encode()
    return struct.pack(">I", len(head)) + head + pickle.dumps(targets.Evil(str(path)))


def test_a_forged_process_is_refused_unread(cluster: Any, intruder: redis.Redis, tmp_path: Path) -> None:
    key = cluster.connect().key("process", "forged")
    plant(cluster, intruder, "forged", foreign_keys(cluster).seal(key, evil_process(cluster, tmp_path / "evil")))
    ended(cluster, intruder)
    assert not (tmp_path / "evil").exists()
    next_call_is_served(cluster)


def test_a_process_sealed_for_another_id_is_refused(cluster: Any, intruder: redis.Redis, tmp_path: Path) -> None:
    run = cluster.connect()
    moved = run.seal(run.key("process", "one"), evil_process(cluster, tmp_path / "evil"))
    plant(cluster, intruder, "another", moved)
    ended(cluster, intruder)
    assert not (tmp_path / "evil").exists()


def test_an_old_payload_is_refused_although_it_is_sealed(cluster: Any, intruder: redis.Redis, tmp_path: Path) -> None:
    run = cluster.connect()
    payload = evil_process(cluster, tmp_path / "evil", age_ms=3_600_000)
    plant(cluster, intruder, "old", run.seal(run.key("process", "old"), payload))
    ended(cluster, intruder)
    assert not (tmp_path / "evil").exists()


def test_the_forgery_would_have_worked_with_the_key(cluster: Any, intruder: redis.Redis, tmp_path: Path) -> None:
    # what the tests above prove rests on this: the planted process is sound but for its seal
    run = cluster.connect()
    payload = evil_process(cluster, tmp_path / "evil")
    plant(cluster, intruder, "sound", run.seal(run.key("process", "sound"), payload))
    ended(cluster, intruder)
    assert (tmp_path / "evil").exists()


def test_a_replayed_process_runs_once(cluster: Any, intruder: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    run, value, seen = cluster.connect(), cluster.Value("i", 0), dict[str, Any]()
    send = Popen._send_message

    def recorded(popen: Popen) -> None:
        seen.update(id=popen.process_id, payload=intruder.hget(run.key("process", popen.process_id), "payload"))
        send(popen)

    monkeypatch.setattr(Popen, "_send_message", recorded)
    process = cluster.Process(target=targets.add, args=(value, 1))
    process.start()
    process.join(10)
    monkeypatch.undo()
    assert value.value == 1
    plant(cluster, intruder, seen["id"], seen["payload"])
    until(lambda: not intruder.hexists(run.key("process", seen["id"]), "payload"), "a slot has looked at the copy", 10)
    next_call_is_served(cluster)
    assert value.value == 1


@pytest.mark.parametrize("role", ["producer", "worker"])
def test_a_role_may_run_every_command_of_the_scripts(role: str) -> None:
    allowed = Path(f"deploy/acl/{role}").read_text()
    used = {name.lower() for script in SCRIPTS for name in re.findall(r"redis\.call\('([A-Z]+)'", script.text)}
    assert pending.RECOVER in SCRIPTS
    assert sharedctypes.ADD_ONCE in SCRIPTS
    used.discard("incr")  # in a script of tests/store/test_outage.py
    assert [name for name in sorted(used) if not re.search(rf"\+{name}\b", allowed)] == []


def test_celery_refuses_a_pickled_message(cluster: Any, intruder: redis.Redis, tmp_path: Path) -> None:
    from kombu.serialization import enable_insecure_serializers

    enable_insecure_serializers(["pickle"])  # on the intruder's side
    evil = targets.Evil(str(tmp_path / "evil"))
    cluster.app.send_task(PROCESS_TASK, [evil, "x"], queue=PROCESS_QUEUE, serializer="pickle", ignore_result=True)
    until(lambda: not intruder.llen(f"crosshost:celery:{PROCESS_QUEUE}"), "a worker has taken the message", 10)
    next_call_is_served(cluster)
    assert not (tmp_path / "evil").exists()


def test_an_altered_or_foreign_queue_message_is_thrown_away(
    cluster: Any, intruder: redis.Redis, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    queue, other = cluster.Queue(), cluster.Queue()
    evil = bytes(ForkingPickler.dumps(targets.Evil(str(tmp_path / "evil"))))
    other.put("for the other queue")
    until(lambda: intruder.llen(other._channel.key), "the item is in Redis", 10)
    foreign: Any = intruder.lindex(other._channel.key, 0)
    altered = bytes(foreign[:-1]) + b"!"
    forged = foreign_keys(cluster).seal(queue._channel.key, evil)
    intruder.rpush(queue._channel.key, b"short", forged, foreign, altered)
    queue.put("mine")
    assert queue.get(timeout=5) == "mine"
    assert not (tmp_path / "evil").exists()
    assert capsys.readouterr().err.count("was refused unread") == 4


def test_a_forged_pipe_message_is_thrown_away(cluster: Any, intruder: redis.Redis, tmp_path: Path) -> None:
    here, there = cluster.Pipe()
    evil = bytes(ForkingPickler.dumps(targets.Evil(str(tmp_path / "evil"))))
    intruder.rpush(there._inbox, foreign_keys(cluster).seal(there._inbox, evil))
    here.send("mine")
    assert there.recv() == "mine"
    assert not (tmp_path / "evil").exists()


def test_a_pool_refuses_a_forged_call_and_serves_the_next(cluster: Any, intruder: redis.Redis, tmp_path: Path) -> None:
    with cluster.Pool(2) as pool:
        calls = pool._calls.key("calls")
        task: Any = (0, 0, targets.write_file, (str(tmp_path / "evil"),), {})
        forged = foreign_keys(cluster).seal(calls, ForkingPickler.dumps(task), clear=struct.pack(">Q", 10))
        intruder.rpush(calls, forged, b"\0" * 3, b"\0" * 100)
        assert pool.map(targets.echo, range(20), 1) == list(range(20))
        assert not (tmp_path / "evil").exists()


def test_a_pool_runs_a_replayed_call_once(cluster: Any, intruder: redis.Redis) -> None:
    value = cluster.Value("i", 0)
    with cluster.Pool(2, targets.use_flag, (value,)) as pool:
        gate = pool.map_async(targets.sleep_for, [0.3, 0.3], 1)
        result = pool.apply_async(targets.count_and_echo, ("x",))
        calls = pool._calls.key("calls")
        until(lambda: intruder.llen(calls), "the call waits in Redis", 10)
        copy: Any = intruder.lindex(calls, -1)
        intruder.rpush(calls, copy, copy)
        assert result.get(10) == "x"
        gate.get(10)
        intruder.rpush(calls, copy)
        until(lambda: not intruder.llen(calls), "the copies are taken", 10)
        assert pool.apply(targets.echo, ("next",)) == "next"
        assert value.value == 1


def test_a_call_that_does_not_load_costs_its_own_caller_an_error(cluster: Any) -> None:
    with cluster.Pool(2) as pool:
        results = [pool.apply_async(targets.echo, (i if i != 3 else targets.Unloadable(),)) for i in range(8)]
        with pytest.raises(ValueError, match="made to fail while loading"):
            results[3].get(10)
        assert [r.get(10) for i, r in enumerate(results) if i != 3] == [0, 1, 2, 4, 5, 6, 7]


def test_a_result_that_does_not_load_costs_its_own_caller_an_error(cluster: Any) -> None:
    with cluster.Pool(1) as pool:
        with pytest.raises(ForeignError, match="made to fail while loading"):
            pool.apply_async(targets.make_unloadable, (1,)).get(10)
        assert pool.apply(targets.echo, (2,)) == 2


def test_a_process_that_does_not_load_ends_with_1_and_says_why(
    cluster: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    process = cluster.Process(target=targets.echo, args=(targets.Unloadable(),))
    process.start()
    process.join(10)
    assert process.exitcode == 1
    assert "made to fail while loading" in capsys.readouterr().err
    next_call_is_served(cluster)


def test_the_stdlib_key_of_a_program_is_not_readable_in_redis(
    cluster: Any, intruder: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, send, payloads = cluster.connect(), Popen._send_message, list[Any]()

    def recorded(popen: Popen) -> None:
        payloads.append(intruder.hget(run.key("process", popen.process_id), "payload"))
        send(popen)

    monkeypatch.setattr(Popen, "_send_message", recorded)
    process = cluster.Process(target=targets.nothing)
    process.start()
    process.join(10)
    assert payloads
    key = bytes(process.authkey)
    assert key not in payloads[0]
    assert key.hex().encode() not in payloads[0]


def test_a_child_has_the_stdlib_key_of_its_parent_or_the_one_set_for_it(cluster: Any) -> None:
    reply = cluster.Queue()
    for key in (bytes(cluster.current_process().authkey), b"a key of another length " * 4, b"k"):
        process = cluster.Process(target=watch_targets.tell_key, args=(reply,))
        process.authkey = key
        process.start()
        assert reply.get(timeout=20) == key
        process.join(10)


def test_a_worker_without_a_key_refuses_to_start(cluster: Any) -> None:
    cluster.connect()
    env = {**variables.unset(), "CROSSHOST_BROKER_URL": cluster.settings.broker_url}
    done = subprocess.run([sys.executable, "-m", "worker"], env=env, capture_output=True, text=True, timeout=30)
    assert done.returncode == 3
    assert "no authkey" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_program_with_the_wrong_key_is_told_at_once(cluster: Any) -> None:
    cluster.connect()
    env = variables.leading_to(replace(cluster.settings, authkey=b"x" * 32))
    code = "import lab\nctx = lab.get_context('cluster')\ntry: ctx.connect()\nexcept Exception as e: print(type(e).__name__)"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=30)
    assert done.stdout.strip() == "WrongKey", done.stderr
