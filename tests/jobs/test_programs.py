"""Programs that outlive the terminal: the same program on a host, followed from anywhere, never run twice unasked."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click
import pytest
import redis
from click.testing import CliRunner

from lab.errors import ExitCode, LabError, WrongKey
from lab.fleet.embedded import EmbeddedFleet
from lab.fleet.hosts import JOBS, list_hosts
from lab.jobs import programs
from lab.jobs.app import LONG, JobApp, make_job_app
from lab.jobs.programs import STDERR, STDOUT, TASK, Asked, End, Programs
from lab.jobs.records import Job, Record, job_key
from lab.program import along
from lab.settings import Settings
from producer import cli
from tests import ROOT
from tests.kit import variables
from tests.kit.processes import alive
from tests.kit.server import Server
from tests.kit.wait import until, within

PRODUCER: click.Command = cli.main

SCRIPT = """
import multiprocessing, os, sys, time
from beside import square

def pids(_):
    print("child", os.getpid(), flush=True)
    time.sleep(60)

def squares(n):
    with multiprocessing.Pool(2) as pool:
        return {"given": n, "squares": pool.map(square, range(n))}

def nothing(): return None
def a_set(_): return {1}
def fails(value): return 1 / value
def leaves(_): sys.exit(0)
async def later(_): pass

if __name__ == "__main__":
    what, *args = sys.argv[1:]
    print("root", os.getpid(), flush=True)
    if what == "squares":
        print(args, "to stdout")
        print("to stderr", file=sys.stderr)
        print(squares(4)["squares"])
        sys.exit(int(args[0]))
    elif what == "wait":
        until = time.time() + float(args[0])
        n = 0
        while time.time() < until:
            print("tick", n, flush=True)
            n += 1
            time.sleep(0.1)
    elif what == "children":
        with multiprocessing.Pool(2) as pool:
            pool.map(pids, range(2), chunksize=1)
    elif what == "orphan":
        import subprocess
        print("orphan", subprocess.Popen(["sleep", "60"]).pid)
"""


class Terminal:
    """A terminal at a fleet, in a folder with programs."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings, self.folder = settings, folder
        self.app: JobApp = make_job_app(settings)
        self.redis: Any = redis.Redis.from_url(settings.broker_url)
        self.programs = Programs(self.app.records)
        self.env = variables.leading_to(settings) | {"COLUMNS": "120", "PYTHONPATH": str(ROOT)}

    def producer(self, *args: str, given: bytes | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command in this process, which is quicker."""
        before = os.getcwd()
        os.chdir(self.folder)
        try:
            with patch.dict(os.environ, self.env, clear=True):
                done = CliRunner().invoke(PRODUCER, args, input=given, standalone_mode=True)
        finally:
            os.chdir(before)
            for name in (signal.SIGTERM, signal.SIGINT):
                signal.signal(name, signal.default_int_handler if name == signal.SIGINT else signal.SIG_DFL)
        assert not isinstance(done.exception, LabError), done.exception
        return subprocess.CompletedProcess(args, done.exit_code, done.stdout, done.stderr)

    def start(self, *args: str) -> subprocess.Popen[str]:
        """Run one as a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "producer", *args], cwd=self.folder, env=self.env, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def send(self, *args: str, given: bytes | None = None) -> str:
        sent = self.producer(*args, given=given)
        assert sent.returncode == 0, sent.stderr
        return sent.stdout.strip()

    def find(self, job_id: str) -> Job:
        return self.app.records.find(job_id)

    def printed(self, job_id: str) -> str:
        """All that is kept of what it has printed."""
        text, number = b"", 0
        while (read := self.programs.read(job_id, number)).pieces:
            text += b"".join(data for _, data in read.pieces)
            number = read.following
        return text.decode()

    def wait_for(self, job_id: str, text: str, seconds: float = 40) -> str:
        until(lambda: text in self.printed(job_id), f"{text!r} is printed", seconds)
        return self.printed(job_id)

    def ended(self, job_id: str, seconds: float = 40) -> Job:
        until(lambda: self.find(job_id).ended, "it ends", seconds)
        return self.find(job_id)


