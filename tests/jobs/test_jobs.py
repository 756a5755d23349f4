"""Jobs: the same result in every place, and none lost, done twice, or begun without the key, whatever happens."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click
import pytest
import redis
from click.testing import CliRunner

import lab
from lab import jobs
from lab.errors import ExitCode, LabError, WrongKey
from lab.fleet.counts import CHUNKS, REDELIVERED, read
from lab.fleet.embedded import EmbeddedFleet
from lab.fleet.hosts import JOBS
from lab.jobs import counter, mandelbrot, montecarlo, primes, wordcount
from lab.jobs.app import JobApp, make_job_app, open_body, seal_body
from lab.jobs.job import BadArgument, run_here
from lab.jobs.records import Job, Record, Records, job_key
from lab.keyring import Keyring
from lab.settings import Settings
from lab.store.store import Store
from lab.store.wire import LastingKeys
from producer.jobs import pictures, submit, watch
from producer.jobs.canvas import COMPOSE, Canvas
from producer.jobs.commands import COMMANDS
from producer.jobs.result import fetch
from tests import ROOT
from tests.kit import variables
from tests.kit.processes import alive
from tests.kit.server import Server
from tests.kit.wait import until
from worker.jobs.task import MOST_RUNS

OTHER_KEY = b"some other fleet's key"
SMALL: dict[str, dict[str, Any]] = {
    "primes": {"limit": 100_000, "chunks": 7},
    "mandelbrot": {"width": 64, "height": 40, "tile": 16, "iterations": 60},
    "wordcount": {},
    "montecarlo": {"darts": 20_000, "streams": 20, "seed": 7},
    "counter": {"adders": 4, "times": 30},
    "flaky": {"failures": 1},
}


PRODUCER = click.Group("producer", commands=list(COMMANDS))


class Bench:
    """A fleet that takes jobs, and a terminal at it."""

    def __init__(self, settings: Settings, folder: Path, authkey_file: str, directory: str) -> None:
        self.settings, self.folder, self.directory = settings, folder, Path(directory)
        self.app: JobApp = make_job_app(settings)
        self.redis = redis.Redis.from_url(settings.broker_url)
        self.env = variables.unset() | {
            "CROSSHOST_BROKER_URL": settings.broker_url,
            "CROSSHOST_AUTHKEY_FILE": authkey_file,
            "COLUMNS": "120",
            "CROSSHOST_KEEP": str(settings.keep),
        }

    def arguments(self, name: str) -> dict[str, Any]:
        return {"folder": str(self.folder)} if name == "wordcount" else SMALL[name]

    def send(self, name: str, soft_limit: int = 60, **arguments: Any) -> str:
        return submit.send(self.app, name, arguments or self.arguments(name), None, soft_limit).id

    def find(self, job_id: str) -> Job:
        return self.app.records.find(job_id)

    def until(self, job_id: str, condition: Callable[[Job], Any], seconds: float = 40) -> Job:
        deadline = time.monotonic() + seconds
        while not condition(job := self.find(job_id)):
            assert time.monotonic() < deadline, f"not within {seconds} s: {job}"
            time.sleep(0.03)
        return job

    def ended(self, job_id: str, seconds: float = 40) -> Job:
        return self.until(job_id, lambda job: job.ended, seconds)

    def result(self, job_id: str) -> Any:
        return fetch(self.app, self.ended(job_id))

    def start(self, *args: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "producer", *args], cwd=ROOT, env=self.env, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def command(self, *args: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the producer as a process of its own."""
        process = self.start(*args)
        out, err = process.communicate(timeout=60)
        assert "Traceback" not in err, err
        return subprocess.CompletedProcess(args, process.returncode, out, err)

    def producer(self, *args: str) -> subprocess.CompletedProcess[str]:
        """Run a command in this process, which is quicker; its error as the command line would show it."""
        with patch.dict(os.environ, self.env, clear=True):
            done = CliRunner().invoke(PRODUCER, args)
        if isinstance(done.exception, LabError):
            return subprocess.CompletedProcess(args, done.exception.exit_code, done.stdout, str(done.exception))
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return subprocess.CompletedProcess(args, done.exit_code, done.stdout, done.stderr)

    def log(self) -> str:
        return "".join(path.read_text(errors="replace") for path in self.directory.glob("*-jobs.log"))


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    for name in ("README.md", "pyproject.toml", "docs/security.md"):
        (folder / f"{Path(name).name}.txt").write_text((ROOT / name).read_text())
    return folder


