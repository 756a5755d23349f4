"""The lessons hold what they say, ask before they run, and are found by their symptoms."""

from __future__ import annotations

import ast
import json
import os
import pty
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import PLACES
from producer.learning import asking, build, command, running, site
from producer.learning.comparing import Seen, compare
from producer.learning.finding import find
from producer.learning.lesson import COURSE, LONGEST, STEPS, BadLesson, Expected, Lesson, Step, load, names, split
from producer.learning.running import Printed, Room
from producer.learning.showing import CAPTURED, plain
from producer.names import BadName
from producer.progress import Progress
from tests import ROOT
from tests.kit import variables
from tests.kit.wait import readable, until

LESSONS = [load(name) for name in names()]
STEPS_OF_ALL = [pytest.param(step, id=f"{lesson.name}-{step.name}") for lesson in LESSONS for step in lesson.steps]
SILENT = Progress(None)


def by_name(lesson: Lesson) -> str:
    return lesson.name


def producer(*args: str, state: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    env = {**variables.unset(), "XDG_STATE_HOME": str(state)}
    return subprocess.run(
        [sys.executable, "-m", "producer", *args], cwd=ROOT, env=env, capture_output=True, text=True, timeout=110,
        check=False, **options,
    )  # fmt: skip


def kept(state: Path, lesson: str) -> list[dict[str, Any]]:
    path = state / "crosshost" / "learn" / f"{lesson}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def not_appeared(step: Step, place: str, printed: Printed) -> list[Seen]:
    nothing = {question.label: dict.fromkeys(step.places) for question in step.questions}
    return [seen for seen in compare(step, nothing, {place: printed}) if not seen.appeared]


# --- what a lesson is made of -----------------------------------------------------------------------------------------


def test_the_order_names_every_folder_once() -> None:
    assert sorted(names()) == sorted(path.parent.name for path in COURSE.glob("*/lesson.md"))
    assert len(names()) >= 20


@pytest.mark.parametrize("lesson", LESSONS, ids=by_name)
def test_a_lesson_says_what_it_is_for_how_long_it_takes_and_who_needs_it(lesson: Lesson) -> None:
    assert lesson.title
    assert 5 <= lesson.minutes <= 15
    assert lesson.know
    assert len(lesson.symptoms) >= 4
    assert all(re.match("https://", source) for source in lesson.sources)
    assert len(lesson.text[""].split()) > 15
    assert len(lesson.text["Explain"].split()) > 50
    assert sum(len(text.split()) for text in lesson.text.values()) > 200


@pytest.mark.parametrize("step", STEPS_OF_ALL)
def test_a_program_is_one_that_could_have_been_typed(step: Step) -> None:
    assert len(step.source.splitlines()) <= LONGEST
    imported = {node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
                for node in ast.walk(ast.parse(step.source)) if isinstance(node, ast.Import | ast.ImportFrom)}  # fmt: skip
    assert {str(name).partition(".")[0] for name in imported} <= sys.stdlib_module_names | {
        "lab"
    }  # for ``lab.share``, which multiprocessing does not have
    assert "multiprocessing" in imported


@pytest.mark.parametrize("step", STEPS_OF_ALL)
def test_no_right_answer_is_called_a_misconception(step: Step) -> None:
    for question in step.questions:
        for belief in question.beliefs:
            for place in belief.places:
                holds = question.expected[place]
                answers: tuple[float | str, ...] = belief.leads_to.words or (belief.leads_to.low, belief.leads_to.high)
                for answer in answers:
                    assert not holds.holds(answer), (question.label, place, answer)


@pytest.mark.parametrize("lesson", LESSONS, ids=by_name)
def test_what_a_text_quotes_was_printed_by_a_run_that_shows_the_effect(lesson: Lesson) -> None:
    steps = {step.program.name: step for step in lesson.steps}
    smaller = {step.explored.name: step.explored for step in lesson.steps if step.explored}
    quotes = [found for text in lesson.text.values() for found in CAPTURED.finditer(text)]
    assert quotes
    for found in quotes:
        if found["place"] == running.IN_EVERY_ORDER:
            assert found["text"] == running.explore(smaller[found["program"]]).stdout
            assert smaller[found["program"]].read_text() in "".join(lesson.text.values())
            continue
        step = steps[found["program"]]
        printed = Printed(found["text"], "", 0, 0.0)
        assert found["place"] in step.places
        assert not_appeared(step, found["place"], printed) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("lesson.md", "+++", "---"), "front matter"),
        (("lesson.md", "minutes = 6", ""), "minutes"),
        (("lesson.md", "## Mend it", "## Mended"), "Mend it"),
        (("answers.toml", 'program = "broken.py"', 'program = "missing.py"'), "missing.py"),
        (("answers.toml", "processes = 0,", ""), "exactly"),
        (("answers.toml", "leads_to = 5", "leads_to = true"), "neither"),
        (("answers.toml", 'name = "mend"', 'name = "run"'), "steps"),
    ],
)
def test_a_lesson_that_lacks_something_is_refused_by_name(
    change: tuple[str, str, str], said: str, tmp_path: Path
) -> None:
    shutil.copytree(COURSE / "global", tmp_path / "global")
    file, old, new = change
    text = (tmp_path / "global" / file).read_text()
    assert old in text
    (tmp_path / "global" / file).write_text(text.replace(old, new))
    with pytest.raises(BadLesson, match=said):
        load("global", tmp_path)


