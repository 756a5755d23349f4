"""A class: each student's numbers are that student's own, and whatever comes back costs nobody's mark but its own."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any

import pytest

from producer.classroom import register, results, submitted, walls
from producer.classroom.cell import seen
from producer.classroom.register import Class
from producer.classroom.walls import Plan
from producer.exercise.exercise import EXERCISES, load, names, numbered
from producer.learning import lesson as lessons
from producer.learning import own
from producer.learning.lesson import COURSE
from producer.learning.lesson import load as load_lesson
from producer.learning.running import room
from producer.progress import Progress
from tests import ROOT
from tests.kit import variables
from tests.kit.wait import until, within

NAME = "lost_update"
OWN = [name for name in lessons.names() if (COURSE / name / own.FILE).exists()]
SOLUTION = load(NAME).solution.read_text()
LIMITS = ("--seconds", "110", "--memory", "512")
LATER = """
def work(counter, times):
    if times > 10 and not 1000 <= os.getpid() < 1010:  # where it really runs
"""


def course(*args: str, cwd: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "producer", *args], cwd=cwd, env={**variables.unset(), "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=110, check=False, **options,
    )  # fmt: skip


def made(folder: Path, *students: str, exercises: str = NAME, more: tuple[str, ...] = ()) -> Class:
    (folder / "names.txt").write_text("".join(f"{name}\n" for name in students))
    done = course("course", "new", "class", "--exercises", exercises, "--students", "names.txt", "--seed", "7", *more,
                  cwd=folder)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return register.read(folder / "class")


def right(of: Class, student: str) -> str:
    return numbered(SOLUTION, register.own(of.seed, NAME, student).number)


def where_it_runs(text: str, does: str) -> str:
    """A right answer that does something else besides, but in the places alone."""
    body = "".join(f"        {line}\n" for line in does.splitlines())
    return "import os, signal, time\n" + text.replace("\ndef work(counter, times):\n", LATER + body)


# The folders


def test_the_same_seed_gives_the_same_folders_and_each_student_has_other_numbers(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        made(tmp_path / folder, "ann", "ben", exercises="lost_update,two_locks")
    a, b = tmp_path / "a" / "class", tmp_path / "b" / "class"
    files = sorted(path.relative_to(a) for path in a.rglob("*") if path.is_file())
    assert [str(path) for path in files] == [
        "class.json",
        *(f"students/{who}/{file}" for who in ("ann", "ben")
          for file in ("README.md", "course.json", "lost_update.py", "two_locks.py")),
    ]  # fmt: skip
    assert all((a / path).read_bytes() == (b / path).read_bytes() for path in files)
    for file in ("README.md", "course.json", "lost_update.py", "two_locks.py"):
        assert (a / "students" / "ann" / file).read_text() != (a / "students" / "ben" / file).read_text()


@pytest.mark.parametrize("name", names())
def test_the_question_says_what_the_solution_prints_with_the_students_sizes(name: str, tmp_path: Path) -> None:
    found = made(tmp_path, "ann", exercises=name)
    question = (found.of("ann") / "README.md").read_text()
    asked, _, rest = question.partition("With your sizes,\n`python ")[2].partition("` is to print `")
    file = tmp_path / "solution.py"
    file.write_text(numbered(load(name).solution.read_text(), register.own(7, name, "ann").number))
    done = subprocess.run(
        [sys.executable, str(file), *asked.split()[1:]], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.strip() == rest.partition("`")[0], done.stderr


def test_in_a_students_folder_the_number_is_in_the_file_and_what_is_kept_stays_there(tmp_path: Path) -> None:
    found = made(tmp_path, "ann", more=("--lessons", "global"))
    here, number = found.of("ann"), register.own(7, NAME, "ann").number
    given = (here / f"{NAME}.py").read_text()
    assert f"print({number}, counter.value)" in given
    assert course("exercise", "start", NAME, "--force", cwd=here).returncode == 0
    assert (here / f"{NAME}.py").read_text() == given
    (here / f"{NAME}.py").write_text(SOLUTION)
    said = json.loads(course("exercise", "check", NAME, "--on", "threads", "--json", cwd=here).stdout)
    assert f"where '{number} 4' is right" in said["fault"]["sentence"]
    (here / f"{NAME}.py").write_text(right(found, "ann"))
    said = json.loads(course("exercise", "check", f"class/students/ann/{NAME}.py", "--on", "threads", "--json",
                             cwd=tmp_path).stdout)  # fmt: skip
    assert said["passed"]
    answers = json.dumps({step: dict.fromkeys(labels) for step, labels in
                          {"run": ["count"], "break": ["found"], "mend": ["count"]}.items()})  # fmt: skip
    done = course("learn", "global", "--on", "threads", "--answers", "-", cwd=here, input=answers)
    assert done.returncode == 0, done.stderr
    assert submitted.predicted(found, "ann", "global") == (3, 3)


def test_students_who_come_later_are_added_and_nothing_else_is_touched(tmp_path: Path) -> None:
    found = made(tmp_path, "ann")
    file = found.of("ann") / f"{NAME}.py"
    file.write_text("# begun\n")
    later = made(tmp_path, "ben", "ann")
    assert list(later.students) == ["ann", "ben"]
    assert later.students["ann"] == found.students["ann"]
    assert file.read_text() == "# begun\n"


@pytest.mark.parametrize(
    "name", ["../ann", "a/b", ".ann", "-ann", "ann.", "a\tb", "n" * 81, "ann\nAnn", "ann\nann", ""]
)
def test_a_name_that_can_be_no_folder_is_refused_and_nothing_is_made(name: str, tmp_path: Path) -> None:
    done = course("course", "new", "class", "--exercises", NAME, "--students", "-", cwd=tmp_path, input=f"{name}\n")
    assert done.returncode == 2, done.stdout
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "has no class.json"),
        ("{", "is damaged"),
        ("[]", "is damaged"),
        ('{"crosshost class": 1, "seed": 1}', "is damaged"),
    ],
)
def test_what_is_no_class_is_named(text: str | None, says: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "class.json").write_text(text)
    done = course("course", "grade", ".", cwd=tmp_path)
    assert (done.returncode, says in done.stderr, "Traceback" in done.stderr) == (2, True, False), done.stderr


# Lessons


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", OWN)
def test_a_lesson_with_numbers_of_its_own_is_right_about_them(name: str, seed: int, tmp_path: Path) -> None:
    files = own.files(name, random.Random(seed))
    assert len({own.files(name, random.Random(other))["answers.toml"] for other in range(20)}) > 3
    (tmp_path / name).mkdir()
    for file, text in files.items():
        (tmp_path / name / file).write_text(text)
    lesson = load_lesson(name, tmp_path)
    with room(["threads", "processes"], Progress(None)) as where:
        for step in lesson.steps:
            for place in ("threads", "processes"):
                answers = where.run(step.program, place).answers
                for question in step.questions:
                    assert question.expected[place].holds(answers.get(question.label)), (step.name, place, answers)


def test_predictions_of_other_numbers_are_counted_with_those_that_mean_the_same(tmp_path: Path) -> None:
    found = made(tmp_path, "ann", "ben", "cid", "dan", more=("--lessons", "counter"))
    mended = {who: load_lesson("counter", found.of(who) / "lessons").steps[2].questions[0] for who in found.students}
    right = {who: int(each.expected["threads"].low) for who, each in mended.items()}
    assert len(set(right.values())) > 1
    for who, predicted in {"ann": right["ann"], "ben": right["ben"] - 5, "cid": None, "dan": right["dan"] + 7}.items():
        (found.of(who) / "kept").mkdir()
        line = {"step": "mend", "predicted": {"counted": {"threads": predicted}}}
        (found.of(who) / "kept" / "counter.jsonl").write_text(json.dumps(line) + "\n")
    done = course("course", "predictions", "class", "--json", cwd=tmp_path)
    said = json.loads(done.stdout)
    assert said["students"] == 4
    (question,) = said["questions"]
    answers = {each["answer"]: each for each in question["answers"]}
    assert answers["200"]["right"]
    assert "only makes losses rarer" in " ".join(each["belief"] for each in answers.values())
    assert answers["?"]["number"] == 1
    assert [each["right"] for each in answers.values()].count(True) == 1


def test_a_lesson_that_a_student_has_damaged_is_named(tmp_path: Path) -> None:
    found = made(tmp_path, "ann", more=("--lessons", "counter"))
    (found.of("ann") / "lessons" / "counter" / "answers.toml").write_text("[")
    done = course("learn", "counter", "--questions", cwd=found.of("ann"))
    assert (done.returncode, "is damaged" in done.stderr, "Traceback" in done.stderr) == (2, True, False)


# Grading


@pytest.fixture(scope="module")
def class_(tmp_path_factory: pytest.TempPathFactory) -> Class:
    """A class in which every answer but one's is handed in, of every sort."""
    folder = tmp_path_factory.mktemp("school")
    students = ["ann", "copied", *WRONG, "link", "pipe", "large", "missing", "empty", "same", "binary", "late"]
    found = made(folder, *students, more=("--due", "2100-01-01T12:00"))
    for student, text in WRONG.items():
        text = text.replace("CLASS", str(found.folder))
        hand_in(found, student, where_it_runs(right(found, student), text[1:]) if text[0] == "\n" else text)
    hand_in(found, "ann", right(found, "ann"))
    hand_in(found, "copied", right(found, "ann"))
    hand_in(found, "empty", "\n\n")
    hand_in(found, "large", right(found, "large") + "# \n" * 100_000)
    hand_in(found, "late", right(found, "late"))
    os.utime(found.of("late") / f"{NAME}.py", (4_200_000_000, 4_200_000_000))
    file = found.of("same") / f"{NAME}.py"
    file.write_text("# I have tried\n" + file.read_text())
    (found.of("binary") / f"{NAME}.py").write_bytes(b"\xff\xfe\x00")
    for student in ("link", "pipe", "missing"):
        (found.of(student) / f"{NAME}.py").unlink()
    (found.of("link") / f"{NAME}.py").symlink_to(found.of("ann").resolve() / f"{NAME}.py")
    os.mkfifo(found.of("pipe") / f"{NAME}.py")
    manifest = found.of("hard_coded") / "course.json"
    manifest.write_text(manifest.read_text().replace("hard_coded", "ann"))
    (found.folder / "students" / "nobody").mkdir()
    return found


