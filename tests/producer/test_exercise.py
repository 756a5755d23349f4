"""The exercises grade: what is right passes, what is wrong fails with its own note, and what only looks right fails too."""

from __future__ import annotations

import ast
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import sharing
from lab.explored import pace
from producer.exercise import checking, claims, command, exploring, placing, showing
from producer.exercise.checking import Checked
from producer.exercise.exercise import EXERCISES, HINTS, Exercise, load, names
from producer.learning.running import Room, room
from producer.progress import Progress
from tests import ROOT
from tests.kit import variables
from tests.kit.wait import until

ALL = [load(name) for name in names()]
WRONG = [pytest.param(one, path, id=f"{one.name}-{path.stem}") for one in ALL for path in one.wrong]
RIGHT = [pytest.param(one, path, id=f"{one.name}-{path.stem}") for one in ALL for path in one.right]
SEED = 1


def by_name(exercise: Exercise) -> str:
    return exercise.name


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture(scope="module")
def here() -> Iterator[Room]:
    with room(["threads", "processes"], Progress(None)) as where:
        yield where


def explored(exercise: Exercise, file: Path, seed: int = SEED) -> Checked:
    return checking.check(exercise, file, [], seed)


def answer(tmp_path: Path, name: str, text: str) -> Path:
    file = tmp_path / f"{name}.py"
    file.write_text(text)
    return file


def producer(*args: str, cwd: Path, state: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    env = {**variables.unset(), "XDG_STATE_HOME": str(state)}
    return subprocess.run(
        [sys.executable, "-m", "producer", "exercise", *args], cwd=cwd, env={**env, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=110, check=False, **options,
    )  # fmt: skip


def test_there_are_fifteen_at_least_and_each_folder_is_one_of_them() -> None:
    assert len(ALL) >= 15
    assert {path.name for path in EXERCISES.iterdir() if path.is_dir() and not path.name.startswith("_")} == set(
        names()
    )


@pytest.mark.parametrize("exercise", ALL, ids=by_name)
def test_an_exercise_has_a_task_three_hints_an_explanation_and_three_wrong_answers(exercise: Exercise) -> None:
    assert all(exercise.text[heading] for heading in ("Task", *HINTS, "Explanation"))
    assert len(exercise.wrong) >= 3
    assert "+++" not in exercise.text["Explanation"]


@pytest.mark.parametrize("exercise", ALL, ids=by_name)
def test_the_solution_passes_and_is_explained(exercise: Exercise) -> None:
    checked = explored(exercise, exercise.solution)
    assert checked.passed, checked.fault
    assert all(one.found and one.found.runs for one in checked.explored)
    shown = showing.checked(checked)
    assert "PASSED" in shown
    assert showing.explanation(exercise) in shown


@pytest.mark.parametrize(("exercise", "path"), RIGHT)
def test_an_unusual_answer_that_is_right_passes(exercise: Exercise, path: Path) -> None:
    checked = explored(exercise, path)
    assert checked.passed, checked.fault


@pytest.mark.parametrize("exercise", ALL, ids=by_name)
def test_the_start_fails_with_a_sentence_a_line_a_note_and_an_order(exercise: Exercise) -> None:
    checked = explored(exercise, exercise.start)
    assert checked.fault is not None
    assert checked.fault.name not in ("syntax", "cannot be explored", "changed", "not started")  # it is no broken file
    assert checked.note is not None
    assert 0 < checked.fault.line <= len(exercise.start.read_text().splitlines())
    assert checked.explored[-1].run is not None
    assert "The first thing that went wrong" in showing.checked(checked)


@pytest.mark.parametrize(("exercise", "path"), WRONG)
def test_a_wrong_answer_fails_with_its_own_note_or_with_none_where_no_note_is_true_of_it(
    exercise: Exercise, path: Path
) -> None:
    expected = path.read_text().partition("\n")[0].removeprefix("# note: ")
    checked = explored(exercise, path)
    assert checked.fault is not None
    assert (checked.note.name if checked.note else "none") == expected, checked.fault
    assert checked.fault.line


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("lock.acquire(timeout=1)\ncount.value += 1\nlock.release()", 1),
        ("lock.acquire(False)\ncount.value += 1", 1),
        ("got = lock.acquire(block=False)\ncount.value += 1\nif got:\n    lock.release()", 1),
        ("if lock.acquire(timeout=5):\n    pass\ncount.value += 1\nlock.release()", 1),
        ("if not lock.acquire(timeout=5):\n    print('late')\nwith other:\n    count.value += 1", 1),
        ("lock.acquire()\ncount.value += 1\nlock.release()", 0),
        ("lock.acquire(True)\ncount.value += 1\nlock.release()", 0),
        ("while not lock.acquire(timeout=1):\n    pass\ncount.value += 1\nlock.release()", 0),
        ("if not lock.acquire(timeout=1):\n    lock.acquire()\ncount.value += 1\nlock.release()", 0),
        ("if not lock.acquire(timeout=1):\n    raise SystemExit\ncount.value += 1\nlock.release()", 0),
        ("got = lock.acquire(timeout=1)\nif got:\n    count.value += 1\n    lock.release()", 0),
        (
            "done = False\nwhile not done:\n    if lock.acquire(False):\n        count.value += 1\n        done = True",
            0,
        ),
        ("for _ in many:\n    if lock.acquire(False):\n        count.value += 1\n        break\n    tries += 1", 0),
    ],
)
def test_a_lock_that_may_not_be_had_is_looked_at(body: str, line: int) -> None:
    fault = claims.not_looked(body)
    assert (fault.line if fault else 0) == line