@pytest.fixture(scope="module")
def bench(texts: Path) -> Iterator[Bench]:
    with EmbeddedFleet(Settings(hosts=2, slots=1, keep=3600), job_slots=2) as fleet:
        yield Bench(fleet.start(), texts, fleet.authkey_file, fleet.directory)


def here(name: str, arguments: dict[str, Any], place: str, workers: int = 2) -> Any:
    job = jobs.load(name)
    return run_here(job, job.check(arguments), lab.get_context(place), workers, lambda _done, _total: None)


def comparable(name: str, value: Any) -> Any:
    if name == "counter":
        return {mode: count for mode, count in value.items() if mode != "plain"}  # luck
    if name == "mandelbrot":
        return {**value, "tiles": [part["tile"] for part in value["tiles"]]}  # not who drew it
    return value


def started(job: Job) -> int:
    """Process id of the worker that is at a job's only running task; 0 if none is."""
    running = list(job.having("STARTED").values())
    return int(running[0].who.partition("/")[2]) if running else 0


# --- the work -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", jobs.JOBS)
def test_a_job_gives_the_same_on_threads_on_processes_and_on_the_cluster(bench: Bench, name: str) -> None:
    job_id = bench.send(name)
    local = [comparable(name, here(name, bench.arguments(name), place)) for place in ("threads", "processes")]
    remote = bench.result(job_id)
    assert comparable(name, remote) == local[0] == local[1]
    assert jobs.load(name).show(bench.arguments(name) | {"limit": 100_000}, remote)


@pytest.mark.parametrize("power", range(9))
def test_primes_are_as_many_as_is_known(power: int) -> None:
    assert primes.count(0, 10**power) == primes.KNOWN[10**power]


def test_primes_of_ranges_add_up_wherever_they_are_cut() -> None:
    edges = [0, 1, 2, 3, 4, 9, 10, 25, 26, 997, 998, 5_000, 300_001, 1_000_000]
    assert sum(primes.count(low, high) for low, high in pairwise(edges)) == 78_498


def test_a_job_of_one_chunk_needs_no_other(bench: Bench) -> None:
    assert bench.result(bench.send("primes", limit=100, chunks=1)) == 25


def test_pi_is_the_same_to_the_last_digit_for_any_number_of_workers() -> None:
    estimates = [here("montecarlo", SMALL["montecarlo"], "threads", workers) for workers in (1, 2, 5)]
    assert estimates[0] == estimates[1] == estimates[2]
    assert abs(estimates[0]["pi"] - 3.1416) < 0.06  # five sigma


def test_streams_do_not_repeat_each_other() -> None:
    assert len({montecarlo.throw(1, stream, 10_000)[0] for stream in range(20)}) > 10


def test_a_tree_of_merges_counts_like_one_run_over_all(
    bench: Bench, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serial = wordcount.count("\n".join(path.read_text() for path in texts.glob("*.txt")))
    monkeypatch.setattr(wordcount, "CHUNK", 800)
    pieces = wordcount.split(str(texts))
    assert len(pieces) > wordcount.FAN_IN**2  # so there are three levels
    canvas = Canvas(bench.app, "x", {}, "jobs", 60)
    COMPOSE["wordcount"](canvas, pieces)
    assert len(canvas.tasks) - len(pieces) > wordcount.FAN_IN
    assert bench.result(bench.send("wordcount", folder=str(texts))) == serial


def test_the_counter_loses_updates_without_a_lock_and_none_with_one(bench: Bench) -> None:
    job = bench.ended(bench.send("counter", adders=6, times=40))
    counted = fetch(bench.app, job)
    assert len(job.workers) > 1
    assert counted["plain"] < counted["expected"] == 240
    assert counted["locked"] == counted["atomic"] == 240


def test_the_pictures_show_the_set_and_who_drew_it(bench: Bench) -> None:
    value = bench.result(bench.send("mandelbrot", width=96, height=64, tile=16, iterations=100))
    image, by_worker = pictures.image(value), pictures.by_worker(value)
    assert image.size == by_worker.size == (96, 64)
    assert image.convert("RGB").getpixel((70, 32)) == (0, 0, 0)  # 0 lies inside
    assert image.convert("RGB").getpixel((1, 1)) != (0, 0, 0)
    first, *others = ({"tile": [x, 0, 16, 16], "who": who} for x, who in ((0, "a"), (16, "a"), (32, "b")))
    three = {"width": 48, "height": 16, "pixels": value["pixels"][:0] + "AQEB" * 256, "tiles": [first, *others]}
    flat = pictures.by_worker(three)
    assert flat.getpixel((0, 0)) == flat.getpixel((31, 15)) != flat.getpixel((32, 0))


@pytest.mark.parametrize(
    ("work", "chunk"),
    [
        (primes.count, (0, 10**9)), (primes.count, (5, 4)), (primes.count, ("0", 4)), (primes.count, (True, 4)),
        (mandelbrot.draw, (0, 0, 16, 16, 10**6, 16, 10)), (mandelbrot.draw, (60, 0, 16, 16, 64, 16, 10)),
        (mandelbrot.draw, (0, 0, 16, 16, 16, 16, 10**9)), (wordcount.count, ("x" * (wordcount.CHUNK + 1),)),
        (wordcount.count, (7,)), (montecarlo.throw, (1, 1, 10**12)), (counter.add, (None, "plain", 1, 10**9)),
        (counter.add, (None, "other", 1, 1)),
    ],
)  # fmt: skip
def test_a_chunk_out_of_bounds_is_refused_before_any_work(work: Callable[..., Any], chunk: tuple[Any, ...]) -> None:
    begun = time.perf_counter()
    with pytest.raises(BadArgument, match="has to be"):
        work(*chunk)
    assert time.perf_counter() - begun < 0.5


def test_a_folder_that_is_too_large_or_empty_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadArgument, match=r"no \*.txt"):
        wordcount.split(str(tmp_path))
    (tmp_path / "a.txt").write_text("word " * 100)
    monkeypatch.setattr(wordcount, "MOST_CHARACTERS", 400)
    with pytest.raises(BadArgument, match="more than"):
        wordcount.split(str(tmp_path))