def numbers(text: str, word: str) -> list[int]:
    return [int(line.split()[1]) for line in text.splitlines() if line.startswith(f"{word} ")]


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's programs."""
    folder = tmp_path_factory.mktemp("programs")
    (folder / "prog.py").write_text(SCRIPT)
    (folder / "beside.py").write_text("def square(x):\n    return x * x\n")
    (folder / "quiet.py").write_text("import sys, time\ntime.sleep(float(sys.argv[1]))\nprint('over')\n")
    (folder / "broken.py").write_text("def f(:\n")
    with open(folder / "large", "wb") as large:
        large.truncate(along.LIMIT + 1)
    (folder / "pack").mkdir()
    (folder / "pack" / "__init__.py").write_text("")
    (folder / "pack" / "cube.py").write_text("def cube(x):\n    return x**3\n")
    (folder / "pack" / "__main__.py").write_text(
        "import multiprocessing, sys\nfrom .cube import cube\n"
        "if __name__ == '__main__':\n    with multiprocessing.Pool(2) as pool:\n"
        "        print(pool.map(cube, range(3)), sys.argv[1:])\n"
    )
    return folder


@pytest.fixture(scope="module")
def terminal(folder: Path) -> Iterator[Terminal]:
    """Two hosts that come back when they are killed."""
    with EmbeddedFleet(Settings(hosts=2, slots=1, keep=3600, lease=2.0), job_slots=2, durable=True) as fleet:
        yield Terminal(fleet.start(), folder)


# --- what runs


def test_a_script_runs_on_a_host_and_is_watched_from_its_beginning_to_its_exit_code(terminal: Terminal) -> None:
    job_id = terminal.send("run", "--detach", "prog.py", "--", "squares", "3", "--on")
    terminal.ended(job_id)
    for _ in range(2):  # from any terminal, and again
        watched = terminal.producer("watch", job_id)
        assert watched.returncode == ExitCode.JOB_FAILED
        assert "['3', '--on'] to stdout\n[0, 1, 4, 9]\n" in watched.stdout
        assert "to stderr" in watched.stderr
        assert "exit code 3" in watched.stderr
    (root,) = numbers(watched.stdout, "root")
    assert not alive(root)
    assert "exit code 3" in terminal.producer("result", job_id).stderr
    assert "exit code 3" in terminal.producer("status", job_id).stdout
    assert job_id in terminal.producer("jobs").stdout


def test_a_module_and_what_standard_input_says_run_as_well(terminal: Terminal) -> None:
    module = terminal.send("run", "--detach", "-m", "pack", "a", "-b")
    text = b"import multiprocessing\ndef f(x): return -x\nwith multiprocessing.Pool(2) as p: print(p.map(f, [1, 2]))\n"
    typed = terminal.send("run", "--detach", "-", given=text)
    assert terminal.ended(module).state == "done", terminal.printed(module)
    assert terminal.printed(module) == "[0, 1, 8] ['a', '-b']\n"
    assert terminal.ended(typed).state == "done", terminal.printed(typed)
    assert terminal.printed(typed) == "[-1, -2]\n"
    assert terminal.producer("result", typed).stdout == "exit code 0\n"


def test_a_function_is_called_with_json_and_its_result_is_json(terminal: Terminal) -> None:
    job_id = terminal.send("submit", "prog.py:squares", "-", given=b"5")
    cube = terminal.send("submit", "pack.cube:cube", "3")
    none = terminal.send("submit", "prog.py:nothing")
    assert terminal.ended(job_id).state == "done", terminal.printed(job_id)
    assert json.loads(terminal.producer("result", job_id).stdout) == {"given": 5, "squares": [0, 1, 4, 9, 16]}
    assert json.loads(terminal.producer("result", "--json", job_id).stdout)["result"]["given"] == 5
    terminal.ended(cube)
    assert terminal.producer("result", cube).stdout == "27\n"
    terminal.ended(none)
    assert terminal.producer("result", none).stdout == "null\n"


