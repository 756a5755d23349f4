"""The fleet in containers, on a real engine, from a copy of the tree with a fleet of its own.

Skipped only where no Docker engine answers, and never in CI.
"""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.request
from base64 import b64encode

import pytest

from lab.concepts import CONCEPTS
from tests import composed
from tests.composed import Fleet, docker
from tests.wait import within

SECRETS = ("authkey", "worker_password", "producer_password", "monitor_password", "flower_password")
pytestmark = composed.MARKS


def test_up_runs_the_comparison_to_its_end_and_leaves_the_fleet_up(fleet: Fleet) -> None:
    begun = time.monotonic()
    fleet.compose("up", "-d", "--no-build", timeout=180)
    (producer,) = fleet.compose("ps", "-aq", "producer").stdout.split()
    code = docker("wait", producer, timeout=180).strip()
    log = fleet.compose("logs", "--no-log-prefix", "producer").stdout
    assert code == "0", log[-3000:]
    assert f"claims of {len(CONCEPTS) * 2} runs held" in log
    print(f"from built images to the finished comparison: {time.monotonic() - begun:.0f} s")
    assert [c["State"]["Health"]["Status"] for c in fleet.inspect("worker")] == ["healthy"] * 3


def test_results_name_three_containers_and_the_counter_needs_its_lock(fleet: Fleet) -> None:
    fleet.up()
    (counter,) = json.loads(fleet.producer("demo", "counter", "--on", "cluster", "--json").stdout)["runs"]
    containers = fleet.hosts("worker")
    assert {who["host"] for who in counter["who"]} == containers
    assert len(containers) == 3
    facts = counter["facts"]
    assert facts["locked: trials by updates lost"] == {"0": 5}
    assert "0" not in facts["window_open: trials by updates lost"]


def test_scaling_up_and_down_under_load_loses_nothing(fleet: Fleet) -> None:
    fleet.up()
    program = fleet.python(
        "import lab, time, operator\n"
        "ctx = lab.get_context('cluster')\n"
        "pool = ctx.Pool(6)\n"
        "print('started', flush=True)\n"
        "results = [pool.apply_async(time.sleep, (0.1,)) for _ in range(600)]\n"
        "print(len([r.get(120) for r in results]), 'done', flush=True)\n"
        "names = {w.host for w in pool._pool}\n"
        "pool.close(); pool.join(); ctx.close()\n"
    )
    assert program.stdout
    assert program.stdout.readline() == "started\n"
    fleet.up("--scale", "worker=5")
    assert len(fleet.inspect("worker")) == 5
    fleet.up("--scale", "worker=2")
    out, err = program.communicate(timeout=180)
    assert "600 done" in out, out + err
    assert program.returncode == 0, err


def test_stopping_a_worker_ends_its_process_at_once(fleet: Fleet) -> None:
    fleet.up("--scale", "worker=1")
    program = fleet.python(
        "import lab, time\n"
        "ctx = lab.get_context('cluster')\n"
        "p = ctx.Process(target=time.sleep, args=(100,)); p.start(); print('started', flush=True)\n"
        "p.join(); print(p.exitcode, flush=True); ctx.close()\n"
    )
    assert program.stdout
    assert program.stdout.readline() == "started\n"
    begun = time.monotonic()
    fleet.compose("stop", "worker")
    out, err = program.communicate(timeout=30)
    assert out.strip() in ("-9", "-15"), err
    assert time.monotonic() - begun < 15  # not the grace period of 20 s
    fleet.compose("rm", "-f", "worker")


LEAVING = """
import json, lab, time
ctx = lab.get_context('cluster')
go, done = ctx.Event(), ctx.Value('i', 0)
code = 'import time; go.wait(60); time.sleep(2); done.value = 1'
short = ctx.Process(target=exec, args=(code, {'go': go, 'done': done}))
long = ctx.Process(target=time.sleep, args=(100,))
short.start(); long.start()
pool = ctx.Pool(2)
pool.map(time.sleep, [0.1] * 2)
hosts = {short.host, long.host, *(w.host for w in pool._pool)}
print(json.dumps(sorted(hosts)), flush=True)
while len(ctx.fleet()) < 2: time.sleep(0.2)
calls = [pool.apply_async(time.sleep, (seconds,)) for seconds in [3, 3, *[0.2] * 20]]
go.set()
print('go', flush=True)
answered = [call.get(100) for call in calls]
long.join(60); short.join(60)
last = {w.host for w in pool._pool}
pool.close(); pool.join()
print(json.dumps([len(answered), long.exitcode, short.exitcode, done.value, sorted(last)]), flush=True)
ctx.close()
"""


