"""What ships is pinned, or said not to be; what is known of it can be asked."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT

DOCKER = """#!/bin/sh
# Docker, as far as deploy/pins asks it: one image came from a registry, the other was made here.
case $1 in
  pull) exit 0 ;;
  image) case $5 in
    redis:8) printf 'mirror.example/redis@sha256:%064d\\nredis@sha256:%064d\\n' 1 2 ;;
    $MADE_HERE) ;;
    *) printf 'python@sha256:%064d\\n' 3 ;;
  esac ;;
esac
"""
REDIS, PYTHON = f"redis@sha256:{2:064}", f"python@sha256:{3:064}"


def pins(folder: Path, made_here: str = "") -> subprocess.CompletedProcess[str]:
    (folder / "deploy").mkdir(exist_ok=True)
    (folder / "deploy/pins").write_text((ROOT / "deploy/pins").read_text())
    (folder / "docker").write_text(DOCKER)
    (folder / "docker").chmod(0o755)
    env = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "MADE_HERE": made_here}
    return subprocess.run(["sh", "deploy/pins"], cwd=folder, env=env, capture_output=True, text=True, timeout=30)


def test_pins_writes_the_digests_into_env_and_leaves_the_rest_of_it(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("CROSSHOST_SECRETS=./secrets\nCROSSHOST_REDIS_IMAGE=redis@sha256:old\n")
    (tmp_path / ".env").chmod(0o600)
    for _ in range(2):
        assert pins(tmp_path).returncode == 0
        assert (tmp_path / ".env").read_text().splitlines() == [
            "CROSSHOST_SECRETS=./secrets", f"CROSSHOST_PYTHON_IMAGE={PYTHON}", f"CROSSHOST_REDIS_IMAGE={REDIS}",
        ]  # fmt: skip
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600


def test_an_image_that_was_made_here_stays_at_its_tag_and_that_is_said(tmp_path: Path) -> None:
    done = pins(tmp_path, made_here="python:3.14-slim")
    assert done.returncode == 4
    assert "python:3.14-slim: not pinned" in done.stderr
    assert (tmp_path / ".env").read_text() == f"CROSSHOST_REDIS_IMAGE={REDIS}\n"


def test_what_pins_writes_is_what_compose_and_the_dockerfile_read() -> None:
    tags = re.findall(r"^pin (\w+) (\S+)$", (ROOT / "deploy/pins").read_text(), re.MULTILINE)
    compose, dockerfile = (ROOT / "compose.yaml").read_text(), (ROOT / "Dockerfile").read_text()
    assert len(tags) == 2
    for variable, tag in tags:
        assert f"${{{variable}:-{tag}}}" in compose
    assert f"ARG PYTHON_IMAGE={dict(tags)['CROSSHOST_PYTHON_IMAGE']}" in dockerfile
    stages = set(re.findall(r" AS (\S+)", dockerfile))
    assert set(re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)) - stages == {"${PYTHON_IMAGE}"}


def test_the_installer_has_one_version_and_its_hashes_wherever_it_is_installed() -> None:
    (version,) = re.findall(r"^uv==([\d.]+) ", (ROOT / "deploy/uv.txt").read_text(), re.MULTILINE)
    assert version
    for name in ("Dockerfile", "Makefile"):
        (installs,) = [line for line in (ROOT / name).read_text().splitlines() if "pip" in line and " install " in line
                       and "uv pip" not in line]  # fmt: skip
        assert "--require-hashes" in installs
        assert "uv.txt" in installs


UV = """#!/bin/sh
# uv, as far as deploy/audit asks it: pip-audit has an answer, or none.
case "$1 $2" in
  "export --frozen") exit 0 ;;
  "tool run")
    while [ "$1" != --output ]; do shift; done
    [ -z "$ANSWER" ] || printf %s "$ANSWER" > "$2"
    echo "NameResolutionError" >&2; exit 1 ;;
  "run --no-project") shift 4; exec "$PYTHON" "$@" ;;
esac
exit 9
"""
SAFE = {"name": "safe", "version": "1", "vulns": []}
HOLED = {"name": "holed", "version": "2", "vulns": [{"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["3"]}]}
UNKNOWN = {"name": "unknown", "skip_reason": "Dependency not found on PyPI and could not be audited"}


@pytest.mark.parametrize(("answer", "code", "says"), [
    ([SAFE], 0, "1 packages audited, 0 known"),
    ([SAFE, HOLED], 1, "holed 2: PYSEC-1 CVE-1; fixed in 3"),
    ([HOLED, UNKNOWN], 1, "No data about 1 of 2 packages: unknown"),
    ([SAFE, UNKNOWN], 3, "No data about 1 of 2 packages: unknown"),
    ([UNKNOWN], 3, "0 packages audited"),
    (None, 3, "nothing was audited"),
])  # fmt: skip
def test_the_audit_tells_apart_safe_and_holed_and_not_known(
    answer: object, code: int, says: str, tmp_path: Path
) -> None:
    (tmp_path / "uv").write_text(UV)
    (tmp_path / "uv").chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHON": sys.executable,
           "ANSWER": "" if answer is None else json.dumps({"dependencies": answer, "fixes": []})}  # fmt: skip
    done = subprocess.run(["sh", "deploy/audit"], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    assert says in done.stdout + done.stderr