@pytest.mark.parametrize(
    ("function", "given", "said"),
    [
        ("fails", "0", "ZeroDivisionError: division by zero (exit code 1)"),
        ("a_set", "0", "returned what JSON cannot say: Object of type set is not JSON serializable"),
        ("leaves", "0", "ended the program before it returned"),
    ],
)
def test_a_function_that_has_no_result_says_why(terminal: Terminal, function: str, given: str, said: str) -> None:
    job_id = terminal.send("submit", f"prog.py:{function}", given)
    assert terminal.ended(job_id).state == "failed"
    result = terminal.producer("result", "--json", job_id)
    assert result.returncode == ExitCode.JOB_FAILED
    assert said in result.stderr
    told = json.loads(result.stdout)
    assert told["result"] is None
    if function == "fails":
        assert 'prog.py", line' in told["traceback"]
        assert "return 1 / value" in result.stderr
        assert "lab/" not in result.stderr


# --- what is refused


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["run", "--detach", "broken.py"], 111, "SyntaxError"),
        (["run", "--detach", "missing.py"], 102, "Cannot read 'missing.py'"),
        (["run", "--detach", "-m", "no_such_module"], 102, "no module 'no_such_module'"),
        (["run", "--detach", "-m", "pack.no"], 102, "no module 'pack.no'"),
        (["run", "--detach", "--on", "threads", "prog.py"], 102, "--on threads is this machine"),
        (["run", "--detach", "--trace", "x.json", "prog.py"], 102, "--detach does not wait"),
        (["run", "--detach", "--with", "nothing.csv", "prog.py"], 102, "nothing.csv', to send it along: No such file"),
        (["run", "--detach", "--with", "large", "prog.py"], 102, "has more than 32 MB. Largest: "),
        (["run", "--restart", "prog.py"], 102, "Add --detach"),
        (["submit", "broken.py:f", "1"], 11, "SyntaxError"),
        (["submit", "prog.py:square", "{"], 2, "is not JSON"),
        (["submit", "prog.py:squars", "1"], 2, "Did you mean squares?"),
        (["submit", "prog.py:later", "1"], 2, "async function"),
        (["submit", "pog.py:squares", "1"], 2, "Did you mean prog.py?"),
        (["submit", "nowhere:squares", "1"], 2, "no module 'nowhere'"),
        (["submit", "prog.py:", "1"], 2, "names no function"),
    ],
)
def test_what_cannot_run_is_told_at_once_and_nothing_is_sent(
    terminal: Terminal, args: list[str], code: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(along, "_taken", {})  # by this process, which runs the command
    monkeypatch.setattr(along, "_marks", {})
    before = list(terminal.redis.scan_iter("crosshost:job*"))
    refused = terminal.producer(*args)
    assert refused.returncode == code
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr
    assert len(list(terminal.redis.scan_iter("crosshost:job*"))) == len(before)


@pytest.mark.parametrize("args", [["run", "--detach", "prog.py"], ["submit", "prog.py:squares", "3"]])
def test_without_a_fleet_that_stays_nothing_is_detached(terminal: Terminal, args: list[str]) -> None:
    with patch.dict(terminal.env, {"CROSSHOST_BROKER_URL": ""}):
        refused = terminal.producer(*args)
    assert refused.returncode in (ExitCode.NO_WORKERS, 100 + ExitCode.NO_WORKERS)
    assert "producer fleet" in refused.stderr
    assert "docker compose up" in refused.stderr


# --- watching and ending


def test_ctrl_c_ends_the_watching_and_not_the_program(terminal: Terminal) -> None:
    job_id = terminal.send("run", "--detach", "prog.py", "wait", "60")
    terminal.wait_for(job_id, "tick 5")
    watching = [terminal.start("watch", job_id) for _ in range(2)]
    for each in watching:
        assert each.stdout
        assert each.stdout.readline().startswith("root ")  # from the beginning
        assert each.stdout.readline() == "tick 0\n"
        each.send_signal(signal.SIGINT)
        _, err = each.communicate(timeout=20)
        assert each.returncode == 130
        assert f"{job_id} goes on" in err
    before = len(terminal.printed(job_id))
    until(lambda: len(terminal.printed(job_id)) > before, "it prints on")
    assert terminal.producer("result", job_id).returncode == ExitCode.NOT_READY
    assert terminal.producer("cancel", job_id).returncode == 0


def test_cancelling_ends_the_root_and_all_its_processes_within_seconds(terminal: Terminal) -> None:
    job_id = terminal.send("run", "--detach", "prog.py", "children")
    until(lambda: len(numbers(terminal.printed(job_id), "child")) == 2, "both children run", 40)
    pids = numbers(terminal.printed(job_id), "root") + numbers(terminal.printed(job_id), "child")
    assert all(map(alive, pids))
    cancelled = terminal.producer("cancel", job_id)
    assert cancelled.returncode == 0
    assert f"{job_id} is cancelled; it ran on host-" in cancelled.stdout
    assert within(10, lambda: not any(map(alive, pids))), "its processes go on"
    assert "was cancelled" in terminal.producer("watch", job_id).stderr
    again = terminal.producer("cancel", job_id)
    assert "cancelled before" in again.stdout
    assert terminal.producer("result", job_id).returncode == ExitCode.JOB_FAILED


def test_what_a_root_leaves_behind_ends_with_it(terminal: Terminal) -> None:
    job_id = terminal.send("run", "--detach", "prog.py", "orphan")
    assert terminal.ended(job_id, 20).state == "done"
    (orphan,) = numbers(terminal.printed(job_id), "orphan")
    assert within(5, lambda: not alive(orphan))


# --- faults


def slot_of(terminal: Terminal, job_id: str) -> int:
    return int(next(iter(terminal.find(job_id).tasks.values())).who.partition("/")[2])


def running(terminal: Terminal, *args: str) -> tuple[str, int, int]:
    """A program that prints, its root and the process of a slot that is its parent."""
    job_id = terminal.send("run", "--detach", *args, "prog.py", "wait", "60")
    (root,) = numbers(terminal.wait_for(job_id, "tick 3"), "root")
    assert parent(root) == slot_of(terminal, job_id)
    return job_id, root, parent(root)


def test_a_program_whose_host_dies_is_reported_with_the_hosts_name_and_not_run_again(terminal: Terminal) -> None:
    job_id, root, slot = running(terminal)
    (host,) = {who.partition("/")[0] for who in terminal.find(job_id).workers}
    os.kill(parent(slot), signal.SIGKILL)
    assert terminal.ended(job_id).state == "failed"
    watched = terminal.producer("watch", job_id)
    assert f"host {host} died" in watched.stderr
    assert "--restart" in watched.stderr
    assert numbers(terminal.printed(job_id), "root") == [root]
    assert not alive(root)


def test_a_program_that_may_be_is_begun_again_and_says_so(terminal: Terminal) -> None:
    job_id, root, slot = running(terminal, "--restart")
    os.kill(slot, signal.SIGKILL)
    text = terminal.wait_for(job_id, "the program begins again")
    until(lambda: len(numbers(terminal.printed(job_id), "root")) == 2, "it runs again")
    assert not alive(root)
    text = terminal.printed(job_id)
    assert text.index("tick 3") < text.index("begins again") < text.rindex("root ")
    assert terminal.producer("cancel", job_id).returncode == 0


def test_a_host_that_comes_back_ends_the_root_that_another_has_taken_the_place_of(terminal: Terminal) -> None:
    job_id, root, slot = running(terminal, "--restart")
    frozen = [parent(slot), slot]
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    try:
        until(lambda: len(numbers(terminal.printed(job_id), "root")) == 2, "it runs elsewhere", 60)
        assert alive(root)  # and prints, which nobody reads
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)
    assert within(20, lambda: not alive(root)), "two of them run on"
    before = len(numbers(terminal.printed(job_id), "tick"))
    until(lambda: len(numbers(terminal.printed(job_id), "tick")) > before + 3, "the second prints on")
    again = numbers(terminal.printed(job_id).rpartition("begins again")[2], "tick")
    assert again == list(range(len(again)))  # nothing of the first one lies between
    assert terminal.producer("cancel", job_id).returncode == 0