def test_a_worker_that_is_stopped_leaves_its_calls_to_others_and_true_exit_codes(fleet: Fleet) -> None:
    fleet.compose("rm", "-sf", "worker")
    fleet.up("--scale", "worker=1")
    (leaving,) = fleet.inspect("worker")
    program = fleet.python(LEAVING)
    assert program.stdout
    assert json.loads(program.stdout.readline()) == [leaving["Config"]["Hostname"]]  # everything runs on it
    fleet.up("--scale", "worker=2")
    assert program.stdout.readline() == "go\n"
    begun = time.monotonic()
    docker("stop", leaving["Id"], timeout=60)
    assert time.monotonic() - begun < 19  # before the grace period is over, and its SIGKILL
    out, err = program.communicate(timeout=120)
    answered, of_long, of_short, done, last = json.loads(out)
    assert program.returncode == 0, err
    assert answered == 22  # calls that had begun and calls that had not, once each
    assert leaving["Config"]["Hostname"] not in last
    assert of_long in (-9, -15)
    assert (of_short == 0) == (done == 1)  # finished or killed, and its parent knows which
    assert of_short in (0, -9, -15)
    fleet.compose("rm", "-sf", "worker")


def test_no_secret_is_in_the_configuration_the_image_or_the_logs(fleet: Fleet) -> None:
    fleet.up()
    fleet.producer("workers")
    seen = json.dumps([fleet.inspect(service) for service in ("redis", "worker", "jobs", "producer")])
    image = fleet.env["CROSSHOST_IMAGE"]
    for words in (["history", "--no-trunc", image], ["inspect", image]):
        seen += docker(*words)
    logs = fleet.compose("logs")
    seen += logs.stdout + logs.stderr
    for name in SECRETS:
        assert fleet.secret(name) not in seen, name


def test_containers_are_hardened_and_redis_is_on_the_loopback_only(fleet: Fleet) -> None:
    fleet.up()
    for container in fleet.inspect("worker") + fleet.inspect("jobs") + fleet.inspect("redis"):
        host = container["HostConfig"]
        assert host["ReadonlyRootfs"]
        assert host["CapDrop"] == ["ALL"]
        assert "no-new-privileges:true" in host["SecurityOpt"]
        assert host["PidsLimit"] > 0
        assert host["Memory"] > 0
    assert {c["Config"]["User"] for c in fleet.inspect("worker") + fleet.inspect("jobs")} == {"10001:10001"}
    (ports,) = [c["NetworkSettings"]["Ports"] for c in fleet.inspect("redis")]
    assert {binding["HostIp"] for bindings in ports.values() for binding in bindings or []} == {"127.0.0.1"}


@pytest.mark.parametrize(
    ("role", "command"),
    [
        ("producer", "FLUSHALL"),
        ("producer", "KEYS *"),
        ("producer", "CONFIG GET *"),
        ("producer", "GET elsewhere"),
        ("producer", "RPOP crosshost:celery:processes"),
        ("producer", "DEL crosshost:hosts"),
        ("worker", "FLUSHALL"),
        ("worker", "CONFIG GET *"),
        ("worker", "ACL LIST"),
        ("worker", "SET elsewhere 1"),
        ("monitor", "LPUSH crosshost:celery:processes x"),
        ("monitor", "DEL crosshost:hosts"),
        ("monitor", "LLEN elsewhere"),
        ("monitor", "BRPOP crosshost:celery:processes 1"),
        ("monitor", "SADD crosshost:hosts x"),
        ("monitor", "SADD crosshost:celery:_kombu.binding.processes x"),
        ("monitor", "SET crosshost:celery:unacked x"),
        ("monitor", "EVAL return 0"),
    ],
)
def test_a_role_is_refused_what_it_does_not_need(fleet: Fleet, role: str, command: str) -> None:
    fleet.up()
    assert "NOPERM" in fleet.redis(role, *command.split())


def test_the_default_user_is_off_and_the_monitor_can_look(fleet: Fleet) -> None:
    fleet.up()
    assert "NOAUTH" in fleet.compose("exec", "-T", "redis", "redis-cli", "PING", check=False).stdout
    for password in ("", "nopass"):
        said = fleet.compose("exec", "-T", "redis", "redis-cli", "AUTH", "default", password, check=False).stdout
        assert "WRONGPASS" in said
    assert fleet.redis("monitor", "LLEN", "crosshost:celery:processes").strip() == "0"


def page(fleet: Fleet, path: str, password: str | None, data: bytes | None = None) -> tuple[int, str]:
    """Status and text of a page of Flower."""
    request = urllib.request.Request(f"http://127.0.0.1:{fleet.env['CROSSHOST_MONITOR_PORT']}{path}", data)
    if password is not None:
        request.add_header("Authorization", f"Basic {b64encode(f'crosshost:{password}'.encode()).decode()}")
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as exc:
        return exc.code, exc.read().decode()


