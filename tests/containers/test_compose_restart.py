"""Redis restarts in the middle of a pool's work, as a container does: with its append-only file, and gone for seconds."""

from __future__ import annotations

import socket
import subprocess

import pytest

from tests.kit import composed
from tests.kit.composed import Fleet, docker

pytestmark = composed.MARKS
CALLS = 200
PROGRAM = f"""
import lab, time
ctx = lab.get_context('cluster')
counter = ctx.Value('i', 0)
with ctx.Pool(6) as pool:
    calls = [pool.apply_async(time.sleep, (0.1,)) for _ in range({CALLS})]
    calls[0].get(60)
    print('started', flush=True)
    answered = [call.get(120) for call in calls]
    print(len(answered), 'answered', flush=True)
    process = ctx.Process(target=counter.add, args=(1,))
    process.start(); process.join()
    print('then', process.exitcode, counter.value, flush=True)
ctx.close()
"""


@pytest.mark.parametrize("how", ["restart", "kill"])
def test_a_pool_survives_a_redis_that_restarts(fleet: Fleet, how: str) -> None:
    fleet.up()
    with fleet.python(PROGRAM) as program:
        try:
            assert program.stdout
            assert program.stdout.readline() == "started\n"
            if how == "restart":
                fleet.compose("restart", "redis")
            else:
                fleet.compose("kill", "redis")
                fleet.compose("start", "redis")
            out, err = program.communicate(timeout=120)
        finally:
            program.kill()  # where it has ended, this does nothing
    assert program.returncode == 0, out + err
    assert f"{CALLS} answered" in out, out + err
    assert "then 0 1" in out
    assert "NOPERM" not in fleet.compose("logs", "redis").stdout  # it has read all of its append-only file


def test_the_fleet_is_whole_afterwards(fleet: Fleet) -> None:
    fleet.up()
    said = fleet.producer("workers").stdout
    assert "3 hosts" in said


def test_a_port_that_is_taken_is_named(fleet: Fleet) -> None:
    fleet.compose("down", "-v")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            ["docker", "compose", "up", "-d", "redis"], cwd=fleet.directory, env=fleet.env | {"CROSSHOST_PORT": port},
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    assert done.returncode != 0
    assert port in done.stderr


def test_down_leaves_nothing(fleet: Fleet) -> None:
    fleet.compose("--profile", "monitor", "up", "-d", "--no-build", "flower")
    fleet.compose("--profile", "*", "down", "-v", "--remove-orphans")  # as docs/containers.md has it
    name = fleet.env["COMPOSE_PROJECT_NAME"]
    for kind in ("container", "network", "volume"):
        everything = ["-a"] if kind == "container" else []
        assert docker(kind, "ls", "-q", *everything, "--filter", f"label=com.docker.compose.project={name}") == ""