# --- what goes wrong ------------------------------------------------------------------------------------------------


def test_a_chunk_whose_worker_process_is_killed_runs_on_another(bench: Bench) -> None:
    job_id = bench.send("flaky", failures=0, seconds=2)
    first = started(bench.until(job_id, started))
    os.kill(first, signal.SIGKILL)
    job = bench.ended(job_id)
    assert fetch(bench.app, job) == {"tries": 1}
    assert len({who.partition("/")[2] for who in job.workers} - {str(first)}) >= 1


def test_the_locked_and_the_atomic_counter_are_exact_although_workers_are_killed(bench: Bench) -> None:
    job_id = bench.send("counter", adders=4, times=300)
    killed: set[int] = set()
    for _ in range(2):
        job = bench.until(job_id, lambda job: job.ended or started(job) not in (*killed, 0))
        if not job.ended:
            killed.add(started(job))
            os.kill(started(job), signal.SIGKILL)
    counted = bench.result(job_id)
    assert len(killed) == 2
    assert counted["locked"] == counted["atomic"] == counted["expected"] == 1200


def test_a_chunk_that_takes_every_worker_with_it_is_given_up(bench: Bench) -> None:
    job_id = bench.send("flaky", failures=0, seconds=60)
    killed: set[int] = set()
    for _ in range(MOST_RUNS):
        job = bench.until(job_id, lambda job: started(job) not in (*killed, 0))
        killed.add(started(job))
        os.kill(started(job), signal.SIGKILL)
    job = bench.ended(job_id)
    assert job.state == "failed"
    assert "given up" in next(iter(job.having("FAILURE").values())).error
    assert bench.result(bench.send("primes", limit=1000, chunks=2)) == 168


def test_a_task_is_tried_again_after_1_and_2_seconds(bench: Bench) -> None:
    begun = time.monotonic()
    job_id = bench.send("flaky", failures=2)
    job = bench.until(job_id, lambda job: job.having("RETRY"))
    assert "try 1 of 3 failed" in next(iter(job.having("RETRY").values())).error
    assert bench.result(job_id) == {"tries": 3}
    assert time.monotonic() - begun >= 3.0


def test_a_chunk_over_its_soft_limit_fails_in_words(bench: Bench) -> None:
    job = bench.ended(bench.send("flaky", soft_limit=1, failures=0, seconds=60), seconds=15)
    assert job.state == "failed"
    assert "SoftTimeLimitExceeded" in next(iter(job.having("FAILURE").values())).error


def test_a_chunk_that_ignores_its_soft_limit_is_killed_at_the_hard_one(bench: Bench) -> None:
    job_id = bench.send("flaky", soft_limit=1, failures=0, seconds=60, stubborn=1)
    pid = started(bench.until(job_id, started))
    job = bench.ended(job_id, seconds=25)
    assert "TimeLimitExceeded" in next(iter(job.having("FAILURE").values())).error
    until(lambda: not alive(pid), "it has ended", 5)


