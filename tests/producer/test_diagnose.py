"""`producer diagnose`: guilty scripts are named with their line, sound ones are not, and nothing that is run stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lab.concepts import CONCEPTS
from producer.diagnose import command, judging, running
from producer.diagnose.finding import CONFUSIONS, Finding
from producer.diagnose.reading import read
from producer.diagnose.running import Ran
from producer.learning import lesson
from tests import ROOT
from tests.kit import variables
from tests.kit.processes import alive
from tests.kit.wait import until
from tests.producer.guilty import GUILTY, expected
from tests.producer.sound import SOUND

WRONG_ON_PURPOSE = {
    "tests/programs/cpython/multiprocessing_32.py": {("join_first", 10)},
    "tests/programs/cpython/multiprocessing_33.py": {("main_guard", 7)},
    "examples/counter.py": {("counter", 14)},
    "examples/pool_of_three.py": {("one_by_one", 19)},
    "tests/programs/counted.py": {("loss", 22), ("vanish", 40)},
    "tests/programs/spanned.py": {("vanish", 48)},
    "course/loss/mended.py": {("loss", 13)},  # which kills a worker, to show what then happens
    "course/counter/program.py": {("counter", 10)},
    "course/counter/broken.py": {("counter", 12)},
    "course/counter/order.py": {("counter", 5)},
    "course/lock/order.py": {("two_locks", 6)},
    "course/global/program.py": {("global", 8)},
    "course/global/broken.py": {("global", 5)},
    "course/join_first/program.py": {("join_first", 13)},
    "course/join_first/broken.py": {("join_first", 13)},
    "course/lock/program.py": {("lock_each", 10)},
    "course/loss/program.py": {("loss", 14)},
    "course/loss/broken.py": {("loss", 8)},
    "course/main_guard/program.py": {("lambda", 4)},
    "course/main_guard/broken.py": {("main_guard", 9)},
    "course/managed/program.py": {("managed", 5)},
    "course/managed/broken.py": {("counter", 10)},
    "course/pool/program.py": {("one_by_one", 14)},
    "course/random/program.py": {("random", 8)},
    "course/vanish/program.py": {("vanish", 12)},
    "course/vanish/broken.py": {("callback", 10), ("vanish", 15)},
    "course/fork_threads/program.py": {("fork_threads", 23)},
    "course/fork_threads/broken.py": set(),
    "course/wake_up/program.py": {("condition", 8)},
    "course/wake_up/broken.py": {("condition", 8)},
}
"""Files of this repository that show a confusion, and which."""
SCRIPTS = sorted(
    str(path.relative_to(ROOT))
    for pattern in (
        "examples/*.py",
        "course/*/*.py",
        "lab/concepts/*.py",
        "tests/programs/*.py",
        "tests/programs/cpython/*.py",
    )
    for path in ROOT.glob(pattern)
)


def found(source: str | bytes) -> set[tuple[str, int]]:
    return {(each.confusion, each.line) for each in read(source)}


# --- read --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GUILTY)
def test_a_guilty_script_is_named_with_its_line_and_with_nothing_else(name: str) -> None:
    assert found(GUILTY[name]) == expected(GUILTY[name])


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_script_that_is_near_to_a_guilty_one_has_nothing(name: str) -> None:
    assert found(SOUND[name]) == set()


@pytest.mark.parametrize("path", SCRIPTS)
def test_examples_concepts_lessons_and_cpythons_have_what_they_show_on_purpose_and_nothing_else(path: str) -> None:
    assert found((ROOT / path).read_bytes()) == WRONG_ON_PURPOSE.get(path, set())


def test_more_than_a_hundred_sound_scripts_were_read_and_every_confusion_has_two_guilty_ones() -> None:
    assert len(SOUND) + len([path for path in SCRIPTS if not WRONG_ON_PURPOSE.get(path)]) >= 100
    assert len(list((ROOT / "lab/concepts").glob("*.py"))) > len(CONCEPTS)
    shown = [name for source in GUILTY.values() for name in {name for name, _ in expected(source)}]
    assert {name: shown.count(name) for name in CONFUSIONS if shown.count(name) < 2} == {"hangs": 0, "slow_pool": 0}


def test_every_confusion_leads_to_a_lesson_that_there_is() -> None:
    assert {each for each, _ in CONFUSIONS.values() if each} <= set(lesson.names())


@pytest.mark.parametrize("name", GUILTY)
def test_a_finding_says_one_sentence_and_what_is_a_guess_says_may(name: str) -> None:
    for each in read(GUILTY[name]):
        assert each.says.endswith(".")
        assert each.sure or "may" in command._text("x.py", [each], None, "")


@pytest.mark.parametrize(
    "source",
    [
        "",
        "x = 1",
        "def f(:",
        "\0",
        "\ufeffx = 1",
        "from multiprocessing import *\nProcess(target=f).start()",
        "lambda: (yield)",
        "a.b.c().d[0](*x, **y)(z)",
        "class A(B, metaclass=C):\n    def run(self): return self.run()",
        "def f(): return f()\nf()",
        "match x:\n    case [1, *rest]: rest.append(1)",
        "async def f():\n    async with a as b: await b",
        "(" * 60 + ")" * 60,
        "try:\n    pass\nexcept* ValueError:\n    pass",
        "for x in x: x.append(x)",
        "x: int\nx += 1\ndel x",
        "import multiprocessing as mp\np = mp.Pool()\np.apply_async(p.map, (p,), callback=p)\np = p",
    ],
)
def test_whatever_python_it_is_reading_does_not_break(source: str) -> None:
    try:
        compile(source, "x.py", "exec")
    except (SyntaxError, ValueError):
        with pytest.raises((SyntaxError, ValueError)):
            read(source)
    else:
        read(source)


def test_the_whole_standard_library_of_concurrency_can_be_read() -> None:
    modules = [
        Path(os.__file__).parent / name
        for name in ("multiprocessing", "concurrent", "asyncio", "threading.py", "queue.py")
    ]
    files = [file for module in modules for file in ([module] if module.is_file() else module.rglob("*.py"))]
    assert len(files) > 40
    for file in files:
        read(file.read_bytes(), str(file))


# --- run ---------------------------------------------------------------------------------------------------------------


def diagnose(script: Path, *options: str) -> tuple[int, dict[str, Any]]:
    ended = subprocess.run(
        [sys.executable, "-m", "producer", "diagnose", str(script), "--json", *options],
        cwd=ROOT,
        env=variables.unset(),
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert ended.stdout, ended.stderr
    return ended.returncode, json.loads(ended.stdout)


def written(folder: Path, source: str) -> Path:
    script = folder / "script.py"
    script.write_text(source)
    return script


@pytest.mark.parametrize(
    "name",
    [
        "vanish, thrown away",
        "vanish, submit",
        "vanish, map of an executor",
        "nested, pool in a pool",
        "unsendable, a lock to map",
    ],
)
def test_what_is_seen_when_it_is_run_is_sure(name: str, tmp_path: Path) -> None:
    code, document = diagnose(written(tmp_path, GUILTY[name]), "--limit", "60")
    assert code == 1
    assert {(each["confusion"], each["line"]) for each in document["findings"]} == expected(GUILTY[name])
    assert all(each["sure"] and "run" in each["seen"] for each in document["findings"])
    assert all(each["next"] == f"producer learn {each['lesson']}" for each in document["findings"])


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("join first", 8),
        ("loss, kill", 10),
        ("get inside, threads", 8),
        ("pipe end, the reader is the child", 13),
    ],
)
# Not "callback raises": threads of its pool never rest, and Python may crash where it writes down the stack of one that runs.
def test_a_script_that_hangs_is_ended_and_where_it_stands_is_told(name: str, where: int, tmp_path: Path) -> None:
    code, document = diagnose(written(tmp_path, GUILTY[name]), "--limit", "12")
    assert code == 1
    got = {(each["confusion"], each["line"]) for each in document["findings"]}
    assert got == expected(GUILTY[name]) | {("hangs", where)}, document
    assert document["run"]["hangs"]
    assert not document["run"]["ended"]
    assert where in {each["line"] for each in document["run"]["where"] if each["process"] == "MainProcess"}


DEADLOCK = """
import multiprocessing as mp