def test_a_text_reads_on_a_terminal_as_lines_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for lesson in LESSONS:
        for text in lesson.text.values():
            lines = plain(text).splitlines()
            assert [line for line in lines if len(line) > 80 and not line.startswith((" ", "|"))] == []
            assert not any("```" in line or re.match(r" \S", line) for line in lines)


def test_a_band_holds_its_ends_and_a_word_itself() -> None:
    assert [Expected.of([2, 199]).holds(value) for value in (1, 2, 199, 200, "2", None)] == [
        False, True, True, False, False, False,
    ]  # fmt: skip
    assert [Expected.of("None").holds(value) for value in ("None", None, 0)] == [True, False, False]
    assert (str(Expected.of([2, 199])), str(Expected.of(5)), str(Expected.of("yes"))) == ("2 to 199", "5", "yes")


# --- their programs, run -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def here() -> Iterator[Room]:
    with running.room(["threads", "processes"], SILENT) as where:
        yield where


@pytest.fixture(scope="module")
def hosts(cluster: Any) -> Room:
    cluster.connect()
    return Room({"cluster": variables.leading_to(cluster.settings)})


def assert_appears(step: Step, place: str, where: Room) -> None:
    printed = where.run(step.program, place)
    if step.timed:  # how long things take is for the build to check, on a machine that has nothing else to do
        assert {question.label for question in step.questions} <= set(printed.answers), printed
        assert all(isinstance(printed.answers[question.label], (int, float)) for question in step.questions)
    else:
        assert not_appeared(step, place, printed) == [], printed


@pytest.mark.parametrize("place", ["threads", "processes"])
@pytest.mark.parametrize("step", STEPS_OF_ALL)
def test_on_this_host_a_program_shows_its_effect(step: Step, place: str, here: Room) -> None:
    if place in step.places:
        assert_appears(step, place, here)
    else:
        assert step.places  # it says itself where it runs


@pytest.mark.parametrize("step", STEPS_OF_ALL)
def test_on_hosts_a_program_shows_its_effect(step: Step, hosts: Room) -> None:
    if "cluster" in step.places and not step.timed:
        assert_appears(step, "cluster", hosts)
    else:
        assert step.places  # it says itself where it runs; and what takes its time is for the build to check