def test_a_cancelled_job_ends_where_it_runs_and_is_not_begun_where_it_waits(bench: Bench) -> None:
    running = [bench.send("flaky", failures=0, seconds=60) for _ in range(4)]  # all slots
    pids = [started(bench.until(job_id, started)) for job_id in running]
    waiting = bench.send("primes", limit=1000, chunks=3)
    for job_id in (waiting, *running):
        done = bench.producer("cancel", job_id)
        assert done.returncode == 0, done.stderr
        assert "is cancelled" in done.stdout
    assert {bench.find(job_id).state for job_id in (waiting, *running)} == {"cancelled"}
    until(lambda: not any(map(alive, pids)), "they have ended", 10)
    assert bench.result(bench.send("primes", limit=1000, chunks=2)) == 168
    assert bench.find(waiting).done == 0
    again = bench.producer("cancel", waiting)
    assert again.returncode == 0
    assert again.stdout == f"{waiting} was cancelled before: 0 of 4 tasks were done.\n"
    assert bench.producer("result", waiting).returncode == ExitCode.JOB_FAILED


def test_a_job_that_has_ended_is_not_cancelled_and_keeps_its_result(bench: Bench) -> None:
    done, failed = bench.send("primes", limit=1000, chunks=2), bench.send("flaky", soft_limit=1, seconds=60)
    for job_id, state, see in ((done, "done", "result"), (failed, "failed", "status")):
        assert bench.ended(job_id).state == state
        refused = bench.producer("cancel", job_id)
        assert refused.returncode == ExitCode.JOB_ENDED
        assert f"{job_id} is {state} already; there is nothing to cancel." in refused.stderr
        assert f"See: producer {see} {job_id}" in refused.stderr
        assert bench.find(job_id).state == state
    assert bench.result(done) == 168


def test_a_job_of_a_length_one_chooses_is_watched_survives_a_worker_and_is_cancelled(bench: Bench) -> None:
    submitted = bench.producer("submit", "montecarlo", "--seconds", "60", "--streams", "480")
    job_id = submitted.stdout.strip()
    bench.until(job_id, lambda job: job.done >= 1)
    watching = bench.start("watch", job_id)
    assert watching.stderr
    assert "tasks done, " in watching.stderr.readline()
    job = bench.until(job_id, lambda job: job.having("STARTED"))
    name, task = next(iter(job.having("STARTED").items()))
    os.kill(int(task.who.partition("/")[2]), signal.SIGKILL)
    bench.until(job_id, lambda job: job.tasks[name].state == "SUCCESS")
    assert bench.producer("cancel", job_id).returncode == 0
    _, err = watching.communicate(timeout=20)
    assert watching.returncode == ExitCode.JOB_FAILED
    assert f"{job_id} was cancelled, " in err
    job = bench.find(job_id)
    assert 2 <= job.done < len(job.tasks) == 61


def test_the_seconds_of_a_job_become_darts_that_give_the_same_again() -> None:
    job = jobs.load("montecarlo")
    settled = job.check({"seconds": 1, "streams": 20})
    assert settled["seconds"] == 0
    assert settled["darts"] > 200_000
    assert job.check(settled) == settled
    begun = time.process_time()
    parts = [job.work(*chunk) for chunk in job.cut(settled)]
    assert 0.3 < time.process_time() - begun < 3.0
    assert job.merge(parts) == job.merge([job.work(*chunk) for chunk in job.cut(settled)])


def test_more_seconds_than_its_streams_can_hold_name_the_streams_it_takes() -> None:
    job = jobs.load("montecarlo")
    with pytest.raises(BadArgument, match=r"--streams 31$"):
        job.cut(job.check({"darts": 300_000_001}) | {"streams": 3})


def test_a_worker_that_has_not_heard_of_a_cancellation_does_not_begin_either(bench: Bench) -> None:
    job_id, messages = parked(bench, "primes", limit=1000, chunks=3)
    bench.app.records.cancel(job_id)  # and no broadcast
    bench.redis.lpush("crosshost:celery:jobs", *messages)
    bench.until(job_id, lambda job: len(job.having("REVOKED")) == 3)
    assert bench.find(job_id).state == "cancelled"


# --- who may ask ----------------------------------------------------------------------------------------------------