def take(locks, order, both):
    with locks[order[0]]:
        both.wait()
        with locks[order[1]]:
            pass

def main():
    locks = {name: mp.Lock() for name in "ab"}
    both = mp.Barrier(2)
    ps = [mp.Process(target=take, args=(locks, order, both)) for order in ("ab", "ba")]
    for p in ps: p.start()
    for p in ps: p.join()

if __name__ == "__main__":
    main()
"""


def test_a_deadlock_that_nobody_can_read_is_seen_when_it_hangs(tmp_path: Path) -> None:
    code, document = diagnose(written(tmp_path, DEADLOCK), "--limit", "12")
    assert code == 1
    assert ("two_locks", 7) in {(each["confusion"], each["line"]) for each in document["findings"]}
    assert [each["line"] for each in document["run"]["where"]].count(7) == 2


HIDDEN = """
from multiprocessing import Pool

def fail(n):
    return {}[n]

def go(pool, how, *args):
    return getattr(pool, how)(*args)

if __name__ == "__main__":
    with Pool(2) as pool:
        kept = go(pool, "apply_async", fail, (1,))
        pool.close()
        pool.join()
"""


def test_an_exception_that_vanishes_out_of_sight_of_the_reader_is_seen(tmp_path: Path) -> None:
    assert read(HIDDEN) == []
    _, document = diagnose(written(tmp_path, HIDDEN), "--limit", "60")
    assert [(each["confusion"], each["line"], each["seen"]) for each in document["findings"]] == [("vanish", 8, "run")]
    assert "KeyError" in document["findings"][0]["says"]


@pytest.mark.parametrize("script", ["course/slow_pool/program.py", "course/slow_pool/broken.py"])
def test_work_that_is_smaller_than_the_call_is_measured(script: str) -> None:
    code, document = diagnose(ROOT / script, "--limit", "60")
    assert code == 1
    assert [each["confusion"] for each in document["findings"]] == ["slow_pool"]


@pytest.mark.parametrize(
    "name",
    [
        "threads need no guard, and take lambdas",
        "fork needs no guard, and takes lambdas",
        "results are fetched",
        "futures are asked, in several ways",
        "executor in an executor",
        "exit in a process of one's own",
        "philosophers, by number",
        "condition, while and wait_for",
        "callbacks that only keep",
        "managed lists in a managed dict, and assigned back",
    ],
)
def test_a_sound_script_is_sound_when_it_is_run(name: str, tmp_path: Path) -> None:
    code, document = diagnose(written(tmp_path, SOUND[name]), "--limit", "60")
    assert (code, document["findings"]) == (0, []), document


@pytest.mark.parametrize(
    "script",
    [
        "examples/hello_queue.py",
        "examples/counter_locked.py",
        "course/slow_pool/mended.py",
        "tests/programs/tasks.py",
        "tests/programs/synchronized.py",
        "tests/programs/cpython/multiprocessing_22.py",
    ],
)
def test_programs_of_this_repository_are_sound_when_they_are_run(script: str) -> None:
    code, document = diagnose(ROOT / script, "--limit", "60")
    assert (code, document["findings"], document["run"]["failure"]) == (0, [], None), document


def test_on_threads_too(tmp_path: Path) -> None:
    code, document = diagnose(written(tmp_path, GUILTY["vanish, thrown away"]), "--on", "threads", "--limit", "60")
    assert (code, document["run"]["place"]) == (1, "threads")
    assert [(each["confusion"], each["seen"]) for each in document["findings"]] == [("vanish", "read and run")]


def test_who_has_no_guard_is_started_by_fork_and_seen_all_the_same(tmp_path: Path) -> None:
    code, document = diagnose(written(tmp_path, GUILTY["main guard, process"]), "--limit", "60")
    assert (code, document["run"]["start method"], document["run"]["code"]) == (1, "fork", 0)


# --- bounds ------------------------------------------------------------------------------------------------------------

LEAVES = """
import multiprocessing, os, sys, time