def test_a_root_that_is_killed_by_itself_failed_and_is_not_begun_again(terminal: Terminal) -> None:
    job_id, root, _ = running(terminal, "--restart")
    os.kill(root, signal.SIGKILL)
    assert terminal.ended(job_id).state == "failed"
    assert "ended by SIGKILL" in terminal.producer("watch", job_id).stderr


# --- without hosts


@pytest.fixture
def alone(tmp_path: Path, folder: Path) -> Iterator[Terminal]:
    """A terminal at a Redis without hosts."""
    with Server(tmp_path) as server:
        yield Terminal(server.settings, folder)


def worker(terminal: Terminal, queue: str = LONG, **env: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "worker", "--slots", "1", "--name", "late", "--queues", queue],
        env=terminal.env | env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def test_one_that_was_cancelled_before_it_began_never_begins(alone: Terminal) -> None:
    sent = alone.producer("run", "--detach", "prog.py", "wait", "1")
    job_id, other = sent.stdout.strip(), alone.send("submit", "pack.cube:cube", "2")
    assert "No host takes jobs now" in sent.stderr
    assert "had not begun" in alone.producer("cancel", job_id).stdout
    late = worker(alone)
    try:
        assert alone.ended(other, 60).state == "done"  # which was sent after it
        assert alone.printed(job_id) == ""
        assert alone.find(job_id).state == "cancelled"
    finally:
        late.kill()
        late.wait()