def test_a_program_that_does_not_end_is_ended_with_its_children(
    here: Room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "endless.py"
    program.write_text(
        "import os, time\nfrom multiprocessing import Process\n"
        "if __name__ == '__main__':\n    child = Process(target=time.sleep, args=(600,))\n    child.start()\n"
        "    print('child:', child.pid, flush=True)\n    child.join()\n"
    )
    monkeypatch.setattr(running, "LIMIT", 15)  # time enough to start on a busy machine
    printed = here.run(program, "processes")
    assert printed.code is None
    assert "had not ended after 15 seconds" in printed.failure()
    stat = Path(f"/proc/{printed.answers['child']}/stat")
    until(lambda: not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z", "the child's end")


# --- taking one --------------------------------------------------------------------------------------------------------


class Spy:
    """A room that runs nothing, and sees what was kept when it was to."""

    def __init__(self, state: Path, lesson: str, stdout: str) -> None:
        self._state, self._lesson, self._stdout = state, lesson, stdout
        self.saw: list[list[dict[str, Any]]] = []

    def run(self, _program: Path, _place: str) -> Printed:
        self.saw.append(kept(self._state, self._lesson))
        return Printed(self._stdout, "", 0, 0.1)


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path


def answered(folder: Path, name: str, answer: Any) -> str:
    path = folder / "answers.json"
    lesson = load(name)
    path.write_text(json.dumps({s.name: {q.label: answer for q in s.questions} for s in lesson.steps}))
    return str(path)


def test_predictions_are_on_the_disk_before_their_program_runs(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spy = Spy(state, "global", "count: 5\nfound: 5\n")
    monkeypatch.setattr(Room, "run", lambda _self, *args: spy.run(*args))
    assert command.learn("global", ["threads"], answered(state, "global", 5), True, 0.0) == 0
    assert [
        [("predicted" if "predicted" in line else "measured", line["step"]) for line in saw] for saw in spy.saw
    ] == [
        [("predicted", "run")],
        [("predicted", "run"), ("measured", "run"), ("predicted", "break")],
        [
            ("predicted", "run"),
            ("measured", "run"),
            ("predicted", "break"),
            ("measured", "break"),
            ("predicted", "mend"),
        ],
    ]
    assert kept(state, "global")[0]["predicted"] == {"count": {"threads": 5}}


def test_an_effect_that_does_not_appear_is_told_and_is_no_success(
    state: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    spy = Spy(state, "global", "count: 4\n")
    monkeypatch.setattr(Room, "run", lambda _self, *args: spy.run(*args))
    assert command.learn("global", ["threads"], answered(state, "global", 5), False, 0.0) == 1
    said = " ".join(capfd.readouterr().out.split())
    assert "count, on threads: you said 5, it was 4. You were not right." in said
    assert "The effect did not appear in this run: expected was 5." in said
    assert "nothing was printed of it" in said  # of 'found'


def test_predictions_from_a_file_are_set_beside_what_was_printed(tmp_path: Path) -> None:
    answers = answered(tmp_path, "global", 5)
    done = producer("learn", "global", "--on", "threads,processes", "--answers", answers, "--json", state=tmp_path)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    told = json.loads(done.stdout)
    assert [step["step"] for step in told["steps"]] == list(STEPS)
    threads, processes = told["steps"][0]["seen"]
    assert (threads["predicted"], threads["measured"], threads["right"], threads["belief"]) == (5, 5, True, "")
    assert (processes["predicted"], processes["measured"], processes["right"]) == (5, 0, False)
    assert processes["belief"].startswith("That a global variable is global to the program.")
    assert told["ok"]
    assert "(done)" in producer("learn", state=tmp_path).stdout


def test_answers_are_read_from_a_pipe_and_what_is_none_is_asked_again(tmp_path: Path) -> None:
    done = producer("learn", "thread_local", "--on", "threads", state=tmp_path, input="maybe\nYes\n?\n3\n1\n")
    assert done.returncode == 0, done.stderr
    assert "'maybe' is none of: yes, no" in done.stdout
    said = " ".join(done.stdout.split())
    assert "thread-local, on threads: you said yes, it was no. You were not right. Often believed by those" in said
    assert "dict, on threads: you made no prediction, it was yes." in said
    assert "served as ann, on threads: you said 3, it was 3. You were right." in said
    assert "\x1b" not in done.stdout
    assert kept(tmp_path, "thread_local")[0]["predicted"] == {
        "the child finds it in the thread-local": {"threads": "yes"},
        "the child finds it in the dict": {"threads": None},
    }


def test_yes_and_no_may_be_one_letter_where_they_are_the_choices() -> None:
    question = load("thread_local").steps[0].questions[0]
    assert [asking.understood(question, typed) for typed in ("y", "N", " no ", "Yes")] == ["yes", "no", "no", "yes"]
    exit_code = next(each for each in load("process").steps[0].questions if "None" in each.choices)
    with pytest.raises(ValueError, match="none of"):
        asking.understood(exit_code, "n")


def test_questions_and_answers_together_are_refused(tmp_path: Path) -> None:
    done = producer("learn", "global", "--questions", "--answers", "a.json", state=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--answers reads one that was" in done.stderr


def test_at_a_terminal_nothing_goes_on_by_itself(tmp_path: Path) -> None:
    main, terminal = pty.openpty()
    command = [sys.executable, "-m", "producer", "learn", "random", "--on", "threads"]
    env = {**variables.unset(), "XDG_STATE_HOME": str(tmp_path)}
    with subprocess.Popen(command, cwd=ROOT, env=env, stdin=terminal, stdout=terminal, stderr=terminal) as process:
        os.close(terminal)
        try:
            read_until(main, "on threads: ")
            os.write(main, b"4\n")
            shown = read_until(main, "press Enter (Ctrl-C to leave it here). ")
            assert "You were right." in shown
            assert "Break it" not in shown
            assert not readable(main, 1.0), "it went on"
            os.write(main, b"\n")
            read_until(main, "Break it: random/broken.py")
        finally:
            process.kill()
            os.close(main)


def read_until(descriptor: int, words: str) -> str:
    """What a terminal shows, up to these words, which come within a minute."""
    shown, deadline = "", time.monotonic() + 60
    while words not in shown:
        assert readable(descriptor, deadline - time.monotonic()), shown
        shown += os.read(descriptor, 65536).decode(errors="replace")
    return shown


def test_nothing_runs_that_was_not_predicted(tmp_path: Path) -> None:
    done = producer("learn", "global", "--on", "threads", state=tmp_path, input="5\n")
    assert done.returncode == 2
    assert "The input ended before the question was answered" in done.stderr
    assert [line["step"] for line in kept(tmp_path, "global")] == ["run", "run"]
    assert "Break it" in done.stdout
    assert "found: " not in done.stdout


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ('{"run": {}}', "There is no answer for 'run', 'the child finds it in the thread-local', 'threads'"),
        ('{"run": {"the child finds it in the thread-local": "perhaps"}}', "'perhaps' is none of: yes, no"),
        ("no JSON", "Cannot read answers"),
        ("[]", "There is no answer"),
    ],
)
def test_answers_that_are_none_are_refused_before_anything_runs(answers: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(answers)
    done = producer("learn", "thread_local", "--answers", str(tmp_path / "a.json"), state=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert "--questions" in done.stderr
    assert kept(tmp_path, "thread_local") == []


def test_a_form_filled_with_nulls_is_an_answer(tmp_path: Path) -> None:
    form = producer("learn", "random", "--on", "threads", "--questions", state=tmp_path).stdout
    assert json.loads(form)["run"]["different numbers of four"]["answer"] == "a number"
    done = producer("learn", "random", "--on", "threads", "--answers", "-", "--json", state=tmp_path, input=form)
    assert done.returncode == 0, done.stderr
    assert [seen["right"] for step in json.loads(done.stdout)["steps"] for seen in step["seen"]] == [None, None, None]


def test_json_without_answers_and_places_without_a_program_are_refused(tmp_path: Path) -> None:
    done = producer("learn", "counter", "--json", state=tmp_path)
    assert (done.returncode, "--questions" in done.stderr) == (2, True)
    with pytest.raises(BadName, match="none of these places"):
        command.learn("loss", ["threads"], None, False, 0.0)
    done = producer("learn", "cuonter", state=tmp_path)
    assert (done.returncode, "Did you mean 'counter'?" in done.stderr) == (2, True)


# --- by a symptom ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lesson", LESSONS, ids=by_name)
def test_a_lesson_is_found_by_its_own_symptoms(lesson: Lesson) -> None:
    for symptom in lesson.symptoms:
        assert find(symptom, LESSONS)[0].lesson.name == lesson.name, symptom


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("map never returns", "loss"),
        ("counter is 491", "counter"),
        ("it works with fork, but not with spawn", "lock"),
        ("my task ran twice!", "delivery"),
        ("multiprocessing slower than a for loop", "slow_pool"),
        ("Can't pickle local object", "main_guard"),
        ("join() hangs", "join_first"),
        ("workers all get identical random numbers", "random"),
        ("the queue is empty after put", "empty"),
        ("exceptions vanish in apply_async", "vanish"),
    ],
)
def test_a_symptom_in_other_words_finds_its_lesson(asked: str, name: str) -> None:
    assert name in [found.lesson.name for found in find(asked, LESSONS)[:2]]


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("my total is smaller than it should be", "counter"),
        ("my numbers do not add up", "counter"),
        ("no exception shown although function failed", "vanish"),
        ("deadlock", "lock"),
    ],
)
def test_a_symptom_in_the_words_of_a_beginner_finds_its_lesson_first(asked: str, name: str) -> None:
    assert find(asked, LESSONS)[0].lesson.name == name


def test_a_worker_that_was_killed_is_a_matter_of_pools_and_of_celery() -> None:
    assert {found.lesson.name for found in find("killed by OOM", LESSONS)[:2]} == {"loss", "acks_late"}


@pytest.mark.parametrize("asked", ["the coffee is cold", "", "???", "redis connection refused"])
def test_what_is_no_symptom_finds_none_and_that_is_said(asked: str, tmp_path: Path) -> None:
    assert find(asked, LESSONS) == []
    done = producer("why", asked, state=tmp_path)
    assert done.returncode == 1
    assert "No lesson is near" in done.stdout
    assert "producer doctor" in done.stdout
    assert all(name in done.stdout for name in names())


def test_several_candidates_are_named_the_nearest_first(tmp_path: Path) -> None:
    found = json.loads(producer("why", "process", "hangs", "at", "the", "end", "--json", state=tmp_path).stdout)
    assert 2 <= len(found) <= 4
    assert [each["score"] for each in found] == sorted((each["score"] for each in found), reverse=True)


# --- the pages ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def course(tmp_path: Path) -> Path:
    """A course of two lessons, whose quotes are not what their programs print."""
    folder = tmp_path / "course"
    for name in ("global", "random"):
        shutil.copytree(COURSE / name, folder / name)
        page = folder / name / "lesson.md"
        page.write_text(CAPTURED.sub(lambda found: found[0].replace(found["text"], "stale: 7\n"), page.read_text()))
        assert "stale: 7" in page.read_text()
    (folder / "order.toml").write_text('lessons = ["global", "random"]\n')
    shutil.copy(COURSE / "style.css", folder)
    return folder


def test_the_build_quotes_what_it_ran_and_writes_pages_that_need_nothing_else(
    course: Path, tmp_path: Path, fleet_here: None
) -> None:
    assert build.build(["global", "random"], course, tmp_path / "pages", 1, SILENT) == []
    text = (course / "global" / "lesson.md").read_text()
    assert "stale" not in text
    assert "```output program.py threads\ncount: 5\n```" in text
    assert "```output program.py processes\ncount: 0\n```" in text
    pages = {path.name: path.read_text() for path in (tmp_path / "pages").iterdir()}
    assert sorted(pages) == ["global.html", "handout.html", "index.html", "random.html"]
    for name, page in pages.items():
        assert "prefers-color-scheme: dark" in page
        assert "@media print" in page
        assert not re.search(r"<script|<link|<img|src=", page), name
        assert page.count("<h1>") == 1
    assert "count: 0" in pages["global.html"]
    assert "<details>" in pages["global.html"]
    assert "<details>" not in pages["handout.html"]  # nothing is folded away on paper
    assert pages["handout.html"].count("<article") == 2
    assert 'href="random.html"' in pages["index.html"]


def test_the_build_leaves_a_lesson_as_it_was_if_an_effect_does_not_appear(
    course: Path, tmp_path: Path, fleet_here: None
) -> None:
    answers = course / "global" / "answers.toml"
    answers.write_text(answers.read_text().replace("threads = 5, processes = 0,", "threads = 6, processes = 0,"))
    missing = build.build(["global"], course, tmp_path / "pages", 1, SILENT)
    assert missing[0] == "global/program.py on threads: 'count' was 5, expected 6."
    assert "stale: 7" in (course / "global" / "lesson.md").read_text()


@pytest.fixture
def fleet_here(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The session's fleet, for what opens places by itself."""
    cluster.connect()
    env = variables.leading_to(cluster.settings)

    def room(places: list[str], _progress: Progress, _rtt: float = 0.0) -> Any:
        return Opened(Room(dict.fromkeys(places, os.environ | env)))

    monkeypatch.setattr(build, "room", room)


class Opened:
    """A room that somebody else closes."""

    def __init__(self, where: Room) -> None:
        self._where = where

    def __enter__(self) -> Room:
        return self._where

    def __exit__(self, *_: object) -> None:
        return


def test_text_from_a_lesson_is_never_markup(course: Path) -> None:
    page = course / "global" / "lesson.md"
    front, text = split(page.read_text())
    page.write_text(
        f"+++\n{front.replace('A global variable', 'A <b> variable')}+++\n<script>alert(1)</script>\n{text}"
    )
    html = site.page(load("global", course))
    assert "<script>" not in html
    assert "A &lt;b&gt; variable" in html


@pytest.mark.parametrize("place", PLACES)
def test_every_place_has_a_lesson_that_quotes_it(place: str) -> None:
    quoted = {found["place"] for each in LESSONS for text in each.text.values() for found in CAPTURED.finditer(text)}
    assert place in quoted


def test_the_page_of_lessons_names_each() -> None:
    page = (ROOT / "docs" / "learn.md").read_text()
    assert [name for name in names() if f"| `{name}` |" not in page] == []
