"""Redis restarts in the middle of a pool's work, as a container does: with its append-only file, and gone for seconds."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests import composed
from tests.composed import Fleet

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


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    name = f"crosshost-test-restart-{os.getpid()}"
    with composed.project(tmp_path_factory.mktemp("restart"), name, name) as fleet:
        fleet.script("setup")
        fleet.compose("build", timeout=300)
        fleet.up()
        yield fleet


@pytest.mark.parametrize("how", ["restart", "kill"])
def test_a_pool_survives_a_redis_that_restarts(fleet: Fleet, how: str) -> None:
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


def test_the_fleet_is_whole_afterwards(fleet: Fleet) -> None:
    fleet.up()
    said = fleet.producer("workers").stdout
    assert "3 hosts" in said