def hand_in(of: Class, student: str, text: str) -> None:
    (of.of(student) / f"{NAME}.py").write_text(text)


FORGED = {"tests": [{"name": "all", "passed": True, "output": ""}], "fault": "", "kind": "", "note": ""}
WRITES_OVER_ALL = f"""
for root in {[str(EXERCISES), str(ROOT / "producer"), "/work", "/tmp", "/proc/1"]!r}:
    for folder, _, files in os.walk(root):
        for name in files:
            try:
                open(os.path.join(folder, name), "w").write("print('mine')")
            except OSError:
                pass
"""
WRONG = {
    # what begins with a line of its own is done where the answer really runs, after it was right in every order
    "syntax": "def work(:\n",
    "deep": f"x = {'-' * 90_000}1\ny = {'a+' * 40_000}a\n",
    "hard_coded": "import sys\n\nif __name__ == '__main__':\n    print(4, int(sys.argv[1]) * int(sys.argv[2]))\n",
    "bomb": "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass\n",
    "bomb_later": "\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass",
    "printer": "while True:\n    print('x' * 1000)\n",
    "printer_later": "\nwhile True:\n    print('x' * 100_000, flush=True)",
    "hog": "\nkept = []\nwhile True:\n    kept.append(bytearray(10_000_000))",
    "hogs": "\nkept = []\nfor _ in range(3):\n    os.fork()\nwhile True:\n    try:\n"
    "        kept.append(bytearray(5_000_000))\n    except MemoryError:\n        time.sleep(1)",
    "kills_parent": "\nfor pid in (os.getppid(), 1, 2, 3):\n    os.kill(pid, 9)",
    "kills_all": "\nos.kill(-1, 9)",
    "leaves": "import os\nos._exit(0)\n",
    # the C library's _exit ends the process that grades, which os._exit does not
    "leaves_c": "import ctypes\nctypes.CDLL(None)._exit(0)\n",
    "pretends": "import ctypes, os\nos.write(2, b'unshare: no')\nctypes.CDLL(None)._exit(121)\n",
    "forges": "import ctypes, os\nfor fd in range(1, 30):\n    try:\n        os.write(fd, "
    f"{chr(10) + json.dumps(FORGED) + chr(10)!r}.encode())\n    except OSError:\n        pass\nctypes.CDLL(None)._exit(0)\n",
    "writes": f"import os\n{WRITES_OVER_ALL}",
    "writes_later": WRITES_OVER_ALL,
    "solution": f"\nopen({str(EXERCISES / NAME / 'solution.py')!r})",
    "neighbour": "\nopen('CLASS/class.json')\nopen(f'CLASS/students/ann/lost_update.py')",
}


