"""Every command of the README works as it stands."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
COMMANDS = [
    line.partition("#")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.strip()
]
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


def test_the_program_of_the_readme_runs(tmp_path: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (tmp_path / "squares.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "squares.py"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.strip() == str([n * n for n in range(10)]), done.stderr


def test_the_readme_names_every_setting_and_every_concept() -> None:
    import lab.concepts

    settings = set(re.findall(r'"(CROSSHOST_[A-Z_]+)"', (ROOT / "lab" / "settings.py").read_text()))
    assert settings - set(re.findall(r"CROSSHOST_[A-Z_]+", README)) == set()
    assert [name for name in lab.concepts.CONCEPTS if f"| `{name}` |" not in README] == []