READS = """
import multiprocessing, os, sys, time
from pathlib import Path

def read(whole):
    beside = Path(__file__).with_name("data.csv")
    return open("data.csv").read(), os.listdir("texts"), Path(whole).read_text(), beside.read_text()

if __name__ == "__main__":
    print("root", os.getpid(), flush=True)
    whole, first = os.path.abspath(sys.argv[1]), not os.path.exists(sys.argv[2])
    open(sys.argv[2], "w").close()  # before anything is printed, which is what the test waits for
    with multiprocessing.Pool(2) as pool:
        print({str(read(whole)), *map(str, pool.map(read, [whole] * 4))}, flush=True)
    if first:
        time.sleep(60)
"""


def test_data_that_was_sent_along_is_found_by_the_root_and_its_processes_and_again_after_a_restart(
    alone: Terminal, tmp_path: Path
) -> None:
    folder, there = tmp_path / "program", tmp_path / "there"
    (folder / "texts").mkdir(parents=True)
    there.mkdir()
    (folder / "reads.py").write_text(READS)
    (folder / "data.csv").write_text("1,2")
    (folder / "texts" / "a.txt").write_text("a text")
    alone.folder = folder
    typed = ["run", "--detach", "--restart", "--with", "data.csv", "--with", "texts", "reads.py", "texts/a.txt"]
    with alone.start(
        *typed, str(tmp_path / "mark")
    ) as sending:  # by a process of its own, as it keeps what it has read
        job_id, said = (text.strip() for text in sending.communicate(timeout=60))
    assert sending.returncode == 0, said
    shutil.rmtree(folder)
    found = str({str(("1,2", ["a.txt"], "a text", "1,2"))}) + "\n"
    hosts = [worker(alone, queue, TMPDIR=str(there)) for queue in (LONG, "processes")]
    try:
        (root,) = numbers(alone.wait_for(job_id, found, 60), "root")
        os.kill(parent(root), signal.SIGKILL)
        assert alone.ended(job_id, 60).state == "done", alone.printed(job_id)
        assert alone.printed(job_id).count(found) == 2
        (of_processes,) = there.glob("crosshost-copies-*")  # and the root's have gone with it
        assert of_processes.is_dir()
    finally:
        for host in hosts:
            host.kill()
            host.wait()


def test_a_host_that_stops_leaves_none_of_the_data_on_its_disk(alone: Terminal, tmp_path: Path) -> None:
    folder, there = tmp_path / "program", tmp_path / "there"
    folder.mkdir()
    there.mkdir()
    (folder / "waits.py").write_text("import time\nprint('waits', flush=True)\ntime.sleep(600)\n")
    (folder / "secret.txt").write_text("not for everybody")
    alone.folder = folder
    with alone.start("run", "--detach", "--with", "secret.txt", "waits.py") as sending:
        job_id = sending.communicate(timeout=60)[0].strip()
    (folder / "secret.txt").unlink()  # else the host finds the very file, and makes no copy
    host = worker(alone, TMPDIR=str(there))
    try:
        alone.wait_for(job_id, "waits", 60)
        assert len(list(there.rglob("secret.txt"))) == 1
        host.send_signal(signal.SIGQUIT)  # a cold shutdown: Celery ends its slots at once
        host.wait(30)
        until(lambda: not list(there.glob("crosshost-copies-*")), "the copies are gone", 20)
    finally:
        host.kill()
        host.wait()