@pytest.mark.parametrize("exercise", ALL, ids=by_name)
def test_a_result_that_is_hard_coded_fails(exercise: Exercise, tmp_path: Path) -> None:
    small = exercise.grader.small(random.Random(SEED))
    known = {args: exercise.grader.expected(args) for args in small}
    functions = exercise.start.read_text().partition('if __name__ == "__main__":')[0]
    file = answer(
        tmp_path, exercise.name, f'{functions}if __name__ == "__main__":\n    print({known!r}[tuple(sys.argv[1:])])\n'
    )
    checked = explored(exercise, file)
    assert checked.fault is not None
    assert checked.fault.name != "output"  # it is printed right; it is the history that fails


@pytest.mark.parametrize("exercise", ALL, ids=by_name)
def test_work_that_is_left_out_fails(exercise: Exercise, tmp_path: Path) -> None:
    tree = ast.parse(exercise.solution.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name != "__init__":
            node.body = [ast.Pass()]
    assert explored(exercise, answer(tmp_path, exercise.name, ast.unparse(tree))).fault is not None


@pytest.mark.parametrize("exercise", [one for one in ALL if "main" in one.keeps], ids=by_name)
def test_what_is_to_stay_must_stay_and_layout_does_not_count(exercise: Exercise, tmp_path: Path) -> None:
    text = exercise.solution.read_text()
    assert exercise.changed(text.replace("    print(", "    # changed nothing\n    print(")) is None
    fault = exercise.changed(text.replace("    print(", "    print(0, "))
    assert fault is not None
    assert text.splitlines()[fault.line - 1].startswith("if __name__")


@pytest.mark.parametrize("exercise", ALL, ids=by_name)
def test_the_solution_passes_where_it_really_runs(exercise: Exercise, here: Room) -> None:
    args = exercise.grader.large(random.Random(SEED), "threads")
    placed = placing.run(exercise, exercise.solution, "threads", args, here)
    assert placed.fault is None, placed.fault
    assert placed.ops


def test_a_worker_is_really_killed_and_its_history_says_so(here: Room) -> None:
    exercise = load("killed_stage")
    args = ("700", *map(str, range(1, 16)))
    placed = placing.run(exercise, exercise.solution, "processes", args, here)
    assert placed.fault is None, placed.fault


def test_on_a_real_place_too_a_result_without_its_history_fails(tmp_path: Path, here: Room) -> None:
    exercise = load("lost_update")
    file = answer(tmp_path, "lost_update", "import sys\nprint(int(sys.argv[1]) * int(sys.argv[2]))\n")
    placed = placing.run(exercise, file, "processes", ("2", "3"), here)
    assert placed.fault is not None
    assert placed.fault.name == "not started"


def test_who_works_only_while_he_is_explored_fails(tmp_path: Path, here: Room) -> None:
    exercise = load("lost_update")
    text = exercise.solution.read_text().replace(
        "    for _ in", "    if not 1000 <= os.getpid() < 1010 or 'idle' in sys.argv:\n        return\n    for _ in"
    )
    file = answer(tmp_path, "lost_update", text.replace("import sys", "import os\nimport sys").replace(
        "print(counter.value)", "print(workers * times if not 1000 <= os.getpid() < 1010 else counter.value)"))  # fmt: skip
    assert explored(exercise, file).passed
    placed = placing.run(exercise, file, "processes", ("2", "3"), here)
    assert placed.fault is not None
    assert placed.fault.name == "no work"


def test_what_does_not_end_on_a_real_place_is_ended_and_named(here: Room) -> None:
    exercise = load("drain")
    placed = placing.run(exercise, exercise.start, "threads", ("2", "2"), here, limit=5)
    assert placed.fault is not None
    assert "had not ended after 5 seconds" in str(placed.fault)


def test_what_raises_on_a_real_place_is_named_with_its_line_and_leaves_its_picture(here: Room, tmp_path: Path) -> None:
    exercise = load("pool_errors")
    picture = tmp_path / "picture.html"
    placed = placing.run(exercise, exercise.start, "threads", ("2", "3"), here, picture=str(picture))
    assert "<svg" in picture.read_text()
    assert str(placed.fault) == "line 7: ValueError: 3 cannot be done"


def test_sizes_are_drawn_anew_by_each_seed() -> None:
    drawn = {tuple(one.grader.large(random.Random(seed), "threads")) for one in ALL[:3] for seed in range(20)}
    assert len(drawn) > 20


def test_a_seed_repeats_a_check() -> None:
    exercise = load("lost_update")
    assert explored(exercise, exercise.start, 7).to_json() == explored(exercise, exercise.start, 7).to_json()


# As somebody types it


def test_from_the_start_to_the_explanation(tmp_path: Path, state: Path) -> None:
    begun = producer("start", "two_locks", cwd=tmp_path, state=state)
    assert begun.returncode == 0
    assert "that is the exercise" in begun.stdout
    file = tmp_path / "two_locks.py"
    again = producer("start", "two_locks", cwd=tmp_path, state=state)
    assert again.returncode == 2
    assert "--force" in again.stderr

    failed = producer("check", "two_locks.py", "--seed", "3", cwd=tmp_path, state=state)
    assert failed.returncode == 1
    assert "line 8: deadlock" in failed.stdout.replace("\n  ", " ")
    assert "Who waits for whom" in failed.stdout
    assert "(with locks[target]:)" in " ".join(failed.stdout.split())
    assert "Traceback" not in failed.stdout + failed.stderr
    assert "deadlock" in (tmp_path / "two_locks.picture.html").read_text()
    assert json.loads((tmp_path / "two_locks.order.json").read_text())["kind"] == "deadlock"

    file.write_text(load("two_locks").solution.read_text())
    passed = producer("check", "two_locks", "--on", "threads", cwd=tmp_path, state=state)
    assert passed.returncode == 0, passed.stdout + passed.stderr
    assert "PASSED" in passed.stdout
    assert "A deadlock takes a circle" in passed.stdout
    assert not (tmp_path / "two_locks.picture.html").exists()
    listed = json.loads(producer("list", "--json", cwd=tmp_path, state=state).stdout)
    assert [one["name"] for one in listed if one["passed"]] == ["two_locks"]


def test_an_order_that_was_left_goes_the_same_way_on_a_real_place(tmp_path: Path, state: Path) -> None:
    file = answer(tmp_path, "lost_update", load("lost_update").start.read_text())
    assert producer("check", str(file), cwd=tmp_path, state=state).returncode == 1
    done = subprocess.run(
        [sys.executable, "-m", "producer", "replay", "lost_update.order.json", "--on", "threads", "--times", "2"],
        cwd=tmp_path, env={**variables.unset(), "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=100,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The same 2 of 2 times" in done.stdout


def test_as_json_it_is_all_there(tmp_path: Path, state: Path) -> None:
    answer(tmp_path, "lost_update", load("lost_update").start.read_text())
    done = producer("check", "lost_update", "--json", "--seed", "5", cwd=tmp_path, state=state)
    found = json.loads(done.stdout)
    assert done.returncode == 1
    assert (found["passed"], found["fault"]["line"], found["note"]["name"]) == (False, 8, "no lock")
    assert found["explored"][0]["runs"] == 34
    assert found["explored"][0]["interleavings"] == 70
    assert [step["line"] for step in found["shortest"]][:2] == [7, 8]
    assert found["picture"]
    assert not done.stderr


def test_hints_lead_step_by_step_and_only_when_they_are_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    def hint(number: int | None = None) -> str:
        command.hint("drain", number)
        return capsys.readouterr().out

    shown = [hint() for _ in range(4)]
    assert [text.partition(":")[0] for text in shown] == ["Hint 1 of 3", "Hint 2 of 3", "Hint 3 of 3", "Hint 3 of 3"]
    assert hint(1) == shown[0]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("def work(:\n", 1, "not Python"),
        ("import threading\n", 0, "imports threading"),
        ("", 0, "no processes"),
        ("raise SystemExit(3)\n", 0, ""),
        (
            "import sys\nfrom multiprocessing import Process\n\n\nif __name__ == '__main__':\n    undefined()\n",
            6,
            "NameError",
        ),
    ],
)
def test_what_is_no_answer_at_all_is_told_in_a_sentence(
    text: str, line: int, words: str, tmp_path: Path, state: Path
) -> None:
    answer(tmp_path, "lost_update", text)
    done = producer("check", "lost_update.py", cwd=tmp_path, state=state)
    assert done.returncode == 1, done.stderr
    assert words in done.stdout
    assert f"line {line}:" in done.stdout or not line
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("check", "nothing.py"), "has the name of no exercise"),
        (("check", "lost_update.py"), "producer exercise start lost_update"),
        (("check", "nothing.py", "--exercise", "lost_updat"), "Did you mean 'lost_update'?"),
        (("start", "lost"), "There is no exercise 'lost'"),
        (("hint", "drain", "4"), "4"),
        (("watch", "drain"), "Cannot read"),
        (("solve",), "There is no command 'solve'"),
    ],
)
def test_what_was_typed_wrongly_is_answered(args: tuple[str, ...], words: str, tmp_path: Path, state: Path) -> None:
    done = producer(*args, cwd=tmp_path, state=state)
    assert done.returncode == 2, done.stdout
    assert words in done.stderr
    assert not list(tmp_path.glob("*.py"))


