"""What a class has predicted becomes one picture: counted, the right answer marked, the misconception named, and no names."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from producer.learning import collecting
from producer.learning.collecting import collect
from producer.names import BadName


def student(folder: Path, name: str, *predicted: object, lesson: str = "counter") -> None:
    (folder / name).mkdir(parents=True)
    lines = [{"step": "run", "predicted": {"counted": {"threads": each}}} for each in predicted]
    text = "".join(json.dumps(line) + "\n" + json.dumps({"step": "run", "measured": []}) + "\n" for line in lines)
    (folder / name / f"{lesson}.jsonl").write_text(text)


@pytest.fixture
def class_(tmp_path: Path) -> Path:
    student(tmp_path, "ann", 200, 50)  # the second time she knew
    student(tmp_path, "ben", 200)
    student(tmp_path, "cid/state/crosshost/learn", 77)
    student(tmp_path, "dan", None)
    return tmp_path


def test_answers_are_counted_and_the_first_one_of_each_student_counts(class_: Path) -> None:
    answered, students = collect([class_])
    assert students == 4
    assert [(each.lesson.name, each.step.name, each.place, each.most) for each in answered] == [
        ("counter", "run", "threads", [("200", 2), ("77", 1), ("?", 1)])
    ]


def test_the_right_answer_is_marked_and_the_belief_behind_a_wrong_one_named(class_: Path) -> None:
    [each] = collect([class_])[0]
    assert (each.right("77"), each.right("200"), each.right("?")) == (True, False, False)
    assert "GIL" in each.belief("200")
    assert (each.belief("77"), each.belief("?")) == ("", "")
    said = collecting.text([each], 4)
    assert "Predictions of 4 students" in said
    assert "often believed: that the GIL" in said
    assert not any(name in said for name in ("ann", "ben", "cid", "dan"))


def test_several_folders_are_one_class_and_none_is_counted_twice(class_: Path) -> None:
    folders = [class_ / "ann", class_ / "ben", class_]
    assert collect(folders)[1] == 4
    assert sum(collect(folders)[0][0].answers.values()) == 4


def test_broken_lines_and_files_of_others_are_left_out(class_: Path) -> None:
    (class_ / "eve").mkdir()
    (class_ / "eve" / "counter.jsonl").write_text('{"step": "run", "pred\n[]\n3\n{"predicted": {"counted": 5}}\n\xff\n')
    (class_ / "eve" / "notes.jsonl").write_text('{"step": "run", "predicted": {"counted": {"threads": 1}}}\n')
    assert sum(collect([class_])[0][0].answers.values()) == 4


def test_as_data_and_as_a_page_that_needs_nothing_else(class_: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = class_ / "class.html"
    assert collecting.show([str(class_)], str(page), True) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["students"] == 4
    assert document["questions"][0]["answers"][0]["number"] == 2
    tags: list[str] = []
    links: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            tags.append(tag)
            links.extend(str(value) for name, value in attrs if name in ("src", "href"))

    Reader().feed(page.read_text())
    assert (tags.count("rect"), links) == (3, [])
    assert "script" not in tags


def test_what_a_student_has_typed_is_never_markup(class_: Path) -> None:
    student(class_, "fay", "<b>x</b>")
    assert "<b>" not in collecting.page(*collect([class_]))


def test_where_nothing_is_kept_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadName, match="no predictions"):
        collect([tmp_path])
    with pytest.raises(BadName, match="no folder"):
        collecting.show([str(tmp_path / "nowhere")], "", False)