def parked(bench: Bench, name: str, **arguments: Any) -> tuple[str, list[bytes]]:
    """Submit a chord to a queue that no worker takes from: its id, and its header's messages as they are in Redis."""
    job = jobs.load(name)
    checked = job.check(arguments)
    canvas = Canvas(bench.app, f"{name}-{os.urandom(4).hex()}", checked, "parked", 60)
    composed = COMPOSE[name](canvas, job.cut(checked))
    composed.body.set(queue="jobs")  # only the header is parked
    bench.app.records.add(Record(canvas.job_id, name, checked, time.time(), canvas.tasks, canvas.merged))
    composed.apply_async()
    messages: Any = bench.redis.lrange("crosshost:celery:parked", 0, -1)
    bench.redis.delete("crosshost:celery:parked")
    assert messages
    return canvas.job_id, list(messages)


def test_a_message_that_is_not_sealed_with_the_fleets_key_is_refused_and_reported(bench: Bench) -> None:
    forger = make_job_app(replace(bench.settings, authkey=OTHER_KEY))
    job_id, _ = parked(bench, "primes", limit=1000, chunks=2)
    task = forger.signature("jobs.primes.count", args=(0, 10))
    task.apply_async(task_id=f"{job_id}.1", queue="jobs")
    starmap = forger.signature("celery.starmap", kwargs={"task": task, "it": [[0, 10]]})
    starmap.apply_async(task_id=f"{job_id}.2", queue="jobs")
    deadline = time.monotonic() + 10
    while bench.log().count(f"[{job_id}.") < 2:
        assert time.monotonic() < deadline, bench.log()
        time.sleep(0.05)
    assert bench.log().count("is not sealed with the fleet's key; it was not executed") >= 2
    assert bench.find(job_id).workers == ()
    assert bench.find(job_id).state == "queued"
    assert bench.result(bench.send("primes", limit=1000, chunks=2)) == 168


def test_a_body_opens_with_all_that_says_what_is_run_and_with_nothing_else() -> None:
    keys, body = LastingKeys(Keyring(b"k" * 32), "jobs"), [[1], {"x": None}, {"chord": None}]
    headers = {"task": "t", "id": "1", "root_id": "r", "parent_id": None, "group": "g", "group_index": 0,
               "retries": 0, "timelimit": [1, 2], "eta": None, "expires": None}  # fmt: skip
    text = seal_body(keys, headers, json.dumps(body))
    assert open_body(keys, headers, [[text], {}, {}]) == body
    for name in headers:
        with pytest.raises(WrongKey):
            open_body(keys, {**headers, name: "other"}, [[text], {}, {}])
    for other in (OTHER_KEY, b"l" * 32):
        with pytest.raises(WrongKey):
            open_body(LastingKeys(Keyring(other), "jobs"), headers, [[text], {}, {}])
    malformed: Any = (body, [[], {}, {}], [[7], {}, {}], [["?"], {}, {}], {"args": 1}, "text", None, 7, [text])
    for forged in malformed:
        with pytest.raises(WrongKey):
            open_body(keys, headers, forged)


def test_nothing_of_a_job_but_what_it_is_called_can_be_read_in_redis(bench: Bench) -> None:
    job_id, messages = parked(bench, "primes", limit=918_273, chunks=2)
    stored: list[Any] = [bench.redis.hget(job_key(job_id), "record"), *messages]
    bench.redis.lpush("crosshost:celery:jobs", *messages)
    bench.result(job_id)
    results: Any = bench.redis.keys(f"crosshost:result:celery-task-meta-{job_id}*")
    stored += map(bench.redis.get, results)
    assert len(stored) >= 4
    assert not [blob for blob in stored if b"918273" in blob or b"459136" in blob]


def test_a_part_of_another_chord_is_refused_and_the_chord_fails(bench: Bench) -> None:
    (mine, messages), (_, others) = (parked(bench, "primes", limit=limit, chunks=2) for limit in (1000, 100_000))
    client: Any = bench.redis
    parts: list[tuple[bytes, Any]] = []
    for first in (messages[0], others[0]):
        before = set(client.keys("crosshost:result:*.j"))
        client.lpush("crosshost:celery:jobs", first)
        until(lambda before=before: set(client.keys("crosshost:result:*.j")) - before, "a part is kept", 10)  # type: ignore[misc]
        (key,) = set(client.keys("crosshost:result:*.j")) - before
        parts.append((key, client.zrange(key, 0, -1, withscores=True)))
    (key, [(genuine, score)]), (_, [(foreign, _)]) = parts
    client.zrem(key, genuine)
    client.zadd(key, {foreign: score})
    client.lpush("crosshost:celery:jobs", messages[1])
    job = bench.ended(mine)
    assert job.state == "failed"
    assert "refused unread" in job.tasks[mine].error