def leave():
    os.setsid()  # no longer of its parent's session
    print("child:", os.getpid(), flush=True)
    time.sleep(600)

if __name__ == "__main__":
    multiprocessing.Process(target=leave).start()
    while True:
        pass
"""


def test_a_script_that_computes_on_is_ended_with_all_that_it_has_started_and_called_no_hang(tmp_path: Path) -> None:
    code, document = diagnose(written(tmp_path, LEAVES), "--limit", "10")
    assert (code, document["findings"], document["run"]["hangs"]) == (1, [], False)
    assert "--limit" in document["run"]["failure"]
    child = int(document["run"]["stdout"].split()[1])
    until(lambda: not alive(child), "the child's end")


@pytest.mark.parametrize(
    "source",
    [
        "import time\ntime.sleep(600)\n",
        "import time\nfrom multiprocessing import Process\nif __name__ == '__main__':\n"
        "    p = Process(target=time.sleep, args=(600,))\n    p.start()\n    time.sleep(600)\n",
        "import socketserver\nwith socketserver.TCPServer(('127.0.0.1', 0), None) as server:\n    server.serve_forever()\n",
    ],
)
def test_who_sleeps_or_serves_is_no_hang(source: str, tmp_path: Path) -> None:
    code, document = diagnose(written(tmp_path, source), "--limit", "8")
    assert (code, document["findings"], document["run"]["hangs"]) == (1, [], False)


def test_ctrl_c_ends_the_script_too(tmp_path: Path) -> None:
    source = f"import os, time\nopen({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)\n"
    process = subprocess.Popen(
        [sys.executable, "-m", "producer", "diagnose", str(written(tmp_path, source)), "--limit", "100"],
        cwd=ROOT,
        env=variables.unset(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), "the script's begin")
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(30) == 130
        until(lambda: not alive(int((tmp_path / "pid").read_text())), "the script's end")
    finally:
        process.kill()


def test_a_script_that_fails_by_itself_is_no_confusion_and_ends_with_1(tmp_path: Path) -> None:
    code, document = diagnose(written(tmp_path, "raise ValueError('of its own')"), "--limit", "60")
    assert (code, document["findings"], document["ok"]) == (1, [], False)
    assert "of its own" in document["run"]["failure"]


def test_what_is_printed_names_line_sentence_and_next_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = written(tmp_path, GUILTY["counter, no lock"])
    assert command.diagnose(str(script), [], "processes", 20, False, False) == 1
    said = capsys.readouterr().out
    assert f"{script}, line 4: an update that is not under one lock, it may be." in said
    assert "next: producer learn counter" in said
    assert "not run" in said


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["nowhere.py"], "Cannot read 'nowhere.py'"),
        (["course"], "is a directory"),
        (["README.md"], "is not Python"),
        (["examples/counter.py", "--limit", "0"], "--limit"),
        (["examples/counter.py", "--on", "moon"], "no place 'moon'"),
    ],
)
def test_what_cannot_be_diagnosed_is_refused_in_words(typed: list[str], said: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "producer", "diagnose", *typed],
        cwd=ROOT,
        env=variables.unset(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


def test_what_was_seen_joins_what_was_read() -> None:
    guess, seen = Finding("vanish", 4, "Guess."), Finding("vanish", 9, "Seen.", True, "run")
    together = command.together([guess], [seen])
    assert [(each.line, each.sure, each.seen, each.says) for each in together] == [
        (4, True, "read and run", "Guess. Seen.")
    ]
    assert [each.line for each in command.together([], [seen])] == [9]


def test_a_run_that_was_broken_off_is_not_blamed_for_what_it_did_not_come_to() -> None:
    events = [{"event": "failed", "pid": 1, "id": "1-1", "line": 3, "error": "E"}]
    assert judging.judge(Ran("processes", "", 1, 1.0, "", "", events, [], False), "x.py") == []
    assert [each.line for each in judging.judge(Ran("processes", "", 0, 1.0, "", "", events, [], False), "x.py")] == [3]


def test_where_a_process_stands_is_read_from_what_faulthandler_writes() -> None:
    text = """Thread 0x1 (most recent call first):
  File "/a.py", line 3 in f
