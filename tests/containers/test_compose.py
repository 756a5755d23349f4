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
from tests.kit import composed
from tests.kit.composed import Fleet, docker
from tests.kit.wait import within

SECRETS = ("authkey", "worker_password", "producer_password", "monitor_password", "flower_password", "page_password",
           "page_token")  # fmt: skip
pytestmark = composed.MARKS


def test_up_builds_runs_the_comparison_to_its_end_and_leaves_the_fleet_up(fleet: Fleet) -> None:
    docker("rmi", fleet.env["CROSSHOST_IMAGE"])  # as on a machine that has not built it yet
    begun = time.monotonic()
    code = compare(fleet)
    log = fleet.compose("logs", "--no-log-prefix", "producer").stdout
    assert code == "0", log[-3000:]
    assert f"claims of {len(CONCEPTS) * 2} runs held" in log
    print(f"from nothing to the finished comparison: {time.monotonic() - begun:.0f} s")
    assert [c["State"]["Health"]["Status"] for c in fleet.inspect("worker")] == ["healthy"] * 3


def compare(fleet: Fleet) -> str:
    """Have everything up, and the comparison made; its exit code."""
    fleet.compose("up", "-d", timeout=300)
    (producer,) = fleet.compose("ps", "-aq", "producer").stdout.split()
    return docker("wait", producer, timeout=180).strip()


def test_a_command_after_up_replaces_no_container(fleet: Fleet) -> None:
    assert compare(fleet) == "0"
    before = fleet.ids()
    said = fleet.producer("workers").stdout
    assert fleet.ids() == before
    assert all(name in said for name in ("worker-1", "worker-2", "worker-3", "3 hosts"))


def test_more_workers_are_all_that_a_larger_scale_brings(fleet: Fleet) -> None:
    assert compare(fleet) == "0"
    before = fleet.ids()
    fleet.compose("up", "-d", "--no-build", "--scale", "worker=5")
    assert fleet.hosts("worker") == {f"worker-{n}" for n in range(1, 6)}
    assert before < fleet.ids()
    assert len(fleet.ids() - before) == 2
    assert_compared_once(fleet)


def test_a_number_of_workers_in_env_is_kept_by_whatever_comes_up_later(fleet: Fleet) -> None:
    assert compare(fleet) == "0"
    (fleet.directory / ".env").open("a").write("CROSSHOST_WORKERS=5\nCROSSHOST_JOB_WORKERS=1\n")
    try:
        fleet.compose("up", "-d", "--no-build")
        before = fleet.ids()
        assert [len(fleet.hosts(service)) for service in ("worker", "jobs")] == [5, 1]
        fleet.compose("up", "-d", "--no-build")
        fleet.producer("workers")
        assert fleet.ids() == before
        fleet.compose("--profile", "monitor", "up", "-d", "--no-build")
        assert before < fleet.ids()
        assert len(fleet.ids() - before) == 2  # Flower and the page
        assert_compared_once(fleet)
    finally:
        (fleet.directory / ".env").write_text("CROSSHOST_SECRETS=./secrets\n")
        fleet.compose("--profile", "monitor", "rm", "-sf", "flower", "page")


def assert_compared_once(fleet: Fleet) -> None:
    (producer,) = fleet.inspect("producer")
    assert docker("wait", producer["Id"]).strip() == "0"
    log = fleet.compose("logs", "--no-log-prefix", "producer").stdout
    assert log.count("runs held") == 1
    assert "has compared before" in log.splitlines()[-1]


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


def test_a_program_is_left_to_the_containers_and_followed_by_other_commands(fleet: Fleet) -> None:
    fleet.compose("up", "-d", "worker", "jobs", timeout=300)
    script = fleet.producer("run", "--detach", "exercises/lost_update/solution.py", "2", "50").stdout.strip()
    function = fleet.producer("submit", "math:sqrt", "16").stdout.strip()
    watched = fleet.producer("watch", script)
    assert watched.stdout == "100\n"
    assert f"{script}: done, exit code 0" in watched.stderr
    fleet.producer("watch", function)
    assert fleet.producer("result", function).stdout == "4.0\n"
    assert "NOPERM" not in fleet.compose("logs", "jobs", "worker").stdout


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
    assert json.loads(program.stdout.readline()) == [fleet.host(leaving)]  # everything runs on it
    fleet.up("--scale", "worker=2")
    assert program.stdout.readline() == "go\n"
    begun = time.monotonic()
    docker("stop", leaving["Id"], timeout=60)
    assert time.monotonic() - begun < 19  # before the grace period is over, and its SIGKILL
    out, err = program.communicate(timeout=120)
    answered, of_long, of_short, done, last = json.loads(out)
    assert program.returncode == 0, err
    assert answered == 22  # calls that had begun and calls that had not, once each
    assert fleet.host(leaving) not in last
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
        ("page", "SET crosshost:x 1"),
        ("page", "EVAL return 0"),
        ("page", "DEL crosshost:hosts"),
        ("page", "CLIENT KILL TYPE normal"),
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
    expected = {(name, "SUCCESS") for name in ("worker.process", "jobs.counter.add", "jobs.counter.read")}

    def shows_them() -> bool:  # an event is a broadcast that nobody keeps, so one task's may be missed
        fleet.producer("demo", "process", "--on", "cluster")
        fleet.producer("submit", "counter", "--adders", "1", "--times", "1", "--wait")
        return within(6, lambda: expected <= tasks(fleet, password), every=0.3)

    assert any(shows_them() for _ in range(5)), tasks(fleet, password)

    name = min(containers)
    # What Flower would ask a worker, nobody answers who holds no key: it shows what workers tell of themselves.
    assert page(fleet, f"/worker/{name}", password)[0] == 404
    text = page(fleet, "/workers?json=1", password)[1]
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


def test_the_page_shows_the_hosts_to_who_has_its_token_and_can_change_nothing(fleet: Fleet) -> None:
    fleet.up()
    fleet.compose("--profile", "monitor", "up", "-d", "--wait", "--no-build", "page")
    url = f"http://127.0.0.1:{fleet.env['CROSSHOST_PAGE_PORT']}/metrics"
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {fleet.secret('page_token')}"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        assert answer.read().decode().count("crosshost_slots{host=") == len(fleet.hosts("worker"))
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(url, timeout=20)
    (ports,) = [container["NetworkSettings"]["Ports"] for container in fleet.inspect("page")]
    assert {each["HostIp"] for published in ports.values() for each in published or ()} == {"127.0.0.1"}
    fleet.compose("--profile", "monitor", "rm", "-sf", "page")


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
        "import lab; from lab.cluster import context; context.__version__ = '0.0.0'\n"
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
