"""Workers on another machine: another project on another network, whose only way to Redis is its TLS port."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Iterator

import pytest

from tests.kit import composed
from tests.kit.composed import Fleet
from tests.kit.ports import free_port

pytestmark = composed.MARKS
NAME, OTHER_NAME = "redis.test", "other.test"


@pytest.fixture(scope="module")
def redis_side(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """The machine with Redis; it has no workers of its own here."""
    name = f"crosshost-test-tls-{os.getpid()}"
    with composed.project(tmp_path_factory.mktemp("redis"), name, name) as fleet:
        fleet.env |= {"CROSSHOST_TLS_PORT": str(free_port()), "COMPOSE_FILE": "compose.yaml:compose.tls.yaml"}
        fleet.script("setup")
        fleet.script("certificate", NAME)
        fleet.compose("build", timeout=300)
        fleet.compose("up", "-d", "--wait", "redis")
        yield fleet


@pytest.fixture(scope="module")
def worker_side(redis_side: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """The machine with workers: it has the three files that it needs, and no other secret."""
    name = redis_side.env["COMPOSE_PROJECT_NAME"]
    with composed.project(tmp_path_factory.mktemp("workers"), f"{name}-workers", name) as fleet:
        (fleet.directory / "secrets").mkdir(mode=0o700)
        for secret in ("ca.crt", "authkey", "worker_password"):
            shutil.copy(redis_side.directory / "secrets" / secret, fleet.directory / "secrets" / secret)
        # both names lead to this machine, which stands for the one with Redis
        names = [f"{name}:host-gateway" for name in (NAME, OTHER_NAME)]
        two, one = ({"extra_hosts": names, "deploy": {"replicas": count}} for count in (2, 1))
        override = {"services": {"worker": two, "jobs": one}}
        (fleet.directory / "compose.names.yaml").write_text(json.dumps(override))
        fleet.env["COMPOSE_FILE"] = "compose.worker.yaml:compose.names.yaml"
        missing = fleet.compose("up", "-d", check=False)
        assert "CROSSHOST_REDIS=" in missing.stderr
        port = redis_side.env["CROSSHOST_TLS_PORT"]
        (fleet.directory / ".env").write_text(
            f"CROSSHOST_SECRETS=./secrets\nCROSSHOST_REDIS={NAME}:{port}\nCROSSHOST_SLOTS=5\n"
        )
        fleet.compose("up", "-d", "--wait", "--no-build")
        yield fleet


ASK = """
from lab.store.store import Store
from lab.settings import Settings
print(Store(Settings.from_env().broker_url).call("PING"))
"""


def worker(fleet: Fleet, *command: str, **env: str) -> tuple[int, str]:
    """A container of the worker's service with other settings: its exit code and what it wrote."""
    settings = [part for name, value in env.items() for part in ("-e", f"{name}={value}")]
    done = fleet.compose("run", "--rm", "-T", *settings, "worker", *command, check=False, timeout=60)
    return done.returncode, done.stdout + done.stderr


def test_workers_of_another_machine_run_a_concept(redis_side: Fleet, worker_side: Fleet) -> None:
    ran = redis_side.compose(
        "run", "--rm", "-T", "--no-deps", "producer", "demo", "counter", "--on", "cluster", "--json"
    )
    containers = worker_side.hostnames("worker")  # another machine may have a worker-1 too, so none is called so
    assert len(containers) == 2
    (counter,) = json.loads(ran.stdout)["runs"]
    assert counter["ok"]
    assert {who["host"] for who in counter["who"]} == containers


def test_a_job_runs_on_another_machine(redis_side: Fleet, worker_side: Fleet) -> None:
    words = ("submit", "counter", "--adders", "2", "--wait", "--json")
    ran = redis_side.compose("run", "--rm", "-T", "--no-deps", "producer", *words)
    assert json.loads(ran.stdout)["result"]["atomic"] == 100
    listed = redis_side.compose("run", "--rm", "-T", "--no-deps", "producer", "jobs", "--json").stdout
    (job,) = json.loads(listed)
    assert {worker.partition("/")[0] for worker in job["workers"]} == worker_side.hostnames("jobs")


