"""The distribution: what is built installs alone, and does for a plain Celery project what its README says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from tests import ROOT
from tests.kit.celery_fixtures import server
from tests.kit.server import Server

__all__ = ["server"]

README = (ROOT / "onloan/README.md").read_text()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    _uv("build", "--wheel", "--out-dir", str(folder), str(ROOT / "onloan"))
    (built,) = folder.glob("*.whl")
    return built


def _uv(*arguments: str) -> None:
    uv = shutil.which("uv", path=os.pathsep.join((str(ROOT / ".tools/bin"), os.environ["PATH"])))
    assert uv, "uv builds the wheel, and make setup has put it into .tools"
    done = subprocess.run([uv, *arguments], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr


def test_the_wheel_holds_the_package_its_licence_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0].removesuffix(".dist-info") for name in names} == {"onloan", "onloan-0.1.0"}
    assert "onloan/py.typed" in names
    assert [name for name in names if name.endswith("LICENSE")]
    metadata = zipfile.ZipFile(wheel).read("onloan-0.1.0.dist-info/METADATA").decode()
    needed = [line.partition(": ")[2] for line in metadata.splitlines() if line.startswith("Requires-Dist")]
    assert sorted(re.match(r"[\w-]+", each)[0] for each in needed) == ["celery", "redis"]  # type: ignore[index]


def test_the_example_of_the_readme_runs_as_it_stands_with_nothing_else_installed(
    wheel: Path, server: Server, tmp_path: Path
) -> None:
    shop, kill = re.findall(r"```python\n(import os\n.*?)```", README, re.DOTALL)
    (tmp_path / "shop.py").write_text(shop)
    (tmp_path / "kill.py").write_text(kill)
    _uv("venv", "--python", "3.11", str(tmp_path / "env"))
    python = str(tmp_path / "env/bin/python")
    _uv("pip", "install", "--python", python, str(wheel))
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "CROSSHOST", "VIRTUAL"))}
    env["REDIS_URL"] = server.tcp_url

    def run(*arguments: str) -> str:
        done = subprocess.run([python, *arguments], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    alone = "from importlib.util import find_spec; print(*map(find_spec, ('lab', 'worker', 'producer', 'tests')))"
    assert run("-c", alone).split() == ["None"] * 4
    said = run("kill.py")
    killed = re.search("killed: (.*)", said)
    assert killed
    other = ({"one@shop", "two@shop"} - {killed[1]}).pop()
    assert said.splitlines()[-1] == f"order 7 was shipped by {other}"
    assert run("-m", "onloan", server.tcp_url) == "No dead letters.\n"
