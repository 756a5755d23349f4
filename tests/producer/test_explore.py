"""`producer explore` and `producer replay`, as somebody types them, on scripts of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lab.program import source
from producer.explore import command, stuck
from tests import ROOT

COUNTER = """
from multiprocessing import Process, Value

def work(counter):
    for _ in range(2):
        counter.value += 1

if __name__ == "__main__":
    counter = Value("i", 0)
    workers = [Process(target=work, args=(counter,)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print(counter.value)
"""
LOCKS = """
import multiprocessing

def first(a, b):
    with a:
        with b:
            pass

def second(a, b):
    with b:
        with a:
            pass

if __name__ == "__main__":
    a, b = multiprocessing.Lock(), multiprocessing.Lock()
    one = multiprocessing.Process(target=first, args=(a, b))
    two = multiprocessing.Process(target=second, args=(a, b))
    one.start()
    two.start()
    one.join()
    two.join()
    print("done")
"""
EVERYTHING = """
import multiprocessing, queue

def work(number, items, condition, ready, event, barrier, tokens, end):
    with condition:
        while not ready.value:
            condition.wait()
    with tokens:
        items.put(number)
    barrier.wait()
    event.wait()
    end.send((number, items.empty()))
    end.close()

if __name__ == "__main__":
    items, condition, ready = multiprocessing.Queue(2), multiprocessing.Condition(), multiprocessing.Value("i", 0)
    event, barrier, tokens = multiprocessing.Event(), multiprocessing.Barrier(3), multiprocessing.Semaphore(1)
    ends, children = [], []
    for number in range(2):
        mine, its = multiprocessing.Pipe()
        ends.append(mine)
        children.append(
            multiprocessing.Process(target=work, args=(number, items, condition, ready, event, barrier, tokens, its))
        )
    for child in children:
        child.start()
    with condition:
        ready.value = 1
        condition.notify_all()
    barrier.wait()
    first = items.get()
    event.set()
    told = [end.recv() for end in ends]
    second = items.get()
    try:
        items.get(timeout=60)
    except queue.Empty:
        print(first, second, told)
    for child in children:
        child.join()
"""
LOST_WAKE_UP = """
import multiprocessing

def wait(condition, ready):
    if not ready.value:
        with condition:
            condition.wait()

if __name__ == "__main__":
    condition, ready = multiprocessing.Condition(), multiprocessing.Value("i", 0)
    child = multiprocessing.Process(target=wait, args=(condition, ready))
    child.start()
    with condition:
        ready.value = 1
        condition.notify()
    child.join()
"""
POLITE = """
from multiprocessing import Lock, Process

def politely(mine, other):
    while True:
        with mine:
            if other.acquire(block=False):
                other.release()
                return

if __name__ == "__main__":
    left, right = Lock(), Lock()
    one = Process(target=politely, args=(left, right))
    two = Process(target=politely, args=(right, left))
    one.start()
    two.start()
    one.join()
    two.join()
"""
RIGHT = COUNTER.replace(
    "counter.value += 1", "\n        with counter.get_lock():\n            counter.value += 1".lstrip()
)
FAILING = COUNTER.replace("print(counter.value)", "assert counter.value == 4, counter.value")


def producer(*args: str, typed: str = "", cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "producer", *args],
        input=typed,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
        cwd=cwd,
        env={**os.environ, "COLUMNS": "80", "PYTHONPATH": str(ROOT)},
    )


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    texts = {
        "counter": COUNTER, "locks": LOCKS, "everything": EVERYTHING, "wakeup": LOST_WAKE_UP, "right": RIGHT,
        "failing": FAILING, "polite": POLITE,
    }  # fmt: skip
    for name, text in texts.items():
        (tmp_path / f"{name}.py").write_text(text)
    return tmp_path


def explored(path: Path, *args: str) -> Any:
    return json.loads(producer("explore", str(path), "--json", *args).stdout)


def test_a_script_is_counted_and_its_shortest_bad_order_drawn(scripts: Path) -> None:
    done = producer("explore", "counter.py", cwd=scripts)
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    assert "Explored: all 70 interleavings, in 34 runs (equivalent orders are run once)." in lines
    assert "Bound on preemptions: none. Seed: 0. Limit: 2,000 runs." in lines
    for number, result in ((32, 2), (32, 3), (6, 4)):
        assert any(line.split()[:3] == [str(number), "of", "70"] and f"ends with  {result}" in line for line in lines)
    assert "stale: 7" in done.stdout
    assert "<< destroys 7" in done.stdout
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in done.stdout


def test_what_goes_on_for_ever_is_told_and_drawn_once(scripts: Path) -> None:
    text = producer("explore", "polite.py", "--limit", "200", cwd=scripts).stdout
    assert "NO PROGRESS  goes round and round at lines 6, 7" in text
    assert "and so on for ever: these last 6 steps again and again" in text


def test_a_right_script_ends_with_0(scripts: Path) -> None:
    done = producer("explore", "right.py", cwd=scripts)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Nothing went wrong in any of them." in done.stdout


def test_a_start_method_is_set_once_in_each_run(scripts: Path) -> None:
    guard = 'if __name__ == "__main__":\n'
    text = RIGHT.replace(guard, f"{guard}    multiprocessing.set_start_method('spawn')\n")
    (scripts / "spawn.py").write_text(f"import multiprocessing\n{text}")
    assert [(one["kind"], one["text"]) for one in explored(scripts / "spawn.py")["outcomes"]] == [("result", "4")]
    text = text.replace(guard, f"{guard}    multiprocessing.set_start_method('spawn')\n")
    (scripts / "twice.py").write_text(f"import multiprocessing\n{text}")
    (outcome,) = explored(scripts / "twice.py")["outcomes"]
    assert "RuntimeError: context has already been set in main" in outcome["text"]


def test_connection_wait_is_that_of_the_place_however_it_is_imported(scripts: Path) -> None:
    text = COUNTER.replace(
        "from multiprocessing import", "import multiprocessing.connection as c\nfrom multiprocessing import"
    )
    text = text.replace("range(2):\n        counter", "range(1):\n        counter").replace(
        "    for worker in workers:\n        worker.join()\n",
        "    for worker in workers:\n        assert c.wait([worker.sentinel]) == [worker.sentinel]\n",
    )
    (scripts / "waits.py").write_text(text)
    assert {(one["kind"], one["text"]) for one in explored(scripts / "waits.py")["outcomes"]} == {
        ("result", "1"),
        ("result", "2"),
    }


def test_a_deadlock_is_told_as_a_circle_with_both_lines(scripts: Path) -> None:
    text = producer("explore", "locks.py", cwd=scripts).stdout
    assert "Process-1 waits for b, held by Process-2, at line 6 (with b:)" in text
    assert "and holds a, since line 5 (with a:)" in text
    assert "Process-2 waits for a, held by Process-1, at line 11 (with a:)" in text
    assert "and holds b, since line 10 (with b:)" in text


def test_an_assert_that_fails_is_counted(scripts: Path) -> None:
    outcomes = explored(scripts / "failing.py")["outcomes"]
    assert {(one["kind"], one["text"], one["interleavings"]) for one in outcomes} == {
        ("claim", "AssertionError: 2 in main at line 15", 32),
        ("claim", "AssertionError: 3 in main at line 15", 32),
        ("result", "(prints nothing)", 6),
    }


def test_on_a_terminal_it_says_how_far_it_has_got(
    scripts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "EVERY", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with source.restored():
        command.explore(str(scripts / "locks.py"), (), None, 0, 2000, 2000, None, False)
    shown = capsys.readouterr().err
    assert "locks.py: in every order, 1 runs ..." not in shown
    assert "locks.py: in every order, 1 run ..." in shown
    assert "locks.py: in every order, 2 runs ..." in shown
    assert shown.endswith("\r\x1b[2K")


@pytest.mark.parametrize("args", [(), ("--limit", "12", "--seed", "5"), ("--bound", "1")])
def test_the_same_seed_gives_the_same_output(scripts: Path, args: tuple[str, ...]) -> None:
    first, second = (producer("explore", "counter.py", *args, cwd=scripts).stdout for _ in range(2))
    assert first == second
    assert "Explored: " in first


def test_what_was_not_explored_is_said(scripts: Path) -> None:
    text = producer("explore", "counter.py", "--limit", "12", "--seed", "5", cwd=scripts).stdout
    assert "Explored: 12 runs, 6 depth first and 6 drawn (PCT, seed 5, depth 3)," in text
    assert "of at most 630 interleavings. Not all: what was not seen may still happen." in text


def test_a_concept_is_judged_by_its_claims() -> None:
    done = producer("explore", "pipe")
    assert (done.returncode, done.stderr) == (0, "")
    assert "all 4 claims held" in done.stdout


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("nothing.py", "Cannot read 'nothing.py'"),
        ("countr", "Did you mean counter?"),
        ("loss", "cannot be explored"),
        ("threaded.py", "imports threading"),
        ("broken.py", "is not Python"),
    ],
)
def test_what_cannot_be_explored_is_refused_with_the_reason(tmp_path: Path, typed: str, words: str) -> None:
    (tmp_path / "threaded.py").write_text("import threading\n")
    (tmp_path / "broken.py").write_text("def\n")
    done = producer("explore", typed, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr


@pytest.mark.parametrize("place", ["threads", "processes"])
@pytest.mark.parametrize("name", ["counter", "locks", "everything", "wakeup", "failing", "polite"])
def test_a_saved_order_is_forced_on_a_place_of_this_host(scripts: Path, name: str, place: str) -> None:
    producer("explore", f"{name}.py", "--save", "order.json", "--limit", "300", cwd=scripts)
    times = 10 if name == "counter" else 2
    done = producer("replay", "order.json", "--on", place, "--times", str(times), cwd=scripts)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith(f"The same {times} of {times} times.\n")


def test_a_saved_order_is_forced_on_the_cluster(scripts: Path) -> None:
    for name, times in (("counter", 10), ("everything", 2)):
        producer("explore", f"{name}.py", "--save", "order.json", "--limit", "300", cwd=scripts)
        done = producer("replay", "order.json", "--on", "cluster", "--times", str(times), cwd=scripts)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.endswith(f"The same {times} of {times} times.\n")


def test_another_result_than_the_saved_one_is_told(scripts: Path) -> None:
    producer("explore", "counter.py", "--save", "order.json", cwd=scripts)
    schedule = json.loads((scripts / "order.json").read_text())
    schedule["text"] = "3"
    (scripts / "order.json").write_text(json.dumps(schedule))
    done = producer("replay", "order.json", "--on", "threads", cwd=scripts)
    assert done.returncode == 1
    assert "  OTHER  2" in done.stdout


def test_an_edited_source_makes_a_saved_order_stale(scripts: Path) -> None:
    producer("explore", "counter.py", "--save", "order.json", cwd=scripts)
    with open(scripts / "counter.py", "a") as file:
        file.write("# edited\n")
    done = producer("replay", "order.json", "--on", "threads", cwd=scripts)
    assert done.returncode == 2
    assert "The schedule is stale: counter.py was changed since it was saved." in done.stderr


MANAGED = """
from multiprocessing import Manager

if __name__ == "__main__":
    print(len(Manager().list([1])))
"""


def test_an_order_that_cannot_be_forced_is_saved_with_the_reason_and_refused(scripts: Path) -> None:
    (scripts / "managed.py").write_text(MANAGED)
    saved = producer("explore", "managed.py", "--save", "order.json", cwd=scripts)
    assert "and not forced on a real place, as it has turns of a Manager." in saved.stdout
    assert "producer replay" not in saved.stdout
    done = producer("replay", "order.json", cwd=scripts)
    assert done.returncode == 2
    assert "The turns of a Manager can be explored, and not forced on a place." in done.stderr
    schedule = json.loads((scripts / "order.json").read_text())
    del schedule["unforced"]
    (scripts / "order.json").write_text(json.dumps(schedule))
    done = producer("replay", "order.json", "--on", "threads", "--times", "1", "--json", cwd=scripts)
    (run,) = json.loads(done.stdout)["runs"]
    assert (run["how"], run["text"]) == ("refused", "The turns of a Manager can be explored, and not forced.")


def test_what_is_no_schedule_is_refused(scripts: Path) -> None:
    (scripts / "order.json").write_text("{}")
    done = producer("replay", "order.json", cwd=scripts)
    assert done.returncode == 2
    assert "holds no schedule" in done.stderr


def test_the_learner_deadlocks_it(scripts: Path) -> None:
    done = producer("explore", "locks.py", "--play", cwd=scripts, typed="1\nu\n1\n2\n")
    assert done.returncode == 0, done.stderr
    assert "You have broken it, in 2 steps: deadlock" in done.stdout


def test_an_empty_line_is_no_answer_and_the_end_of_the_input_quits(scripts: Path) -> None:
    done = producer("explore", "locks.py", "--play", cwd=scripts, typed="1\n\n2\n")
    assert done.stdout.count("Type a number") == 2
    assert "You have broken it, in 2 steps: deadlock" in done.stdout
    done = producer("explore", "locks.py", "--play", cwd=scripts, typed="1\n")
    assert done.returncode == 0
    assert "You have broken it" not in done.stdout


def test_one_of_a_thing_is_not_several_and_without_processes_there_is_nothing_to_order(scripts: Path) -> None:
    (scripts / "plain.py").write_text("print('alone')\n")
    text = producer("explore", "plain.py", cwd=scripts).stdout
    assert "Explored: there is nothing to interleave, as no process is started; 1 run." in text
    (scripts / "one.py").write_text(COUNTER.replace("in range(2)]", "in range(1)]"))
    text = producer("explore", "one.py", cwd=scripts).stdout
    assert "Explored: the only interleaving, in 1 run (equivalent orders are run once)." in text
    text = producer("explore", "one.py", "--bound", "1", "--limit", "1", cwd=scripts).stdout
    assert "Explored: the only interleaving with at most 1 preemption." in text
    assert "Limit: 1 run." in text


def test_the_learner_who_breaks_nothing_may_take_choices_back(scripts: Path) -> None:
    done = producer("explore", "locks.py", "--play", cwd=scripts, typed="1\n1\n" + "1\n" * 3 + "n\n")
    assert "It ends with done: not broken, as so it can end without a preemption as well." in done.stdout
    done = producer(
        "explore", "counter.py", "--play", "--save", "mine.json", cwd=scripts, typed="1\n" + "2\n" * 4 + "1\n" * 4
    )
    assert "You have broken it" in done.stdout
    assert json.loads((scripts / "mine.json").read_text())["turns"][0]["worker"] == "Process-1"


def of_two(work: str, shared: str, args: str, between: str = "", after: str = "") -> str:
    """A script with two processes that do the same."""
    return f"""
from multiprocessing import Array, Lock, Manager, Pool, Process, Queue, Value

{work}
if __name__ == "__main__":
    {shared}
    team = [Process(target=work, args=({args},)) for number in range(2)]
    for one in team:
        one.start()
    {between or "pass"}
    for one in team:
        one.join()
    {after or "pass"}
"""


TAKE = "def work(q):\n    while (item := q.get()) is not None:\n        print('got', item)\n"
SUM = "def work(q):\n    print(sum(iter(q.get, None)))\n"
FILLED = "for item in (1, 2, 4, None, None):\n        q.put(item)"
ONLY_ORDER = {
    "who takes which": (of_two(TAKE, "q = Queue()", "q", FILLED), True),
    "how much each takes": (of_two(SUM, "q = Queue()", "q", FILLED), False),
    "said under the lock": (
        of_two(
            "def work(v):\n    for _ in range(2):\n        with v.get_lock():\n"
            "            v.value += 1\n            print(v.value)\n",
            "v = Value('i', 0)", "v",
        ), True,
    ),
    "a look without a lock, each under one": (
        of_two(
            "def work(v):\n    for _ in range(2):\n        with v.get_lock():\n            v.value += 1\n"
            "        with v.get_lock():\n            print(v.value)\n",
            "v = Value('i', 0)", "v",
        ), False,
    ),
    "appended in turn": (
        of_two(
            "def work(out, number):\n    out.append(number)\n    out.append(number)\n",
            "out = Manager().list()", "out, number", after="print(list(out))",
        ), False,
    ),
}  # fmt: skip
MEDDLING = {
    "a managed dict": of_two(
        "def work(d):\n    d['n'] += 1\n", "d = Manager().dict(n=0)", "d", after="print(d['n'])"
    ),
    "two locked steps": of_two(
        "def work(v):\n    with v.get_lock():\n        seen = v.value\n    with v.get_lock():\n        v.value = seen + 1\n",
        "v = Value('i', 0)", "v", after="print(v.value)",
    ),
    "half of a change": of_two(
        "def work(a, number):\n    if number:\n        print(a[0] + a[1])\n"
        "    else:\n        a[0] -= 1\n        a[1] += 1\n",
        "a = Array('i', [5, 5])", "a, number",
    ),
    "empty and get": of_two(
        "def work(q, number):\n    if not number:\n        q.put(1)\n        q.put(2)\n        return\n"
        "    total = 0\n    while not q.empty():\n        total += q.get()\n    print(total)\n",
        "q = Queue()", "q, number",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ONLY_ORDER)
def test_an_output_that_depends_on_the_order_is_told_and_is_no_fault(tmp_path: Path, name: str) -> None:
    text, same = ONLY_ORDER[name]
    (tmp_path / "script.py").write_text(text)
    done = producer("explore", "script.py", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    words = "The order of output depends on the schedule: " if same else "What is printed depends on the schedule: "
    assert words in done.stdout
    assert "gives this" not in done.stdout


@pytest.mark.parametrize("name", MEDDLING)
def test_a_result_that_is_owed_to_meddling_is_a_fault_without_an_assert(tmp_path: Path, name: str) -> None:
    (tmp_path / "script.py").write_text(MEDDLING[name])
    done = producer("explore", "script.py", cwd=tmp_path)
    assert done.returncode == 1, done.stdout
    assert "no order of whole processes, one after the other, gives this" in " ".join(done.stdout.split())


def test_who_plays_an_order_of_the_output_has_broken_nothing(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(ONLY_ORDER["how much each takes"][0])
    done = producer("explore", "script.py", "--play", cwd=tmp_path, typed="1\n2\n1\n2\n1\n" + "1\n" * 20 + "n\n")
    assert "not broken, as" in done.stdout
    assert "You have broken it" not in done.stdout


ASTRAY = """
import re
from multiprocessing import Process

def work():
    re.match("(a+)+b", "a" * 60)

if __name__ == "__main__":
    one = Process(target=work)
    one.start()
    one.join()
"""
IMPATIENT = "from lab.explored import pace; pace.PATIENCE = 0.5; from producer.cli import main; main()"


def test_c_code_that_holds_the_interpreter_ends_the_exploration_and_its_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "astray.py").write_text(ASTRAY)
    done = subprocess.run(
        [sys.executable, "-c", IMPATIENT, "explore", "astray.py"],
        capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "NO END  the interpreter was held for too long at line 6 of astray.py" in done.stderr


def test_of_all_threads_the_line_of_the_one_that_runs_is_named() -> None:
    waits = f'Thread 1 (most recent call first):\n  File "{ROOT}/lab/explored/scheduler.py", line 9 in a\n'
    waits += '  File "/x/a.py", line 3 in b\n'
    runs = (
        'Thread 2 (most recent call first):\n  File "/usr/lib/re.py", line 1 in match\n  File "/x/a.py", line 7 in b\n'
    )
    assert stuck.line_in(f"Timeout (0:00:20)!\n{waits}\n{runs}", "/x") == ("/x/a.py", 7)
    assert stuck.line_in(waits, "/x") is None
    assert "at a line that cannot be told" in stuck.sentence(waits, "/x")
