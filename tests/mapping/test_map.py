"""``producer map``: real files, pipes and workers, and what can happen to them."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import PLACES
from lab.errors import ExitCode
from lab.fleet.embedded import EmbeddedFleet
from lab.settings import Settings
from producer.mapping import reader
from producer.mapping.ledger import Changed, Ledger
from producer.mapping.pace import Pace
from producer.mapping.reader import Item, Reader
from producer.target import BadTarget, resolve
from tests import ROOT
from tests.producer.test_cli import Shell, opened_shell, read_until

HUNDRED = "".join(f"{i}\n" for i in range(100))
NUMBERS = [str(i) for i in range(100)]


@pytest.fixture(scope="module")
def fleet() -> Iterator[dict[str, str]]:
    """The variables that lead to a fleet for all tests of this file."""
    one = EmbeddedFleet(Settings(hosts=2, slots=3))
    settings = one.start()
    yield {"CROSSHOST_BROKER_URL": settings.broker_url, "CROSSHOST_AUTHKEY_FILE": one.authkey_file}
    one.stop()


@pytest.fixture
def shell(fleet: dict[str, str], tmp_path: Path) -> Iterator[Shell]:
    with opened_shell() as one:
        one.env = {**fleet, "IN": str(tmp_path / "in.txt"), "OUT": str(tmp_path / "out.jsonl")}
        Path(one.env["IN"]).write_text(HUNDRED)
        yield one


def command(shell: Shell, function: str, *options: str, output: bool = True) -> list[str]:
    out = ["-o", shell.env["OUT"]] if output else []
    return ["map", f"tests.mapping.map_targets:{function}", shell.env["IN"], *out, *options]


def run(shell: Shell, function: str, *options: str, **how: Any) -> subprocess.CompletedProcess[str]:
    return shell.run(*command(shell, function, *options), **how)


def results(shell: Shell) -> list[Any]:
    return [json.loads(line) for line in Path(shell.env["OUT"]).read_text().splitlines()]


def journal(shell: Shell) -> dict[str, Any]:
    return dict(json.loads(Path(shell.env["OUT"] + ".journal").read_text()))


def errors(shell: Shell) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(shell.env["OUT"] + ".errors.jsonl").read_text().splitlines()]


def put(shell: Shell, data: bytes | str) -> None:
    Path(shell.env["IN"]).write_bytes(data.encode() if isinstance(data, str) else data)


# --- what comes out ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES)
def test_results_come_in_the_order_of_the_lines(shell: Shell, place: str) -> None:
    done = run(shell, "number", "--on", place, "--workers", "3", "--json")
    assert done.returncode == 0, done.stderr
    assert results(shell) == list(range(100))
    summary = json.loads(done.stdout)
    assert (summary["done"], summary["failed"], sum(w["items"] for w in summary["workers"])) == (100, 0, 100)


def test_without_order_each_result_says_its_item(shell: Shell) -> None:
    assert run(shell, "same", "--unordered", "--index").returncode == 0
    assert sorted(results(shell), key=lambda r: r["index"]) == [{"index": i, "result": str(i)} for i in range(100)]


def test_what_functions_print_stays_out_of_the_results(shell: Shell) -> None:
    done = shell.run(*command(shell, "chatty", output=False))
    assert [json.loads(line) for line in done.stdout.splitlines()] == NUMBERS
    assert done.stderr.count("saw") == 100


def test_a_script_is_found_by_its_path_and_by_all_workers(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("def twice(n): return 2 * n\n")
    (tmp_path / "my_script.py").write_text(
        "import helper\ndouble = lambda text: helper.twice(int(text))\n"
        "class Numbers:\n    @staticmethod\n    def half(text): return int(text) / 2\n"
        "if __name__ == '__main__':\n    raise SystemExit('not to be run')\n"
    )
    for name, place, last in (
        ("double", "processes", 198),
        ("double", "cluster", 198),
        ("Numbers.half", "threads", 49.5),
    ):
        done = shell.run("map", f"{tmp_path}/my_script.py:{name}", shell.env["IN"], "--on", place)
        assert json.loads(done.stdout.splitlines()[-1]) == last, done.stderr


def test_the_format_is_guessed_from_the_suffix(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b'\xef\xbb\xbfname,text\r\nann,"two\r\nlines"\r\n\r\nbob,x\r\n')
    (tmp_path / "a.jsonl").write_text('{"n": 1}\n\n[2]\n')
    for name, expected in (
        ("a.csv", [{"name": "ann", "text": "two\nlines"}, {"name": "bob", "text": "x"}]),
        ("a.jsonl", [{"n": 1}, [2]]),
    ):
        done = shell.run("map", "tests.mapping.map_targets:same", str(tmp_path / name), "--on", "threads")
        assert [json.loads(line) for line in done.stdout.splitlines()] == expected, done.stderr


def test_a_result_is_there_before_the_next_line_comes(shell: Shell) -> None:
    args = ("map", "tests.mapping.map_targets:same", "-", "--on", "processes", "-q")
    process = shell.start(*args, stdin=subprocess.PIPE)
    assert process.stdin
    assert process.stdout
    for word in ("one", "two"):
        process.stdin.write(f"{word}\n")
        process.stdin.flush()
        assert word in read_until(process.stdout, word)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, "", "")


def test_a_file_bigger_than_the_memory_allowed_goes_through(shell: Shell) -> None:
    """250 MB through a pipe, while the first item holds up all results after it; no process gets larger than 150 MB."""
    feeding = "print('first')\nfor i in range(25_000): print('x' * 9_999)"
    feeder = subprocess.Popen([sys.executable, "-c", feeding], stdout=subprocess.PIPE)
    out = Path(shell.env["OUT"])
    # Measured by a parent of its own, a small one: what a process was before it became another counts for its peak.
    measuring = (
        "import os, subprocess, sys\n"
        "process = subprocess.Popen([sys.executable, '-m', 'producer', *sys.argv[1:]])\n"
        "_, status, used = os.wait4(process.pid, 0)\n"
        "print(os.waitstatus_to_exitcode(status), used.ru_maxrss)\n"
    )
    command = [sys.executable, "-c", measuring, "map", "tests.mapping.map_targets:slow_first", "-", "-o", str(out)]
    done = subprocess.run(command, env={**os.environ, **shell.env}, cwd=ROOT, stdin=feeder.stdout,
                          capture_output=True, text=True, timeout=100)  # fmt: skip
    assert feeder.stdout
    feeder.stdout.close()
    code, peak = map(int, done.stdout.split())
    assert (code, feeder.wait()) == (0, 0), done.stderr
    assert len(out.read_bytes().splitlines()) == 25_001
    assert peak < 150 * 1024, f"{peak} KiB"


def test_a_reader_that_has_gone_ends_the_map_in_silence(shell: Shell) -> None:
    process = shell.start(*command(shell, "same", "--on", "threads", output=False))
    assert process.stdout
    process.stdout.close()
    assert process.stderr
    assert (process.stderr.read(), process.wait(20)) == ("", 141)


# --- items that fail --------------------------------------------------------------------------------------------------


def test_stopping_keeps_what_was_done_and_says_which_item_failed(shell: Shell) -> None:
    done = run(shell, "picky")
    assert done.returncode == ExitCode.STOPPED
    assert "Item 13 (line 14) failed: ValueError: thirteen is refused" in done.stderr
    assert 'raise ValueError("thirteen is refused")' in done.stderr  # the traceback, from the function on
    assert results(shell) == list(range(13))


@pytest.mark.parametrize("place", ["threads", "cluster"])
def test_collecting_goes_on_and_writes_down_what_failed(shell: Shell, place: str) -> None:
    done = run(shell, "picky", "--on", place, "--on-error", "collect")
    assert done.returncode == ExitCode.SOME_FAILED, done.stderr
    assert results(shell) == [i for i in range(100) if i != 13]
    (error,) = errors(shell)
    assert "in picky" in error.pop("traceback")
    assert error == {
        "index": 13, "line": 14, "item": "13", "kind": "call", "error": "ValueError: thirteen is refused",
    }  # fmt: skip


def test_skipping_tells_of_the_first_failures_and_counts_all(shell: Shell) -> None:
    put(shell, "no number\n" * 30 + HUNDRED)
    done = run(shell, "number", "--on-error", "skip")
    assert done.returncode == ExitCode.SOME_FAILED
    assert done.stderr.count("ValueError") == 10
    assert "30 failed" in done.stderr
    assert results(shell) == list(range(100))


def test_bad_rows_are_named_by_their_lines_and_cost_nobody_else(shell: Shell) -> None:
    rows = b'a,b\n1,2\n3\n\xff,4\n5,"6"7\n8,9\n'
    put(shell, rows)
    assert run(shell, "same", "--format", "csv", "--on-error", "collect").returncode == ExitCode.SOME_FAILED
    assert results(shell) == [{"a": "1", "b": "2"}, {"a": "8", "b": "9"}]
    assert [(e["index"], e["line"], e["kind"]) for e in errors(shell)] == [(i, i + 2, "input") for i in (1, 2, 3)]
    assert [e["error"][:22] for e in errors(shell)] == [
        "ValueError: the row ha", "line 4 is not UTF-8: '", "line 5: ',' expected a",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("format", "bad"), [("lines", b"\xff\xfe"), ("jsonl", b"{1}"), ("jsonl", b"[" * 100_000), ("jsonl", b"\xff")]
)
def test_a_line_that_cannot_be_read_is_named(shell: Shell, format: str, bad: bytes) -> None:
    put(shell, b"1\n2\n" + bad + b"\n3\n")
    done = run(shell, "same", "--format", format, "--on-error", "skip")
    assert done.returncode == ExitCode.SOME_FAILED
    assert "item 2 (line 3): " in done.stderr
    assert [int(each) for each in results(shell)] == [1, 2, 3]


def test_a_result_that_is_not_json_is_the_failure_of_its_item(shell: Shell) -> None:
    assert run(shell, "not_json", "--on-error", "collect").returncode == ExitCode.SOME_FAILED
    assert [(e["index"], e["kind"]) for e in errors(shell)] == [(i, "result") for i in (13, 14, 15, 16)]
    assert len(results(shell)) == 96


@pytest.mark.parametrize("place", ["processes", "cluster"])
def test_an_item_that_kills_its_worker_costs_no_other_its_result(shell: Shell, place: str) -> None:
    done = run(shell, "deadly", "--on", place, "--on-error", "collect", "--chunksize", "25", "--workers", "2")
    assert done.returncode == ExitCode.SOME_FAILED, done.stderr
    assert results(shell) == [i for i in range(100) if i != 13]
    assert [(e["index"], e["kind"]) for e in errors(shell)] == [(13, "lost")]


def test_an_item_that_exits_is_a_failed_call(shell: Shell) -> None:
    assert run(shell, "leaving", "--on", "threads", "--on-error", "collect").returncode == ExitCode.SOME_FAILED
    assert [(e["index"], e["error"]) for e in errors(shell)] == [(13, "SystemExit: 3")]


@pytest.mark.parametrize("place", PLACES)
def test_an_item_that_takes_too_long_fails_and_the_others_go_on(shell: Shell, place: str) -> None:
    done = run(shell, "endless", "--on", place, "--on-error", "collect", "--timeout", "0.4", "--workers", "2")
    assert done.returncode == ExitCode.SOME_FAILED, done.stderr
    assert results(shell) == [i for i in range(100) if i != 13]
    assert [(e["index"], e["kind"]) for e in errors(shell)] == [(13, "timeout")]


def test_an_item_that_heeds_no_limit_ends_with_its_worker(shell: Shell) -> None:
    done = run(shell, "deaf", "--on-error", "collect", "--timeout", "0.2", "--workers", "2", "--chunksize", "1")
    assert done.returncode == ExitCode.SOME_FAILED, done.stderr
    (error,) = errors(shell)
    assert "did not heed the time limit" in error["error"]


@pytest.mark.parametrize("place", ["processes", "cluster"])
def test_a_failed_call_is_tried_again(shell: Shell, place: str, tmp_path: Path) -> None:
    put(shell, "".join(f"{tmp_path}/tries {i}\n" for i in range(5)))
    assert run(shell, "flaky", "--on", place, "--retries", "2").returncode == 0
    assert results(shell) == [3] * 5


# --- broken off and resumed -------------------------------------------------------------------------------------------


def begin_and_stop(shell: Shell, tmp_path: Path, stop: Any, *options: str) -> subprocess.Popen[str]:
    """Start a map of items that write down that they were begun, and stop it in the middle."""
    put(shell, "".join(f"{tmp_path}/begun {i}\n" for i in range(150)))
    process = shell.start(*command(shell, "ledger", "--workers", "2", *options))
    deadline = time.monotonic() + 60
    while not (Path(shell.env["OUT"] + ".journal").exists() and journal(shell)["done"] > 15):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    stop(process)
    process.wait(30)
    return process


def journaled(shell: Shell) -> set[int]:
    state = journal(shell)
    return {*range(state["prefix"])}.union(*(range(first, first + n) for first, n, _ in state["islands"]))


@pytest.mark.parametrize(
    ("place", "order"), [("threads", "--index"), ("processes", "--unordered"), ("cluster", "--unordered")]
)
def test_what_is_in_the_journal_is_not_done_again_after_kill_9(
    shell: Shell, tmp_path: Path, place: str, order: str
) -> None:
    begin_and_stop(shell, tmp_path, lambda process: process.kill(), order, "--on", place)
    before = journaled(shell)
    assert 15 < len(before) < 150
    done = run(shell, "ledger", "--workers", "2", order, "--on", place, "--resume")
    assert done.returncode == 0, done.stderr
    begun = Counter(int(line) for line in (tmp_path / "begun").read_text().split())
    assert [i for i in before if begun[i] != 1] == []
    assert set(begun) == set(range(150))
    found = [int(result["result"] if order == "--index" else result) for result in results(shell)]
    assert sorted(found) == list(range(150))
    again = run(shell, "ledger", "--workers", "2", order, "--on", place, "--resume")
    assert "complete" in again.stderr
    assert again.returncode == 0


@pytest.mark.parametrize(
    ("place", "signum"), [("threads", signal.SIGINT), ("processes", signal.SIGTERM), ("cluster", signal.SIGINT)]
)
def test_an_interrupted_map_keeps_what_is_done(
    shell: Shell, tmp_path: Path, place: str, signum: signal.Signals
) -> None:
    process = begin_and_stop(shell, tmp_path, lambda process: os.killpg(process.pid, signum), "--on", place)
    assert process.returncode == 128 + signum
    assert process.stderr
    told = process.stderr.read()
    assert "--resume" in told
    assert "Traceback" not in told
    assert len(results(shell)) == journal(shell)["done"] == len(journaled(shell))
    assert run(shell, "ledger", "--workers", "2", "--on", place, "--resume").returncode == 0
    assert [int(result) for result in results(shell)] == list(range(150))


def test_a_broker_that_dies_leaves_a_map_to_be_resumed(shell: Shell, tmp_path: Path) -> None:
    def stop(process: subprocess.Popen[str]) -> None:
        doomed.stop()

    elsewhere = dict(shell.env)
    with EmbeddedFleet(Settings(hosts=1, slots=2)) as doomed:
        reached = doomed.start()
        shell.env |= {"CROSSHOST_BROKER_URL": reached.broker_url, "CROSSHOST_AUTHKEY_FILE": doomed.authkey_file}
        shell.env["CROSSHOST_OUTAGE"] = "3"
        process = begin_and_stop(shell, tmp_path, stop, "--on", "cluster")
    assert process.stderr
    told = process.stderr.read()
    assert process.returncode in (ExitCode.BROKER_UNREACHABLE, ExitCode.LOST), told
    assert "--resume" in told
    shell.env = elsewhere
    assert run(shell, "ledger", "--on", "cluster", "--resume").returncode == 0
    assert [int(result) for result in results(shell)] == list(range(150))


def test_a_full_disk_keeps_what_is_written_and_can_be_resumed(shell: Shell) -> None:
    put(shell, "".join(f"{i:09}\n" for i in range(20_000)))
    limit = (100_000, 100_000)
    process = shell.start(
        *command(shell, "same", "--on", "threads"), preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    )
    _, err = process.communicate(timeout=30)
    assert process.returncode == ExitCode.OUTPUT_FAILED, err
    assert "File too large" in err
    assert len(results(shell)) == journal(shell)["done"] > 0
    assert run(shell, "same", "--on", "threads", "--resume").returncode == 0
    assert results(shell) == [f"{i:09}" for i in range(20_000)]


def test_a_device_without_room_is_an_error_of_its_own(shell: Shell) -> None:
    done = shell.run("map", "tests.mapping.map_targets:same", shell.env["IN"], "-o", "/dev/full")
    assert done.returncode == ExitCode.OUTPUT_FAILED
    assert "No space left" in done.stderr
    assert not Path("/dev/full.journal").exists()


def test_what_has_changed_is_not_resumed(shell: Shell, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("def f(text): return int(text) if text != '60' else 1 / 0\n")
    args = ("map", f"{script}:f", shell.env["IN"], "-o", shell.env["OUT"], "--on", "threads")
    assert shell.run(*args).returncode == ExitCode.STOPPED
    refused = [shell.run(*args, "--resume", "--index")]
    put(shell, HUNDRED + "100\n")
    refused.append(shell.run(*args, "--resume"))
    put(shell, HUNDRED.replace("\n33\n", "\n34\n"))
    refused.append(shell.run(*args, "--resume"))
    put(shell, HUNDRED)
    script.write_text("def f(text): return int(text)\n")
    refused.append(shell.run(*args, "--resume"))
    refused.append(shell.run(*args))
    assert [done.returncode for done in refused] == [ExitCode.USAGE] * 5
    for word, done in zip(
        ("index", "bytes then", "is not what it was", "source file", "--resume"), refused, strict=True
    ):
        assert word in done.stderr
    assert results(shell) == list(range(60))
    assert shell.run(*args, "--resume", "--new-function").returncode == 0
    assert results(shell) == list(range(100))


def test_a_worker_that_lacks_the_function_is_named_and_leaves_nothing_to_resume(shell: Shell, tmp_path: Path) -> None:
    script = tmp_path / "only_here.py"
    script.write_text(
        "import multiprocessing\nif multiprocessing.parent_process(): raise ImportError('not there')\ndef f(text): return 1\n"
    )
    for _ in range(2):
        done = shell.run("map", f"{script}:f", shell.env["IN"], "-o", shell.env["OUT"])
        assert done.returncode == ExitCode.USAGE
        assert "cannot load" in done.stderr
        assert "ImportError: not there" in done.stderr
        assert "--resume" not in done.stderr


def test_a_host_finds_a_function_in_the_source_that_it_was_sent() -> None:
    program = (
        "from lab.program.source import Own\nfrom lab.program.target import Target\n"
        "files = {'/no/such/f.py': b'from g import *', '/no/such/g.py': b'def h(x): return x + 1'}\n"
        "Own('/no/such', files).install()\nprint(Target('/no/such/f.py', 'h')(1))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout == "2\n", done.stderr


def test_an_output_is_written_by_one_command_at_a_time(shell: Shell, tmp_path: Path) -> None:
    def second(process: subprocess.Popen[str]) -> None:
        process.send_signal(signal.SIGSTOP)  # so that it has its output still, however long the other takes to begin
        done = run(shell, "ledger", "--overwrite")
        process.send_signal(signal.SIGCONT)
        assert done.returncode == ExitCode.USAGE
        assert "Another command" in done.stderr

    assert begin_and_stop(shell, tmp_path, second, "--on", "threads").returncode == 0
    assert len(results(shell)) == 150


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("tests.mapping.map_targets:pickie", "Did you mean picky?"),
        ("tests.mapping.map_target:picky", "Did you mean tests.mapping.map_targets?"),
        ("tests/mapping/map_targts.py:picky", "Did you mean map_targets.py?"),
        ("tests.mapping.map_targets", "names no function"),
        ("tests.mapping.map_targets:annotations", "is no function"),
        ("asyncio:sleep", "async function"),
        ("BROKEN.py:f", "division by zero"),
    ],
)
def test_a_function_that_is_not_there_is_told_with_the_nearest(tmp_path: Path, typed: str, told: str) -> None:
    (tmp_path / "broken.py").write_text("def f(x): return x\n1 / 0\n")
    with pytest.raises(BadTarget, match=re.escape(told)):
        resolve(typed.replace("BROKEN", f"{tmp_path}/broken"))


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["tests.mapping.map_targets:pickie", "IN"], "Did you mean picky?"),
        (["tests.mapping.map_targets:picky", "INN"], "No such file"),
        (["tests.mapping.map_targets:picky", "IN", "--on", "treads"], "Did you mean 'threads'?"),
        (["tests.mapping.map_targets:picky", "IN", "--resume"], "--output"),
        (["tests.mapping.map_targets:picky", "IN", "-o", "IN"], "different files"),
    ],
)
def test_what_is_typed_wrong_is_told_before_anything_begins(shell: Shell, args: list[str], told: str) -> None:
    done = shell.run("map", *(shell.env["IN"] if arg == "IN" else arg for arg in args))
    assert done.returncode == ExitCode.USAGE
    assert told in done.stderr
    assert (Path(shell.env["IN"]).read_text(), done.stdout) == (HUNDRED, "")


# --- parts ------------------------------------------------------------------------------------------------------------


def test_ctrl_c_waits_for_the_end_of_what_must_not_be_half_done() -> None:
    program = (
        "import os, signal\nfrom producer import interrupt\ninterrupt.listen()\n"
        "try:\n  with interrupt.deferred():\n    os.kill(os.getpid(), signal.SIGINT)\n    print('whole')\n"
        "  print('not reached')\n"
        "except KeyboardInterrupt:\n  print('then stopped')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=20)
    assert done.stdout.split("\n")[:2] == ["whole", "then stopped"]


def items_of(data: bytes, format: str, tmp_path: Path) -> list[Item]:
    (tmp_path / "data").write_bytes(data)
    fd = os.open(tmp_path / "data", os.O_RDONLY)
    try:
        return list(Reader(fd, format))
    finally:
        os.close(fd)


def test_a_line_without_end_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "LONGEST", 1000)
    monkeypatch.setattr(reader, "BLOCK", 100)
    first, second = items_of(b"x" * 5000 + b"\nshort\n", "lines", tmp_path)
    assert first.fault
    assert len(first.payload) <= 1100
    assert (second.payload, second.line, second.fault) == (b"short", 2, "")


def test_a_quote_that_is_never_closed_swallows_no_row_in_silence(tmp_path: Path) -> None:
    *_, last = items_of(b'a\n1\n"open\n2\n3\n', "csv", tmp_path)
    assert last.fault.startswith("lines 3 to 5")


@pytest.mark.parametrize("data", [b"", b"\n", b"a", b"a\n", b"a\r\nb", b"\xef\xbb\xbfa\n\n\nb\n"])
def test_lines_are_those_of_pythons_own_reader(tmp_path: Path, data: bytes) -> None:
    found = [item.payload.decode() for item in items_of(data, "lines", tmp_path) if isinstance(item.payload, bytes)]
    assert found == [line.rstrip("\n") for line in (tmp_path / "data").open(encoding="utf-8-sig")]


def test_a_ledger_gives_back_the_gaps_between_islands(tmp_path: Path) -> None:
    items = items_of(HUNDRED.encode(), "lines", tmp_path)
    ledger = Ledger()
    for first, last in ((0, 10), (20, 30), (50, 60), (10, 15)):
        ledger.add(items[first:last])
    assert ledger.prefix == 15
    state = json.loads(json.dumps(ledger.to_json()))
    left = [item.index for item in Ledger().replay(iter(items), state)]
    assert left == [*range(15, 20), *range(30, 50), *range(60, 100)]
    for changed in (HUNDRED[2:], HUNDRED.replace("\n25\n", "\n26\n"), "".join(f"{i}\n" for i in range(40)), ""):
        with pytest.raises(Changed):
            list(Ledger().replay(iter(items_of(changed.encode(), "lines", tmp_path)), state))


def test_chunks_grow_step_by_step_to_the_time_they_should_take() -> None:
    pace = Pace(None)
    sizes = []
    for _ in range(6):
        pace.learn(pace.size, pace.size * 0.0005)
        sizes.append(pace.size)
    assert sizes == [4, 16, 64, 99, 99, 99] or sizes == [4, 16, 64, 100, 100, 100]
    for _ in range(30):
        pace.learn(pace.size, pace.size * 1.0)
    assert pace.size == 1
