"""Every command of the README and of docs works as it stands, or names what is there; and so does every link."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import click
import pytest

import worker.__main__
from producer import cli
from tests import ROOT

README = (ROOT / "README.md").read_text()
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
}


def commands(kind: str) -> dict[str, str]:
    """What the pages have one type, and on which page it stands; those in ``sh`` are run."""
    return {
        line.removeprefix("$ ").partition(" #")[0].strip(): page
        for page, text in PAGES.items()
        for block in re.findall(rf"^```{kind}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
        for line in block.splitlines()
        if line.strip() and not line.startswith("#")
    }


COMMANDS = list(commands("sh"))
OTHERS = {
    command: page
    for command, page in commands("").items()
    if re.match(r"(producer|worker|make|python|docker|sh) ", command)
}
MODULES = {"producer": "producer", "worker": "worker"}


def argv(command: str) -> list[str]:
    words = shlex.split(command)
    if words[0] == "python":
        return [sys.executable, *words[1:]]
    return [sys.executable, "-m", MODULES[words[0]], *words[1:]]


def run(command: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv(command),
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        text=True,
        timeout=110,
    )


def test_the_two_commands_come_within_twenty_lines() -> None:
    head = "\n".join(README.splitlines()[:20])
    assert "make demo" in head
    assert "make test" in head


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("make")])
def test_a_make_target_is_there(command: str) -> None:
    subprocess.run([*shlex.split(command), "--dry-run"], cwd=ROOT, check=True, capture_output=True, timeout=30)


@pytest.mark.parametrize(
    "command", [c for c in COMMANDS if not c.startswith(("make", "producer fleet", "producer workers"))]
)
def test_a_command_succeeds(command: str, tmp_path: Path) -> None:
    done = run(command, tmp_path)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "Traceback" not in done.stderr


def test_the_lines_that_a_fleet_prints_lead_other_terminals_to_it(tmp_path: Path) -> None:
    fleet = next(command for command in COMMANDS if command.startswith("producer fleet"))
    with subprocess.Popen(
        argv(fleet), env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True, cwd=tmp_path
    ) as process:
        assert process.stdout
        exported: dict[str, str] = {}
        while len(exported) < 2:
            line = process.stdout.readline()
            assert line, "the fleet ended"
            if found := re.match(r"\s*export (\w+)=(\S+)", line):
                exported[found[1]] = found[2]
        done = run("producer workers", tmp_path, **exported)
        assert done.returncode == 0, done.stderr
        assert "host-3" in done.stdout
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
        assert process.returncode == 0


@pytest.mark.parametrize(("command", "page"), OTHERS.items())
def test_what_a_command_names_is_there(command: str, page: str) -> None:
    """Of commands that need what is not here: the command, its options, its modules, files and services."""
    words = shlex.split(command.partition(" | ")[0].partition(" > ")[0].partition(" < ")[0].partition(" && ")[0])
    if words[0] == "make":
        subprocess.run([*words, "--dry-run"], cwd=ROOT, check=True, capture_output=True, timeout=30)
    elif words[0] == "python":
        assert importlib.util.find_spec(words[2]) if words[1] == "-m" else (ROOT / words[1]).exists()
    elif words[0] == "docker":
        assert_compose_knows(words[2:])
    elif words[0] == "sh":
        assert (ROOT / words[1]).exists()
    else:
        assert_options_are_known(words)


def assert_options_are_known(words: list[str]) -> None:
    command: click.Command = {"producer": cli.main, "worker": worker.__main__.main}[words[0]]
    rest = words[1:]
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        found = command.get_command(click.Context(command), rest[0])
        assert found, rest[0]
        command, rest = found, rest[1:]
    known = {option for parameter in command.params for option in parameter.opts + parameter.secondary_opts} | {
        "--help"
    }
    ends = [rest.index(word) for word in rest if word == "--" or (command is cli.run and word.endswith(".py"))]
    rest = rest[: min(ends, default=len(rest))]  # what follows is the script's
    assert [word for word in rest if word.startswith("-") and word != "-" and word not in known] == []


def assert_compose_knows(words: list[str]) -> None:
    for option, value in pairwise(words):
        if option == "-f":
            assert (ROOT / value).exists()
        if option == "--profile" and value != "*":
            assert f"profiles: [{value}]" in (ROOT / "compose.yaml").read_text()
    if "producer" in words and "run" in words:
        assert_options_are_known(words[words.index("producer") :])


def test_every_page_is_in_the_index_and_no_link_leads_nowhere() -> None:
    index = PAGES["docs/README.md"]
    assert [
        page for page in PAGES if page.startswith("docs/") and f"]({Path(page).name})" not in index + "](README.md)"
    ] == []
    for page, text in PAGES.items():
        for target in re.findall(r"(?:\]\(|src=\"|srcset=\")(?!https?://|#)([^)\"]+)[)\"]", text):
            path, _, anchor = target.partition("#")
            found = (ROOT / page).parent / path
            assert found.exists(), f"{page}: {target}"
            assert not anchor or anchor in anchors(found.read_text()), f"{page}: {target}"


def anchors(text: str) -> list[str]:
    """The names by which a page's headings are linked to."""
    return [
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)", text, re.MULTILINE)
    ]


def test_the_readme_is_no_book() -> None:
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_picture_is_drawn_from_evidence(scheme: str, tmp_path: Path) -> None:
    shutil.copy(ROOT / "docs" / "pictures" / "places.py", tmp_path)
    evidence = run("producer demo counter --on threads --json", tmp_path).stdout
    subprocess.run([sys.executable, "places.py"], input=evidence, cwd=tmp_path, text=True, check=True, timeout=30)
    drawn = (tmp_path / f"places-{scheme}.svg").read_text()
    assert drawn.count("<circle") == len(json.loads(evidence)["runs"][0]["who"]) == 10
    kept = (ROOT / "docs" / "pictures" / f"places-{scheme}.svg").read_text()
    assert re.findall("<style>.*</style>", drawn) == re.findall("<style>.*</style>", kept)
    assert (kept.count("<circle"), kept.count('class="process"')) == (30, 21)


def test_the_program_of_the_readme_runs(tmp_path: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (tmp_path / "squares.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "squares.py"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.strip() == str([n * n for n in range(10)]), done.stderr


def test_the_pages_name_every_setting_and_every_concept() -> None:
    import lab.concepts

    settings = set(re.findall(r'"(CROSSHOST_[A-Z_]+)"', (ROOT / "lab" / "settings.py").read_text()))
    assert settings - set(re.findall(r"CROSSHOST_[A-Z_]+", PAGES["docs/settings.md"])) == set()
    assert [name for name in lab.concepts.CONCEPTS if f"| `{name}` |" not in PAGES["docs/concepts.md"]] == []