def test_the_solution_is_shown_with_its_explanation(tmp_path: Path, state: Path) -> None:
    exercise = load("fencing")
    shown = producer("solution", "fencing", cwd=tmp_path, state=state).stdout
    assert exercise.solution.read_text() in shown
    assert "one step with the write" in shown.replace("\n", " ")


def test_an_answer_that_computes_for_ever_is_ended_with_its_line(tmp_path: Path, state: Path) -> None:
    file = answer(tmp_path, "lost_update", "import sys\n\nwhile True:\n    sys.argv\n")
    code = (
        "import sys; from producer.exercise import command; command.PATIENCE = 1.0;"
        f"sys.exit(command.check({str(file)!r}, None, [], 1, 10, False))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "has not ended after 1 seconds" in done.stdout.replace("\n ", "")
    assert "line 3:" in done.stdout or "line 4:" in done.stdout


def test_an_answer_whose_c_code_lets_nobody_run_is_ended_with_its_line(tmp_path: Path, state: Path) -> None:
    text = load("lost_update").start.read_text().replace("import sys\n", "import re\nimport sys\n", 1)
    astray = text.replace("        seen =", '        re.match("(a+)+b", "a" * 60)\n        seen =', 1)
    answer(tmp_path, "lost_update", astray)
    done = producer("check", "lost_update.py", cwd=tmp_path, state=state)
    assert done.returncode == 1
    assert "line 8: it does not end here: it is in C code" in done.stdout


def test_an_answer_whose_worker_computes_for_ever_fails_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "PATIENCE", 1.0)
    exercise = load("lost_update")
    changed = exercise.solution.read_text().replace(
        "    for _ in range(", "    while True:\n        pass\n    for _ in range(", 1
    )
    fault = explored(exercise, answer(tmp_path, "lost_update", changed)).fault
    assert fault is not None
    assert fault.name == "endless"
    assert "Process-1 has computed for " in fault.text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import os; os._exit(0)", "line 1: os._exit(0) ends the program here"),
        ("import os; os.execv('/bin/true', ['true'])", "with exit code 0, before there was a verdict"),
        ("import os, signal; signal.raise_signal(9)", "with signal 9, before there was a verdict"),
    ],
)
def test_an_answer_that_ends_whoever_grades_it_fails_with_a_sentence(
    text: str, words: str, tmp_path: Path, state: Path
) -> None:
    answer(tmp_path, "lost_update", f"{text}\n")
    done = producer("check", "lost_update.py", "--seed", "1", "--on", "threads", "--json", cwd=tmp_path, state=state)
    said = json.loads(done.stdout)
    assert (done.returncode, said["passed"]) == (1, False)
    assert words in said["fault"]["sentence"]