def test_a_message_that_comes_twice_or_is_sent_again_does_nothing_twice(bench: Bench) -> None:
    job_id, messages = parked(bench, "counter", adders=2, times=20)
    bench.redis.lpush("crosshost:celery:jobs", *messages, *messages)
    counted = bench.result(job_id)
    assert counted["locked"] == counted["atomic"] == counted["expected"] == 40
    bench.redis.lpush("crosshost:celery:jobs", *messages)
    runs = job_key(job_id, "runs", "*")
    bench.until(job_id, lambda _: sum(map(bench.redis.scard, bench.redis.keys(runs))) >= 3 * len(messages) + 1)
    values = {mode: int(bench.redis.get(job_key(job_id, "cell", mode)) or 0) for mode in counter.MODES}
    assert values["locked"] == values["atomic"] == 40


def test_a_message_of_a_job_that_has_expired_is_not_executed(bench: Bench) -> None:
    job_id, messages = parked(bench, "counter", adders=1, times=5)
    bench.redis.delete(job_key(job_id))
    bench.redis.lpush("crosshost:celery:jobs", *messages)
    deadline = time.monotonic() + 10
    while bench.log().count(f"{job_id}.") < 3:
        assert time.monotonic() < deadline, bench.log()
        time.sleep(0.05)
    assert not any(bench.redis.exists(job_key(job_id, "cell", mode)) for mode in counter.MODES)


def test_a_forged_or_copied_result_is_refused(bench: Bench) -> None:
    job_id, other = bench.send("primes"), bench.send("primes", limit=1000, chunks=2)
    assert bench.result(job_id) == 9592
    assert bench.result(other) == 168
    key, source = (f"crosshost:result:celery-task-meta-{name}" for name in (job_id, other))
    true: Any = bench.redis.get(key)
    forged = b"".join([true[:-1], bytes([true[-1] ^ 1])])
    for payload in (b"{}", forged, bench.redis.get(source)):
        bench.redis.set(key, payload, ex=60)  # type: ignore[arg-type]
        done = bench.producer("result", job_id)
        assert done.returncode == ExitCode.WRONG_KEY, done.stdout
        assert "refused" in done.stderr


# --- the commands ---------------------------------------------------------------------------------------------------


def test_a_job_is_submitted_watched_and_fetched_from_separate_commands(bench: Bench) -> None:
    submitted = bench.command("submit", "primes", "--limit", "1000000")
    assert submitted.returncode == 0, submitted.stderr
    (job_id,) = submitted.stdout.split()  # nothing but the id
    assert f"producer watch {job_id}" in submitted.stderr
    watched = bench.producer("watch", job_id)
    assert watched.returncode == 0, watched.stderr
    assert f"producer result {job_id}" in watched.stderr
    found = bench.command("result", job_id)
    assert found.stdout == "78,498 primes below 1,000,000\nas is known\n"
    assert json.loads(bench.producer("result", job_id, "--json").stdout)["result"] == 78498
    listed = {job["id"]: job for job in json.loads(bench.producer("jobs", "--json").stdout)}
    assert (listed[job_id]["state"], listed[job_id]["done"], listed[job_id]["total"]) == ("done", 17, 17)
    assert job_id in bench.producer("jobs").stdout


def test_ctrl_c_ends_the_watching_and_not_the_job(bench: Bench) -> None:
    job_id = bench.send("flaky", failures=0, seconds=60)
    pid = started(bench.until(job_id, started))
    process = bench.start("watch", job_id)
    assert process.stderr
    assert job_id in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert f"producer watch {job_id}" in err
    assert started(bench.find(job_id)) == pid
    assert alive(pid)
    assert bench.producer("cancel", job_id).returncode == 0