Current thread 0x2 (most recent call first):
  File "/lib/threading.py", line 9 in wait
  File "/a b.py", line 4 in <module>
"""
    main, other = running._threads(text)
    assert [(frame.file, frame.line, frame.function) for frame in main] == [
        ("/lib/threading.py", 9, "wait"),
        ("/a b.py", 4, "<module>"),
    ]
    assert len(other) == 1


def test_a_folder_of_any_name_is_found_in_what_faulthandler_writes(tmp_path: Path) -> None:
    script = tmp_path / "é 中 😀" / "script.py"
    script.parent.mkdir()
    script.write_text("import faulthandler, sys\nfaulthandler.dump_traceback(sys.stdout)\n")
    told = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True).stdout
    ((frame,),) = running._threads(told)
    assert (frame.file, frame.line) == (str(script), 2)


def test_of_locks_it_says_only_what_can_be_seen() -> None:
    def says(body: str, made: str) -> str:
        source = f"""
import multiprocessing as mp
def work(v, lock):
{body}
if __name__ == "__main__":
    v, lock = mp.RawValue("i", 0), {made}
    for p in [mp.Process(target=work, args=(v, lock)) for _ in range(2)]: p.start()
"""
        return next(each.says for each in read(source) if each.confusion == "counter")

    held = "    with lock:\n        v.value += 1"
    pieces = "    with lock:\n        seen = v.value\n    with lock:\n        v.value = seen + 1"
    assert "under no lock that can be seen here" in says("    v.value += 1", "mp.Lock()")
    assert "in two locked pieces" in says(pieces, "mp.Lock()")
    assert "under what may let others in" in says(held, "mp.Semaphore(2)")


@pytest.mark.parametrize(("name", "place"), [("lambda, process", "threads"), ("lambda, a pool", "cluster")])
def test_what_is_no_confusion_in_a_place_is_not_said_of_it(
    name: str, place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = written(tmp_path, LAMBDAS[name])
    assert command.diagnose(str(script), [], "processes", 20, False, False) == 1
    assert command.diagnose(str(script), [], place, 20, False, False) == 0
    assert command.NOTHING in capsys.readouterr().out


LAMBDAS = {
    "lambda, process": "from multiprocessing import Process\ndef main():\n    def inner(): pass\n"
    "    p = Process(target=inner)\n    p.start(); p.join()\nif __name__ == '__main__':\n    main()\n",
    "lambda, a pool": "from multiprocessing import Pool\nif __name__ == '__main__':\n"
    "    with Pool(2) as pool:\n        print(pool.map(lambda x: x, range(4)))\n",
}

RAISES = """
from multiprocessing import Process
def w(n):
    print(10 // n)
if __name__ == "__main__":
    p = Process(target=w, args=(0,))
    p.start(); p.join()
    print("all fine")
"""


def test_what_a_child_raised_is_told_although_the_program_ended_well(tmp_path: Path) -> None:
    code, document = diagnose(written(tmp_path, RAISES), "--limit", "60")
    assert (code, document["ok"]) == (1, False)
    said = document["run"]["failure"]
    assert said.startswith("It ended with 0, and Process-1, in line 4, raised ZeroDivisionError: ")


def test_what_a_thread_raised_is_told_too() -> None:
    stderr = (
        "Exception in thread Thread-1 (w):\nTraceback (most recent call last):\n"
        '  File "/lib/threading.py", line 9, in run\n    self.run()\n  File "x.py", line 3, in w\n    {}[1]\nKeyError: 1\n'
    )
    said = command.failed(Ran("processes", "", 0, 1.0, "", stderr, [], [], False))
    assert said == "It ended with 0, and Thread-1, in line 3, raised KeyError: 1."


def test_what_hangs_and_has_threads_is_not_sent_to_explore_which_refuses_it(tmp_path: Path) -> None:
    hangs = Finding("hangs", 2, "It hangs.", True, "run")
    with_threads = written(tmp_path, "import threading\nthreading.Lock().acquire()\n")
    assert hangs.next(str(with_threads)) == 'producer why "it does not end"'
    without = written(tmp_path, "import multiprocessing\n")
    assert hangs.next(str(without)) == f"producer explore {without}"