def test_flower_shows_workers_and_tasks_to_who_has_its_password(fleet: Fleet) -> None:
    fleet.up()
    fleet.compose("--profile", "monitor", "up", "-d", "--wait", "--no-build", "flower")
    password = fleet.secret("flower_password")
    assert [page(fleet, "/workers", wrong)[0] for wrong in (None, "", "x")] == [401] * 3
    assert page(fleet, "/workers", password)[0] == 200

    containers = {f"{host}@crosshost" for host in fleet.hosts("worker")} | {
        f"{host}@jobs" for host in fleet.hosts("jobs")
    }
    assert within(30, lambda: containers <= set(workers := shown(fleet, password)) and all(workers.values()), every=0.3)
    fleet.producer("demo", "process", "--on", "cluster")
    expected = {(name, "SUCCESS") for name in ("worker.process", "jobs.counter.add", "jobs.counter.read")}

    def shows_a_job() -> bool:  # an event is a broadcast that nobody keeps, so one job's may be missed
        fleet.producer("submit", "counter", "--adders", "1", "--times", "1", "--wait")
        return within(6, lambda: expected <= tasks(fleet, password), every=0.3)

    assert any(shows_a_job() for _ in range(5)), tasks(fleet, password)

    name = min(containers)
    status, text = page(fleet, f"/worker/{name}", password)
    assert status == 200
    assert name in text
    assert page(fleet, f"/api/worker/shutdown/{name}", password, b"")[0] == 403
    logs = fleet.compose("logs", "flower", "worker", "jobs")
    said = text + json.dumps(fleet.inspect("flower")) + logs.stdout + logs.stderr
    assert not [secret for secret in SECRETS if fleet.secret(secret) in said]
    assert "NOPERM" not in said
    assert "no permissions" not in said
    (ports,) = [container["NetworkSettings"]["Ports"] for container in fleet.inspect("flower")]
    assert [binding["HostIp"] for bindings in ports.values() for binding in bindings] == ["127.0.0.1"]
    fleet.compose("--profile", "monitor", "rm", "-sf", "flower")


def shown(fleet: Fleet, password: str) -> dict[str, bool]:
    """The workers that Flower lists: whether each is online, by name."""
    return {
        each["hostname"]: each["status"] for each in json.loads(page(fleet, "/workers?json=1", password)[1])["data"]
    }


def tasks(fleet: Fleet, password: str) -> set[tuple[str, str]]:
    """Name and state of the tasks that Flower lists."""
    found = json.loads(page(fleet, "/api/tasks", password)[1])
    return {(task["name"], task["state"]) for task in found.values()}


def test_the_monitor_adds_nothing_to_the_image_of_the_others(fleet: Fleet) -> None:
    image = fleet.env["CROSSHOST_IMAGE"]
    for name, there in ((image, False), (f"{image}-monitor", True)):
        found = subprocess.run(
            ["docker", "run", "--rm", name, "python", "-c", "import flower"], capture_output=True, timeout=60
        )
        assert (found.returncode == 0) == there


def test_a_producer_with_a_wrong_key_is_refused(fleet: Fleet) -> None:
    fleet.up()
    wrong = ("CROSSHOST_AUTHKEY_FILE=", f"CROSSHOST_AUTHKEY={'x' * 32}")
    done = fleet.producer("demo", "pipe", "--on", "cluster", env=wrong, check=False)
    assert done.returncode == 5, done.stderr
    assert "authkey" in done.stderr


def test_a_worker_of_another_version_is_told_apart(fleet: Fleet) -> None:
    fleet.up()
    other = (
        "import lab; lab.__version__ = '0.0.0'\n"
        "try: lab.get_context('cluster').connect()\n"
        "except Exception as exc: print(type(exc).__name__, exc)\n"
    )
    out, err = fleet.python(other).communicate(timeout=60)
    assert "WrongVersion" in out, out + err
    assert "docker compose build" in out


def test_a_network_can_be_added_between_the_containers_and_redis(fleet: Fleet) -> None:
    words = ("demo", "pipe", "--on", "cluster", "--rtt", "5ms", "--json")
    fleet.up()
    refused = fleet.producer(*words, check=False)
    assert refused.returncode == 3
    assert "-f compose.rtt.yaml" in refused.stderr

    fleet.env["COMPOSE_FILE"] = "compose.yaml:compose.rtt.yaml"
    try:
        fleet.up("line")
        found = json.loads(fleet.producer(*words).stdout)
    finally:
        del fleet.env["COMPOSE_FILE"]
    link, (pipe,) = found["link"], found["runs"]
    assert link["transport"] == "TCP line:6379/0"
    assert 0.0048 < link["round_trip"] - link["round_trip_before"] < 0.03
    assert pipe["costs"]["round trip"] > 0.0098
    assert link["hosts_here"] == len(link["hosts"]) == 3  # containers of one machine share its kernel
    assert pipe["ok"]