def test_what_is_not_ready_unknown_or_expired_is_said_with_an_exit_code(bench: Bench) -> None:
    job_id = bench.send("flaky", failures=0, seconds=60)
    bench.until(job_id, started)
    early = bench.producer("result", job_id)
    assert early.returncode == ExitCode.NOT_READY
    assert "running" in early.stderr
    full = bench.producer("status", job_id)
    assert "flaky" in full.stdout
    assert "host-" in full.stdout
    assert bench.producer("cancel", job_id).returncode == 0
    for command in ("status", "watch", "result", "cancel"):
        unknown = bench.producer(command, job_id[:-1] + "_")
        assert unknown.returncode == ExitCode.NO_SUCH_JOB
        assert f"Did you mean {job_id}?" in unknown.stderr
    gone = bench.send("primes")
    bench.ended(gone)
    bench.redis.delete(f"crosshost:result:celery-task-meta-{gone}")
    expired = bench.producer("result", gone)
    assert expired.returncode == ExitCode.NO_SUCH_JOB
    assert "has expired" in expired.stderr
    bench.redis.delete(job_key(gone))
    assert gone not in bench.producer("jobs").stdout


def test_everything_that_a_job_leaves_in_redis_expires(bench: Bench) -> None:
    assert bench.result(bench.send("counter"))
    found = [key for pattern in ("crosshost:job*", "crosshost:result:*") for key in bench.redis.scan_iter(pattern)]
    assert found
    for key in found:
        left = int(bench.redis.pttl(key))
        assert 0 < left <= 3600 * 1000 or left == -2, key  # -2: it is gone by now


def test_wrong_input_names_what_is_right(bench: Bench) -> None:
    unknown = bench.command("submit", "prime")
    assert unknown.returncode == ExitCode.USAGE
    assert "Did you mean 'primes'?" in unknown.stderr
    bad = bench.producer("submit", "primes", "--limit", "1000000000")
    assert bad.returncode == ExitCode.USAGE
    assert "1<=x<=100000000" in bad.stderr
    tiles = bench.producer("submit", "mandelbrot", "--width", "2000", "--height", "2000", "--tile", "16")
    assert tiles.returncode == ExitCode.USAGE
    assert "15625 chunks; a job has from 1 to 1000" in tiles.stderr
    assert json.loads(bench.producer("jobs", "--json").stdout)  # and nothing of them is recorded
    with patch.dict(bench.env, {"CROSSHOST_BROKER_URL": ""}):
        nowhere = bench.producer("submit", "primes")
    assert nowhere.returncode == ExitCode.NO_WORKERS
    assert "producer fleet" in nowhere.stderr
    assert "--on processes" in nowhere.stderr


def test_a_job_runs_here_without_a_fleet_and_writes_its_pictures(tmp_path: Path, bench: Bench) -> None:
    size = ("--width", "64", "--height", "32", "--tile", "16")
    for place in ("threads", "processes"):
        done = bench.producer("submit", "mandelbrot", *size, "--on", place, "--output", str(tmp_path))
        assert done.returncode == 0, done.stderr
        assert "8 tiles" in done.stdout
        for kind in ("image", "workers"):
            assert (tmp_path / f"mandelbrot-{kind}.png").read_bytes().startswith(b"\x89PNG")
            (tmp_path / f"mandelbrot-{kind}.png").unlink()


def test_ctrl_c_ends_a_job_on_this_host_in_silence(bench: Bench) -> None:
    process = bench.start("submit", "montecarlo", "--darts", "100000000", "--on", "processes")
    assert process.stderr
    assert "/64" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "leaked" not in err


# --- the roles of a real fleet --------------------------------------------------------------------------------------


@pytest.fixture
def guarded() -> Iterator[Server]:
    """A Valkey with the users of deploy/acl; their passwords are in secrets/ of its folder."""
    folder = Path(
        subprocess.run(["mktemp", "-d", "/tmp/ch-XXXXXX"], capture_output=True, text=True, check=True).stdout.strip()
    )
    subprocess.run(["cp", "-r", ROOT / "deploy", folder / "deploy"], check=True)
    subprocess.run(["sh", "deploy/setup"], cwd=folder, check=True, capture_output=True)
    login = f"worker:{(folder / 'secrets/worker_password').read_text().strip()}@"
    try:
        with Server(folder, "--aclfile", f"{folder}/secrets/redis_acl", login=login) as server:
            yield server
    finally:
        subprocess.run(["rm", "-rf", folder], check=True)


def as_role(server: Server, role: str) -> dict[str, str]:
    """The variables of a program that is one of the roles."""
    return {
        "CROSSHOST_BROKER_URL": f"unix://{role}@{server.socket}",
        "CROSSHOST_PASSWORD_FILE": f"{server.directory}/secrets/{role}_password",
        "CROSSHOST_AUTHKEY_FILE": f"{server.directory}/secrets/authkey",
    }