def test_it_is_checked_again_when_it_is_saved_and_ctrl_c_ends_it(tmp_path: Path, state: Path) -> None:
    file = answer(tmp_path, "first_join", load("first_join").start.read_text())
    log = tmp_path / "log"
    env = {**variables.unset(), "XDG_STATE_HOME": str(state), "PYTHONPATH": str(ROOT)}
    with log.open("w") as out:
        watching = subprocess.Popen(
            [sys.executable, "-m", "producer", "exercise", "watch", "first_join.py", "--on", "threads"],
            cwd=tmp_path, env=env, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        until(lambda: "it is checked again when it is saved" in log.read_text(), "the first check", 60)
        assert "PASSED" not in log.read_text()
        file.write_text(load("first_join").solution.read_text())
        until(lambda: "PASSED" in log.read_text() and log.read_text().count("Watching") == 2, "the second check", 60)
        os.killpg(watching.pid, signal.SIGINT)
        assert watching.wait(20) == 130
    finally:
        if watching.poll() is None:
            os.killpg(watching.pid, signal.SIGKILL)
            watching.wait()
    assert "Traceback" not in log.read_text()


def test_ctrl_c_in_a_check_ends_it_at_once(tmp_path: Path, state: Path) -> None:
    file = answer(tmp_path, "lost_update", "import sys\nprint('begun')\nwhile True:\n    pass\n")
    env = {**variables.unset(), "XDG_STATE_HOME": str(state), "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-m", "producer", "exercise", "check", str(file)], cwd=tmp_path, env=env,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stderr is not None
    assert "in every order" in process.stderr.readline()
    time.sleep(0.2)  # it is in its loop, or on the way to it: Ctrl-C may come at either time
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130


def test_the_mark_that_editors_put_before_a_text_is_none_of_it(tmp_path: Path) -> None:
    exercise = load("first_join")
    file = answer(tmp_path, "first_join", "\ufeff" + exercise.solution.read_text())
    assert explored(exercise, file).passed


def test_many_are_explored_in_one_process_and_leave_its_imports_as_they_were() -> None:
    before = list(sys.path), list(sys.meta_path), list(sys.path_hooks)
    exploring.explore(load("drain"), load("drain").solution, ("1", "2"))
    assert (list(sys.path), list(sys.meta_path), list(sys.path_hooks)) == before
    assert sharing.here() is None


def test_commands_keep_what_was_passed_and_nothing_else(tmp_path: Path, state: Path) -> None:
    answer(tmp_path, "first_join", load("first_join").start.read_text())
    assert producer("check", "first_join.py", cwd=tmp_path, state=state).returncode == 1
    assert "passed" not in command.kept("first_join").steps()