def test_the_port_without_tls_is_not_published(redis_side: Fleet, worker_side: Fleet) -> None:
    (ports,) = [container["NetworkSettings"]["Ports"] for container in redis_side.inspect("redis")]
    assert {name for name, published in ports.items() if published} == {"6380/tcp"}
    plain = f"redis://worker@{NAME}:{redis_side.env['CROSSHOST_PORT']}/0"
    code, said = worker(worker_side, "python", "-c", ASK, CROSSHOST_BROKER_URL=plain, CROSSHOST_CA_FILE="")
    assert code == 1
    assert "Connection refused" in said


def test_the_tls_port_wants_tls_and_a_password(redis_side: Fleet, worker_side: Fleet) -> None:
    there = f"{NAME}:{redis_side.env['CROSSHOST_TLS_PORT']}"
    without = f"redis://worker@{there}/0"
    code, said = worker(worker_side, "python", "-c", ASK, CROSSHOST_BROKER_URL=without, CROSSHOST_CA_FILE="")
    assert code == 1
    assert "does not answer" in said
    wrong = f"rediss://worker:{'0' * 64}@{there}/0"
    code, said = worker(worker_side, "python", "-c", ASK, CROSSHOST_BROKER_URL=wrong, CROSSHOST_PASSWORD_FILE="")
    assert code == 1
    assert "refused the user or password" in said


@pytest.mark.parametrize(("program", "ends_with"), [(("-m", "worker"), 4), (("-c", ASK), 1)])
def test_a_certificate_for_another_name_is_refused(
    redis_side: Fleet, worker_side: Fleet, program: tuple[str, ...], ends_with: int
) -> None:
    url = f"rediss://worker@{OTHER_NAME}:{redis_side.env['CROSSHOST_TLS_PORT']}/0"
    code, said = worker(worker_side, "python", *program, CROSSHOST_BROKER_URL=url)
    assert code == ends_with
    assert f"not valid for '{OTHER_NAME}'" in said
    assert f"sh deploy/certificate {OTHER_NAME}" in said


@pytest.mark.parametrize(("program", "ends_with"), [(("-m", "worker"), 4), (("-c", ASK), 1)])
def test_another_ca_is_refused(worker_side: Fleet, program: tuple[str, ...], ends_with: int) -> None:
    code, said = worker(worker_side, "python", *program, CROSSHOST_CA_FILE="/etc/ssl/certs/ca-certificates.crt")
    assert code == ends_with
    assert "is not trusted" in said
    assert "CROSSHOST_CA_FILE must be the ca.crt" in said


def test_celery_itself_verifies_the_certificate(worker_side: Fleet) -> None:
    program = (
        "from lab.fleet.engine import make_app; from lab.settings import Settings\n"
        "with make_app(Settings.from_env()).connection_for_write() as c: c.ensure_connection(max_retries=1, timeout=1)\n"
    )
    code, said = worker(worker_side, "python", "-c", program)
    assert code == 0, said
    code, said = worker(worker_side, "python", "-c", program, CROSSHOST_CA_FILE="/etc/ssl/certs/ca-certificates.crt")
    assert code != 0
    assert "CERTIFICATE_VERIFY_FAILED" in said


def test_a_new_certificate_keeps_the_ca_so_workers_need_nothing_new(redis_side: Fleet, worker_side: Fleet) -> None:
    ca, before = redis_side.secret("ca.crt"), redis_side.secret("redis.crt")
    redis_side.script("certificate", NAME, "192.0.2.1")
    assert redis_side.secret("ca.crt") == ca
    assert redis_side.secret("redis.crt") != before
    redis_side.compose("up", "-d", "--wait", "--force-recreate", "redis")
    code, said = worker(worker_side, "python", "-c", ASK)
    assert (code, "PONG" in said) == (0, True), said


def test_keys_can_be_read_by_their_owner_alone(redis_side: Fleet) -> None:
    secrets = redis_side.directory / "secrets"
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    assert stat.S_IMODE((secrets / "ca.key").stat().st_mode) == 0o400
    mounts = [mount["Source"] for container in redis_side.inspect("redis") for mount in container["Mounts"]]
    assert any(source.endswith("redis.key") for source in mounts)
    assert not any(source.endswith("ca.key") for source in mounts)


def test_the_certificate_script_says_what_it_lacks(tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("bare")
    composed.copy_of_the_tree(directory)
    fleet = Fleet(directory, dict(os.environ))
    for words, said in (((), "names or addresses"), ((NAME,), "sh deploy/setup"), (("a b",), "neither a host name")):
        done = fleet.script("certificate", *words, check=False)
        assert done.returncode != 0
        assert said in done.stderr
        fleet.script("setup") if words else None
