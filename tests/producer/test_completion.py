"""What Tab offers, asked as a shell asks."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT
from tests.kit import variables
from tests.producer.test_usage import producer


def offered(line: str, **env: str) -> list[str]:
    """The words, or kinds of file, that are offered for the last word of a line."""
    env = {
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split(" ")) - 1),
        "_PRODUCER_COMPLETE": "bash_complete",
        **env,
    }
    done = subprocess.run(
        [sys.executable, "-c", "from producer.__main__ import main; main()"], cwd=ROOT, env={**variables.unset(), **env},
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    return [said.partition(",")[2] or said.rstrip(",") for said in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("producer do", ["doctor"]),
        ("producer demo p", ["process", "pipe", "pool"]),
        ("producer demo pipe --on p", ["processes"]),
        ("producer learn count", ["counter"]),
        ("producer exercise start lost_u", ["lost_update"]),
        ("producer explore coun", ["counter", "coun"]),  # or a file
        ("producer submit primes --lim", ["--limit"]),
        ("producer map x y --format c", ["csv"]),
        ("producer doctor --j", ["--json"]),
        ("producer completion z", ["zsh"]),
        ("producer run s.py --on thr", ["threads"]),
        ("producer run s.py --n 3 --on thr", ["threads"]),  # which is refused once it is typed
    ],
)
def test_commands_options_and_names_are_offered(line: str, words: list[str]) -> None:
    assert offered(line) == words


def test_a_word_that_stands_for_nothing_is_no_error_while_it_is_typed() -> None:
    offered("producer frob x")
    offered("producer demo nothing --on nowhere --")


def test_bash_completes_by_what_the_command_writes(tmp_path: Path) -> None:
    written = producer("completion", "bash")
    assert written.returncode == 0, written.stderr
    (tmp_path / "producer").write_text(f'#!/bin/sh\nexec {sys.executable} -m producer "$@"\n')
    (tmp_path / "producer").chmod(0o755)
    asks = 'COMP_WORDS=(producer demo cou); COMP_CWORD=2; _producer_completion producer; echo "${COMPREPLY[@]}"'
    done = subprocess.run(
        [shutil.which("bash") or "bash", "-c", f"{written.stdout}\n{asks}"], capture_output=True, text=True, timeout=30,
        env={**variables.unset(), "PATH": f"{tmp_path}:/usr/bin:/bin", "PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    assert done.stdout == "counter\n", done.stderr


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_a_script_that_asks_in_their_way(shell: str) -> None:
    written = producer("completion", shell)
    assert written.returncode == 0
    assert f"_PRODUCER_COMPLETE={shell}_complete" in written.stdout
    asked = {"_PRODUCER_COMPLETE": f"{shell}_complete"} | ({"COMP_CWORD": "cou"} if shell == "fish" else {})
    assert "counter" in " ".join(offered("producer demo cou", **asked))


def test_each_shell_has_its_line_in_the_help_as_it_is_to_be_typed() -> None:
    told = producer("completion", "--help").stdout
    assert "\\b" not in told
    for line in (
        'eval "$(producer completion bash)"',
        'eval "$(producer completion zsh)"',
        "producer completion fish > ~/.config/fish/completions/producer.fish",
    ):
        assert line in told
