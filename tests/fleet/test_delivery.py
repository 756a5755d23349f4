"""Delivery in our own fleet: what becomes of starts that are refused, of hosts that are told to stop, of a dead Valkey."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery

from lab.errors import LabError
from lab.fleet.embedded import EmbeddedFleet
from lab.fleet.engine import DEAD_KEY, PROCESS_QUEUE, PROCESS_TASK, make_app
from lab.fleet.hosts import list_hosts
from lab.settings import Settings
from lab.store.store import Store
from onloan import deadletters
from tests import ROOT
from tests.kit import variables
from tests.kit.server import KEY, Server
from tests.kit.wait import until

PROGRAM = """
import sys, time
import lab

def quick(): pass
def slow(): time.sleep(60)

if __name__ == "__main__":
    ctx = lab.get_context("cluster")
    process = ctx.Process(target={"quick": quick, "slow": slow}[sys.argv[1]])
    process.start()
    print(process.host, flush=True)
    process.join(30)
    print(process.exitcode, flush=True)
"""


@dataclass
class Roles:
    """A Valkey with the users of deploy/acl, and processes that run as one of them."""

    server: Server
    directory: Path
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def url(self, role: str) -> str:
        return f"redis://{role}:{role}@127.0.0.1:{self.server.port}/0"

    def start(self, role: str, *command: str) -> subprocess.Popen[str]:
        settings = Settings(broker_url=self.url(role), authkey=KEY.encode(), lease=3)
        env = {**variables.leading_to(settings), "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen([sys.executable, *command], cwd=ROOT, env=env,
                                   stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)  # fmt: skip
        self.processes.append(process)
        return process

    def run(self, role: str, *command: str) -> str:
        process = self.start(role, *command)
        out, _ = process.communicate(timeout=40)
        assert process.returncode == 0, out
        return out

    def worker(self, name: str) -> subprocess.Popen[str]:
        process = self.start("worker", "-m", "worker", "--slots", "2", "--name", name)
        store = Store(self.url("admin"))
        until(lambda: name in [host.name for host in list_hosts(store)], "the host is ready", 60)
        return process

    def app(self) -> Celery:
        app: Celery = make_app(Settings(broker_url=self.url("producer"), authkey=KEY.encode()))
        return app

    def dead(self) -> list[deadletters.DeadLetter]:
        return deadletters.read(self.server.client.execute_command, DEAD_KEY)


@pytest.fixture
def roles(tmp_path: Path) -> Iterator[Roles]:
    users = ["user default off", "user admin on >admin ~* &* +@all"]
    for role in ("worker", "producer", "monitor"):
        text = re.sub("#.*", "", (ROOT / "deploy/acl" / role).read_text())
        users.append(f"user {role} on >{role} " + " ".join(text.split()))
    (tmp_path / "acl").write_text("\n".join(users) + "\n")
    (tmp_path / "program.py").write_text(PROGRAM)
    with Server(tmp_path, "--aclfile", str(tmp_path / "acl"), login="admin:admin@") as server:
        each = Roles(server, tmp_path)
        yield each
        for process in each.processes:
            process.kill()
            process.communicate()


def test_refused_starts_are_dead_letters_and_each_role_may_do_what_that_needs(roles: Roles) -> None:
    worker, admin = roles.worker("one"), roles.server.client
    program = roles.start("producer", str(roles.directory / "program.py"), "slow")
    assert program.stdout
    assert program.stdout.readline().strip() == "one"
    run_id = re.search(r"\{(\w+)\}", str(next(iter(admin.scan_iter("crosshost:{*}:processes")))))
    assert run_id
    base = f"crosshost:{{{run_id[1]}}}:"

    app = roles.app()
    for process_id, payload in (("forged", b"x" * 40), ("unsent", None)):
        if payload:
            admin.hset(f"{base}process:{process_id}", mapping={"payload": payload, "parent": f"{base}mail:x"})
        app.send_task(PROCESS_TASK, [run_id[1], process_id], queue=PROCESS_QUEUE)
    until(lambda: len(roles.dead()) == 1, "the forgery is a dead letter")
    assert "refused unread" in roles.dead()[0].reason
    (taken,) = admin.smembers(f"{base}taken") - {b"forged"}
    app.send_task(PROCESS_TASK, [run_id[1], taken.decode()], queue=PROCESS_QUEUE)
    until(lambda: len(roles.dead()) == 2, "the replay is a dead letter")
    assert "replay" in roles.dead()[0].reason
    app.send_task(PROCESS_TASK, ["only one"], queue=PROCESS_QUEUE)
    app.send_task("worker.no_such_task", [], queue=PROCESS_QUEUE, task_id="\x1b[2J clears the screen")
    until(lambda: len(roles.dead()) == 4, "a call of the wrong shape and an id that steers a terminal are dead letters")
    app.close()

    letters = json.loads(roles.run("producer", "-m", "producer", "deadletters", "--json"))
    assert {each["task"] for each in letters} == {PROCESS_TASK, "worker.no_such_task"}
    assert all(each["when"].startswith("20") and each["id"] and each["reason"] for each in letters)
    shown = roles.run("producer", "-m", "producer", "deadletters", "--clear")
    assert "headers.id is" in shown, "what steers a terminal is refused, and shown as what it is"
    assert "\x1b" not in shown
    assert roles.run("producer", "-m", "producer", "deadletters") == "No dead letters.\n"

    assert worker.poll() is None
    assert roles.run("producer", str(roles.directory / "program.py"), "quick").split() == ["one", "0"]
    assert not admin.acl_log(), "a role was refused a command that it needed"

    producer: Any = redis.Redis.from_url(roles.url("producer"))
    for forbidden in (["RPOP", "crosshost:celery:processes"], ["HGETALL", "crosshost:celery:processes:held"],
                      ["LPUSH", DEAD_KEY, "x"], ["DEL", "crosshost:celery:processes:leases"]):  # fmt: skip
        with pytest.raises(redis.exceptions.NoPermissionError):
            producer.execute_command(*forbidden)


def test_a_function_that_does_not_exist_is_a_dead_letter(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.connect()
    store = Store(cluster.settings.broker_url)
    before = len(deadletters.read(store.call, DEAD_KEY))
    process = cluster.Process(target=vanishing)
    monkeypatch.setattr(vanishing, "__qualname__", "nowhere")
    monkeypatch.setitem(globals(), "nowhere", vanishing)
    process.start()
    process.join(10)
    assert process.exitcode == 1
    until(lambda: len(deadletters.read(store.call, DEAD_KEY)) > before, "it is reported")
    assert "nowhere" in deadletters.read(store.call, DEAD_KEY)[0].reason


def vanishing() -> None:
    """What the parent has under another name, and the child does not find."""


def test_a_host_that_is_told_to_stop_ends_its_processes_at_once(roles: Roles) -> None:
    worker = roles.worker("one")
    program = roles.start("producer", str(roles.directory / "program.py"), "slow")
    assert program.stdout
    assert program.stdout.readline().strip() == "one"
    worker.send_signal(signal.SIGTERM)
    took = until(lambda: program.poll() is not None, "its parent has learned of it")
    assert program.stdout.readline().strip() == str(-signal.SIGKILL)
    assert took < 5
    until(lambda: worker.poll() is not None, "the host has ended", 10)
    assert worker.returncode == 0
    roles.worker("two")  # is given the message, and does not start the process a second time
    until(lambda: not roles.server.client.exists("crosshost:celery:processes:leases"), "the message is settled")
    assert not roles.dead()


def test_a_durable_fleet_outlives_its_valkey() -> None:
    with EmbeddedFleet(Settings(hosts=1, slots=1, lease=2.0), durable=True) as fleet:
        settings = fleet.start()
        store = Store(settings.broker_url)
        store.call("SET", "crosshost:kept", "yes")
        pid = int(re.search(rb"process_id:(\d+)", store.call("INFO", "server"))[1])  # type: ignore[index]
        os.kill(pid, signal.SIGKILL)

        def hosts() -> list[str]:
            try:
                return [host.name for host in list_hosts(store)]
            except (LabError, redis.RedisError):
                return []

        until(lambda: hosts() == ["host-1"], "Valkey and the host are back", 60)
        assert store.call("GET", "crosshost:kept") == b"yes"
