"""Jobs, maps and scripts of one's own from producer containers, over workers in others."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.kit import composed
from tests.kit.composed import Fleet
from tests.kit.wait import within

pytestmark = composed.MARKS


@pytest.fixture(autouse=True)
def _up(fleet: Fleet) -> None:
    fleet.up()


def test_a_counter_over_two_containers_is_exact_with_a_lock_and_atomically(fleet: Fleet) -> None:
    submitted = fleet.producer("submit", "counter", "--adders", "6", "--times", "40", "--wait", "--json")
    counted = json.loads(submitted.stdout)["result"]
    assert counted["expected"] == counted["locked"] == counted["atomic"] == 240
    assert counted["plain"] < 240
    job = json.loads(fleet.producer("jobs", "--json").stdout)[-1]
    assert job["name"] == "counter"
    assert job["state"] == "done"
    assert {worker.partition("/")[0] for worker in job["workers"]} == fleet.hosts("jobs")
    assert len(fleet.hosts("jobs")) == 2


def test_a_job_is_submitted_watched_and_fetched_by_three_containers(fleet: Fleet) -> None:
    job_id = fleet.producer("submit", "primes", "--limit", "10000000").stdout.strip()
    fleet.producer("watch", job_id)
    assert "664,579 primes below 10,000,000" in fleet.producer("result", job_id).stdout


def test_a_chunk_that_a_stopped_worker_cannot_finish_runs_on_another(fleet: Fleet) -> None:
    def state() -> str:
        return str(json.loads(fleet.producer("status", job_id, "--json").stdout)["tasks"][f"{job_id}.1"]["state"])

    before = fleet.hostnames("jobs")
    job_id = fleet.producer("submit", "flaky", "--failures", "0", "--seconds", "9").stdout.strip()
    assert within(30, lambda: state() == "STARTED")
    begun = time.monotonic()
    fleet.compose("up", "-d", "--wait", "--no-build", "--force-recreate", "jobs")
    assert time.monotonic() - begun < 19  # nobody had to be killed when the grace period was over
    assert fleet.hostnames("jobs").isdisjoint(before)
    fleet.producer("watch", job_id)
    assert state() == "SUCCESS"
    # that it was handed over does not count: three rolling restarts are not three deaths
    kept = [
        fleet.redis("worker", "SCARD", f"crosshost:job:{job_id}:{kind}:{job_id}.1/0") for kind in ("runs", "handed")
    ]
    assert list(map(int, kept)) == [2, 1]


MINE = """
import socket
from multiprocessing import Pool

from neighbour import where

if __name__ == "__main__":
    with Pool(6) as pool:
        print(*sorted(set(pool.map(where, range(60), chunksize=1))), "not", socket.gethostname())
"""
NEIGHBOUR = """
import socket, time

def where(n):
    time.sleep(0.05)
    return socket.gethostname()

def words(line):
    return [socket.gethostname(), len(line.split())]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as a user has it, with names that the lab has too."""
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "neighbour.py").write_text(NEIGHBOUR)
    (tmp_path / "producer.py").write_text("raise SystemExit('not this one')")
    return tmp_path


@pytest.mark.parametrize("user", [None, "4711:4711"])
def test_a_script_of_this_machine_runs_on_the_fleet(fleet: Fleet, folder: Path, user: str | None) -> None:
    folder.chmod(0o755)
    words = ["run", "--rm", "-T", *(["--user", user] if user else []), "-v", f"{folder}:/work:ro", "-w", "/work"]
    ran = fleet.compose(*words, "producer", "run", "mine.py").stdout.split()
    hosts, here = ran[: ran.index("not")], ran[-1]
    assert here not in hosts
    assert set(hosts) <= fleet.hostnames("worker")
    assert len(hosts) > 1


def test_a_map_reads_a_pipe_and_writes_one(fleet: Fleet, folder: Path) -> None:
    folder.chmod(0o755)
    words = ["run", "--rm", "-T", "-v", f"{folder}:/work:ro", "-w", "/work", "producer"]
    words += ["map", "neighbour.py:words", "-", "--on", "cluster"]
    done = fleet.compose(*words, input="one\none two\n\n" * 100)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [count for _, count in answers] == [1, 2, 0] * 100
    assert {host for host, _ in answers} <= fleet.hostnames("worker")
    assert "300 done, 0 failed" in done.stderr