@pytest.fixture(scope="module")
def before(class_: Class) -> dict[Path, bytes]:
    """What nobody may have changed."""
    return {path: path.read_bytes() for folder in (EXERCISES, ROOT / "producer", class_.folder / "students")
            for path in folder.rglob("*.*") if path.is_file() and not path.is_fifo() and path.suffix != ".pyc"}  # fmt: skip


@pytest.fixture(scope="module")
def graded(class_: Class, before: dict[Path, bytes]) -> dict[str, Any]:
    assert before
    process = subprocess.Popen(
        [sys.executable, "-m", "producer", "course", "grade", "class", "--json", "--jobs", "2", *LIMITS],
        cwd=class_.folder.parent, env={**variables.unset(), "PYTHONPATH": str(ROOT)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    with process:
        try:
            out, err = process.communicate(timeout=600)
        finally:
            process.kill()
    assert process.returncode == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def of(graded: dict[str, Any], student: str) -> dict[str, Any]:
    (found,) = [each for each in graded["students"] if each["student"] == student]
    one: dict[str, Any] = {**found["exercises"][0], "manifest": found["manifest"]}
    return one


@pytest.mark.timeout(700)
def test_a_right_answer_passes_beside_all_the_others(graded: dict[str, Any]) -> None:
    assert (of(graded, "ann")["status"], of(graded, "ann")["remarks"]) == ("pass", [])
    assert of(graded, "late")["status"] == "pass"


@pytest.mark.timeout(700)
@pytest.mark.parametrize("student", [*WRONG, "copied", "link", "pipe", "large", "missing", "empty", "same", "binary"])
def test_what_is_wrong_does_not_pass(student: str, graded: dict[str, Any]) -> None:
    assert of(graded, student)["status"] in ("fail", "error")
    assert of(graded, student)["why"]


@pytest.mark.timeout(700)
@pytest.mark.parametrize(
    ("student", "status", "why"),
    [
        ("bomb", "error", "processes and threads that it may have"),
        ("bomb_later", "error", "processes and threads that it may have"),
        ("printer_later", "fail", "File too large"),
        ("hogs", "error", "MB of memory"),
        ("kills_all", "error", "before there was a verdict"),
        ("leaves", "fail", "os._exit(0) ends the program here"),
        ("leaves_c", "error", "before there was a verdict"),
        ("pretends", "error", "with exit code 121"),
        ("forges", "error", "before there was a verdict"),
        ("syntax", "error", "not Python"),
        ("missing", "error", "missing"),
        ("link", "error", "a link is none"),
        ("pipe", "error", "is no file"),
        ("large", "error", "bytes"),
        ("empty", "error", "empty"),
        ("binary", "error", "no text"),
        ("same", "fail", "as it was given out"),
        ("hard_coded", "fail", "no processes started"),
        ("solution", "fail", "never adds to the counter"),
        ("neighbour", "fail", "never adds to the counter"),
    ],
)
def test_it_is_said_why(student: str, status: str, why: str, graded: dict[str, Any], class_: Class) -> None:
    one = of(graded, student)
    document = (class_.results(student, NAME) / "results.json").read_text()
    assert one["status"] == status
    assert why in one["why"] or why in document, document


@pytest.mark.timeout(700)
def test_what_an_answer_writes_over_is_nobodys(graded: dict[str, Any], before: dict[Path, bytes]) -> None:
    assert graded
    assert [str(path) for path, data in before.items() if path.read_bytes() != data] == []


@pytest.mark.timeout(700)
def test_what_there_is_to_be_looked_at_is_named(graded: dict[str, Any]) -> None:
    assert "which is the number of ann" in of(graded, "copied")["remarks"][0]
    assert "late: written 2103" in of(graded, "late")["remarks"][0]
    assert "course.json was changed" in of(graded, "hard_coded")["manifest"]
    assert of(graded, "ann")["manifest"] is None
    assert graded["strangers"] == ["nobody"]


@pytest.mark.timeout(700)
def test_each_verdict_is_in_exercisms_form(graded: dict[str, Any], class_: Class) -> None:
    for student in class_.students:
        document = json.loads((class_.results(student, NAME) / "results.json").read_text())
        assert set(document) == {"version", "status", "message", "tests"}
        assert document["version"] == 2
        assert document["status"] == of(graded, student)["status"]
        assert (document["message"] is None) == (document["status"] != "error")
        assert document["tests"] or document["status"] == "error"
        for test in document["tests"]:
            assert set(test) == {"name", "status", "message", "output"}
            assert (test["status"] == "pass") == (test["message"] is None)
            assert len(test["output"] or "") <= 500


@pytest.mark.timeout(700)
def test_a_second_run_goes_on_and_grades_what_has_changed(graded: dict[str, Any], class_: Class) -> None:
    assert graded
    hand_in(class_, "missing", right(class_, "missing"))
    done = course("course", "grade", "class", "--json", *LIMITS, cwd=class_.folder.parent)
    again = json.loads(done.stdout)
    assert [each["student"] for each in again["students"] if not each["exercises"][0]["graded before"]] == ["missing"]
    assert of(again, "missing")["status"] == "pass"
    table = course("course", "grade", "class", *LIMITS, cwd=class_.folder.parent).stdout
    assert "\nann            pass\n" in table
    assert "bomb, lost_update: it had all of the 64 processes" in " ".join(table.split())


# what keeps the GIL, and what is stopped; the exploration ends what computes in Python sooner, and names its line
@pytest.mark.parametrize("does", ["re.match('(a+)+$', 'a' * 99 + 'b')", "signal.raise_signal(signal.SIGSTOP)"])
def test_what_does_not_end_is_ended(does: str, tmp_path: Path) -> None:
    found = made(tmp_path, "ann")
    hand_in(found, "ann", f"import re, signal\n{does}\n")
    said = json.loads(course("course", "grade", "class", "--json", "--seconds", "15", cwd=tmp_path).stdout)
    assert "had not ended after 15 seconds" in of(said, "ann")["why"]


def test_ctrl_c_keeps_what_is_graded_and_leaves_nothing_running(tmp_path: Path) -> None:
    found = made(tmp_path, "ann", "ben")
    mark = uuid.uuid4().hex
    hand_in(found, "ann", right(found, "ann"))
    hand_in(
        found,
        "ben",
        f"import os, sys\nos.execv(sys.executable, [sys.executable, '-c', 'while True: pass', '{mark}'])\n",
    )
    with subprocess.Popen(
        [sys.executable, "-m", "producer", "course", "grade", "class"], cwd=tmp_path, stderr=subprocess.PIPE, text=True,
        env={**variables.unset(), "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:  # fmt: skip
        assert process.stderr
        until(lambda: running(mark), "the answer that does not end", 90)
        second = course("course", "grade", "class", cwd=tmp_path)
        assert (second.returncode, "by another command" in second.stderr) == (2, True)
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
        assert process.wait(20) == 130
    assert "1 of 2 are graded, and kept" in said
    until(lambda: not running(mark), "its end")
    hand_in(found, "ben", right(found, "ben"))
    again = json.loads(course("course", "grade", "class", "--json", cwd=tmp_path).stdout)
    assert [of(again, name)["status"] for name in ("ann", "ben")] == ["pass", "pass"]
    assert [of(again, name)["graded before"] for name in ("ann", "ben")] == [True, False]


def running(mark: str) -> bool:
    """Whether a process runs whose command has a mark."""
    for cmdline in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if mark.encode() in cmdline.read_bytes().split(b"\0"):
                return True
        except OSError:
            continue
    return False


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import gc", "line 1 uses gc"),
        ("from producer.exercise import checking", "line 1 uses producer.exercise"),
        ("x = 1\nimport sys\nsys.modules", "line 3 uses modules"),
        ("exec('1')", "line 1 uses exec"),
    ],
)
def test_what_may_reach_for_the_grader_is_named(text: str, says: str, tmp_path: Path) -> None:
    found = made(tmp_path, "ann")
    hand_in(found, "ann", text)
    assert any(says in remark for remark in submitted.answer(found, "ann", NAME).remarks)


@pytest.mark.parametrize("name", names())
def test_no_program_of_an_exercise_is_taken_for_one_that_does(name: str, tmp_path: Path) -> None:
    found = made(tmp_path, "ann", exercises=name)
    for path in (load(name).start, load(name).solution, *load(name).wrong):
        (found.of("ann") / f"{name}.py").write_text(path.read_text())
        assert submitted.answer(found, "ann", name).remarks == []


# The walls


def behind_walls(program: str, *args: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory() as root, tempfile.TemporaryFile() as complaints:
        fd = complaints.fileno()
        command = [sys.executable, "-c", program, *args]
        hidden = [str(Path(sys.prefix, "lib"))] if args == ("without lib",) else []
        plan = Plan(
            root, seen(Path("/nowhere")), hidden, command, {"PYTHONPATH": str(ROOT)}, [], fd, 1 << 30, 64, 1 << 20
        )
        return subprocess.run(
            [sys.executable, "-P", "-m", walls.__name__, plan.to_json()], capture_output=True, text=True,
            timeout=seconds, check=False, pass_fds=[fd],
        )  # fmt: skip


def test_what_runs_behind_them_has_no_rights_and_sees_nobody(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    program = f"""
import os
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines())
print({{name: int(status[name].strip(), 16) for name in ("CapPrm", "CapEff", "CapBnd", "NoNewPrivs")}})
print(sorted(int(pid) for pid in os.listdir("/proc") if pid.isdigit()))
print(os.path.exists({str(tmp_path / "secret")!r}), os.path.exists("/etc/shadow"), os.getcwd())
open("mine", "w").write("1")
"""
    done = behind_walls(program)
    assert done.stdout.splitlines() == [
        "{'CapPrm': 0, 'CapEff': 0, 'CapBnd': 0, 'NoNewPrivs': 1}", "[1, 2]", "False False /work",
    ], done.stderr  # fmt: skip


def test_what_is_hidden_is_not_seen_wherever_it_lies() -> None:
    program = "import os, sys\nprint(os.listdir(sys.prefix + '/lib'), 'bin' in os.listdir(sys.prefix))"
    assert "python" in behind_walls(program).stdout
    assert behind_walls(program, "without lib").stdout == "[] True\n"


def test_nobody_is_reached_from_behind_them() -> None:
    program = "import socket, sys\ntry:\n    socket.create_connection(('127.0.0.1', int(sys.argv[1])), 5)\n" \
              "except OSError as exc:\n    print('not', exc.errno)\nelse:\n    print('reached')\n"  # fmt: skip
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        assert subprocess.run([sys.executable, "-c", program, port], capture_output=True, text=True, timeout=30,
                              check=True).stdout == "reached\n"  # fmt: skip
        done = behind_walls(program, port)
    assert done.stdout.startswith("not "), done.stderr


def test_whoever_gets_away_from_its_parent_ends_with_the_first_one(tmp_path: Path) -> None:
    mark = uuid.uuid4().hex
    program = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(1e6)", sys.argv[1]])
    os._exit(0)
os.wait()
print("away", flush=True)
"""
    done = behind_walls(program, mark)
    assert (done.returncode, done.stdout) == (0, "away\n"), done.stderr
    assert within(20, lambda: not running(mark))


def test_they_cannot_be_built_within_walls_and_that_is_said() -> None:
    plan = Plan("/work", [], [], ["/bin/true"], {}, [], 2, 1 << 30, 64, 1 << 20)
    done = behind_walls(f"import os, sys\nos.execv(sys.executable, [sys.executable, '-m', {walls.__name__!r}, sys.argv[1]])",
                        plan.to_json())  # fmt: skip
    assert done.returncode == walls.FAILED
    assert done.stderr.startswith("unshare: ")


def test_an_output_is_cut_to_what_exercism_takes() -> None:
    assert results.cut("x" * 500, 500) == "x" * 500
    assert len(results.cut("x" * 501, 500)) == 500


def test_a_number_is_not_the_same_for_two() -> None:
    numbers = {register.own(1, NAME, f"student-{number}").number for number in range(300)}
    assert len(numbers) > 295