def test_a_program_is_known_for_as_long_as_it_runs(alone: Terminal) -> None:
    alone.env["CROSSHOST_KEEP"] = "3"
    late = worker(alone)
    try:
        until(lambda: list_hosts(alone.app.records.store, JOBS), "a host takes jobs", 60)
        job_id = alone.send("run", "--detach", "quiet.py", "8")
        until(lambda: alone.find(job_id).state == "running", "it runs")
        # it prints nothing for longer than what is known of a job is kept
        assert alone.ended(job_id).state == "done"
        assert alone.wait_for(job_id, "over") == "over\n"
        until(lambda: not list(alone.redis.scan_iter(f"{job_key(job_id)}*")), "all of it expires", 20)
    finally:
        late.kill()
        late.wait()


def test_what_is_kept_of_the_output_has_a_bound_and_a_reader_is_told_what_is_missing(
    alone: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "OUTPUT", 20_000)
    alone.programs.put("much-1", Asked("x"), b"")
    alone.programs.begin("much-1", 1, 1 << 20)
    for number in range(200):
        assert alone.programs.append("much-1", 1, number, STDOUT, f"{number:1000}".encode())
    assert alone.redis.memory_usage(job_key("much-1", "output")) < 40_000
    read = alone.programs.read("much-1", 0)
    assert read.missing > 150_000
    assert read.pieces[-1] == (STDOUT, f"{199:1000}".encode())
    assert alone.programs.read("much-1", read.following).pieces == []
    assert alone.programs.append("much-1", 1, 199, STDERR, b"again")  # the reply was lost, and it is sent again
    assert alone.programs.read("much-1", read.following).pieces == []
    alone.programs.begin("much-1", 2, 1 << 20)
    assert not alone.programs.append("much-1", 1, 200, STDOUT, b"late")
    assert not alone.programs.ended("much-1", 1, End(0))
    assert alone.programs.end("much-1") is None


def test_who_has_no_key_can_neither_read_nor_run_nor_say_anything(alone: Terminal) -> None:
    secret = "a secret of the program"
    for name in ("one-1", "two-2"):
        alone.programs.put(name, Asked(secret), secret.encode())
        alone.programs.begin(name, 1, 1 << 20)
        for number in range(2):
            alone.programs.append(name, 1, number, STDOUT, f"{secret} {name} {number}".encode())
        alone.programs.ended(name, 1, End(0, result=json.dumps(secret)))
    for key in alone.redis.scan_iter("crosshost:job*"):
        assert secret.encode() not in alone.redis.dump(key)
    one, two = (job_key(name, "program") for name in ("one-1", "two-2"))
    output = job_key("one-1", "output")
    alone.redis.hset(one, "asked", alone.redis.hget(two, "asked"))  # another program in the place of this one
    with pytest.raises(WrongKey):
        alone.programs.begin("one-1", 2, 1 << 20)
    alone.redis.hset(one, "end", alone.redis.hget(two, "end"))
    with pytest.raises(WrongKey):
        alone.programs.end("one-1")
    first, second = alone.redis.lrange(output, 0, -1)
    for forged in (b"x", second, alone.redis.lindex(job_key("two-2", "output"), 0)):
        alone.redis.lset(output, 0, forged)
        with pytest.raises(WrongKey):
            alone.programs.read("one-1", 0)
    alone.redis.lset(output, 0, first)
    assert alone.programs.read("one-1", 0).pieces


def test_a_message_that_is_sent_again_runs_nothing_twice(terminal: Terminal) -> None:
    job_id = terminal.send("run", "--detach", "--restart", "prog.py", "squares", "4")
    terminal.ended(job_id)
    before = terminal.printed(job_id)
    terminal.app.signature(TASK, task_id=job_id, queue=LONG).apply_async()
    other = terminal.send("submit", "pack.cube:cube", "2")
    terminal.ended(other)
    until(lambda: terminal.redis.hlen(f"crosshost:celery:{LONG}:held") == 0, "the message is done with")
    assert terminal.printed(job_id) == before
    assert terminal.find(job_id).state == "failed"


def test_what_is_not_known_any_more_is_not_begun(alone: Terminal) -> None:
    record = Record("gone-1", programs.NAME, {}, time.time(), ["gone-1"], True)
    alone.app.records.add(record)
    with pytest.raises(WrongKey, match="Submit it again"):
        alone.programs.begin("gone-1", 1, 1 << 20)