def bench_at(server: Server, texts: Path) -> Bench:
    """A terminal of the producer's role at a fleet that has no workers yet."""
    env = as_role(server, "producer")
    bench = Bench(Settings.from_env(env), texts, env["CROSSHOST_AUTHKEY_FILE"], str(server.directory))
    bench.env |= env
    return bench


def test_each_role_may_do_what_jobs_need_and_no_more(guarded: Server, texts: Path) -> None:
    bench = bench_at(guarded, texts)
    waiting = bench.send("primes")
    assert bench.find(waiting).state == "queued"  # no worker yet
    with (guarded.directory / "worker-jobs.log").open("wb") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "worker", "--slots", "2", "--name", "w", "--queues", "jobs,jobs.long"],
            env=variables.unset() | as_role(guarded, "worker"), stdout=log, stderr=log,
        )  # fmt: skip
    try:
        assert bench.result(waiting) == 9592
        for name in jobs.JOBS:
            assert comparable(name, bench.result(bench.send(name))) is not None
        job_id = bench.send("flaky", failures=0, seconds=60)
        bench.until(job_id, started)
        bench.app.records.cancel(job_id)
        bench.app.control.revoke([f"{job_id}.1"], terminate=True)
        bench.until(job_id, lambda job: job.having("REVOKED"))
        execute: Any = bench.redis.execute_command
        for command in (
            ("SET", f"crosshost:result:celery-task-meta-{job_id}", "x"),
            ("RPOP", "crosshost:celery:jobs"),
            ("HSET", "crosshost:host:jobs:w", "key", "x"),
            ("KEYS", "*"),
        ):
            with pytest.raises(redis.exceptions.NoPermissionError):
                execute(*command)
        monitor = Settings.from_env(as_role(guarded, "monitor"))
        with pytest.raises(redis.exceptions.NoPermissionError):
            redis.Redis.from_url(monitor.broker_url).delete(job_key(job_id))
        assert "NOPERM" not in bench.log()
    finally:
        worker.kill()
        worker.wait()


def test_a_job_without_workers_waits_and_says_so_and_a_lost_broker_ends_the_watching(
    guarded: Server, texts: Path
) -> None:
    bench = bench_at(guarded, texts)
    bench.env["CROSSHOST_OUTAGE"] = "1"
    submitted = bench.producer("submit", "primes")
    assert submitted.returncode == 0
    assert "waits in the queue" in submitted.stderr
    job_id = submitted.stdout.strip()
    assert "No host takes jobs" in bench.producer("status", job_id).stdout
    process = bench.start("watch", job_id)
    assert process.stderr
    assert "queued" in process.stderr.readline()
    assert guarded.client.ping()
    guarded.kill()
    _, err = process.communicate(timeout=30)
    assert process.returncode == ExitCode.BROKER_UNREACHABLE
    assert f"producer watch {job_id}" in err


def test_records_are_sealed(bench: Bench) -> None:
    job_id = bench.send("primes")
    bench.ended(job_id)
    forged = Records(Store(bench.settings.broker_url), replace(bench.settings, authkey=OTHER_KEY))
    with pytest.raises(WrongKey):
        forged.find(job_id)
    assert watch.summary(bench.find(job_id))["state"] == "done"


def test_a_chunk_whose_host_is_killed_runs_on_another_within_its_lease(bench: Bench) -> None:
    job_id = bench.send("flaky", failures=0, seconds=2)
    job = bench.until(job_id, started)
    (task,) = job.having("STARTED").values()
    pid = task.who.partition("/")[2]
    parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(parent, signal.SIGKILL)
    job = bench.ended(job_id)
    assert fetch(bench.app, job) == {"tries": 1}
    assert {who.partition("/")[0] for who in job.workers} == {"host-1", "host-2"}
    until(lambda: counted(bench, REDELIVERED) >= 1, "who has it now counts that another one had it")


# --- what is counted ------------------------------------------------------------------------------------------------


def counted(bench: Bench, what: str) -> int:
    """What all hosts for jobs have counted; of times, how many."""
    hosts = read(Store(bench.settings.broker_url), ["host-1", "host-2"], JOBS)
    return sum(sum(its[what][:-1] or its[what]) for its in hosts.values())


def test_hosts_count_the_chunks_that_they_run(bench: Bench) -> None:
    before = counted(bench, CHUNKS)
    job = bench.ended(bench.send("primes", limit=1_000_000))
    until(lambda: counted(bench, CHUNKS) >= before + len(job.having("SUCCESS")), "each chunk is counted")
