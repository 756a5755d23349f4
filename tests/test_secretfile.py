"""Who can read a file with a secret is told so, once, with what to type; nobody is who has it right."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from lab import secretfile
from tests import ROOT
from tests.kit import variables

LOOK = """
from lab.settings import Settings
for _ in range(2):
    Settings.from_env()
"""


def said(folder: Path, mode: int, folder_mode: int = 0o755, name: str = "CROSSHOST_AUTHKEY_FILE") -> str:
    """What is said about a file of a mode, in a folder of a mode, that everybody can reach."""
    folder.mkdir()
    file = folder / "a secret"
    file.write_text("0123456789abcdef" * 2)
    file.chmod(mode)
    folder.chmod(folder_mode)
    env = {**variables.unset(), name: str(file), "CROSSHOST_BROKER_URL": "redis://127.0.0.1/0", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", LOOK], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.fixture
def open_folder(tmp_path: Path) -> Path:
    """Pytest's own folders are its user's alone."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.is_relative_to(tempfile.gettempdir()) and folder != Path(tempfile.gettempdir()):
            folder.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize("name", ["CROSSHOST_AUTHKEY_FILE", "CROSSHOST_PASSWORD_FILE"])
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o444])
def test_who_can_be_read_by_others_is_told_once_what_to_type(open_folder: Path, mode: int, name: str) -> None:
    lines = said(open_folder / "open", mode, name=name).splitlines()
    assert lines == [
        f"crosshost: other users of this machine can read {open_folder}/open/a secret, which {name} names. Type:",
        f"  chmod 600 '{open_folder}/open/a secret'",
    ]
    subprocess.run(lines[1], shell=True, check=True)
    assert (open_folder / "open/a secret").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("mode", "folder_mode"), [(0o600, 0o755), (0o400, 0o755), (0o644, 0o700), (0o640, 0o700)])
def test_a_file_that_nobody_else_can_read_or_reach_is_not_spoken_of(
    open_folder: Path, mode: int, folder_mode: int
) -> None:
    assert said(open_folder / "closed", mode, folder_mode) == ""


def test_the_files_that_setup_makes_are_in_order(open_folder: Path) -> None:
    subprocess.run(["cp", "-r", ROOT / "deploy", open_folder / "deploy"], check=True)
    subprocess.run(["sh", "deploy/setup"], cwd=open_folder, check=True, capture_output=True)
    env = {**variables.unset(), "CROSSHOST_AUTHKEY_FILE": str(open_folder / "secrets/authkey"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", LOOK], env=env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_secret_on_a_read_only_mount_is_its_mounter_s_to_protect(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = open_folder / "authkey"
    file.write_text("x")
    file.chmod(0o444)
    assert secretfile._exposed(file)
    mounted = os.statvfs(file)
    read_only = os.statvfs_result((*mounted[:8], mounted.f_flag | os.ST_RDONLY, *mounted[9:]))
    monkeypatch.setattr(os, "statvfs", lambda _: read_only)  # only root can mount
    assert not secretfile._exposed(file)
