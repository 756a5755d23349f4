"""Packages that a program needs and its hosts lack: brought by hash, found by the program's processes, by nobody else's."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import Popen

import pytest

from lab.errors import ExitCode
from lab.fleet.hosts import JOBS, list_hosts
from lab.program import locked
from lab.program.locked import NotLocked
from lab.store.store import Store
from producer import sync
from tests.kit.processes import die_with_us
from tests.kit.server import Server
from tests.kit.wait import until
from tests.program.test_run_script import write
from worker import environments
from worker.environments import Environments

HASH = "--hash=sha256:" + "0" * 64


def wheel(folder: Path, name: str, version: str, text: str) -> str:
    """A wheel of one module; its line in a locked set."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": text,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    sums = {path: base64.urlsafe_b64encode(hashlib.sha256(data.encode()).digest()) for path, data in files.items()}
    files[f"{info}/RECORD"] = "".join(f"{path},sha256={sums[path].decode().rstrip('=')},\n" for path in sums)
    made = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(made, "w") as archive:
        for path, data in files.items():
            archive.writestr(path, data)
    return f"{name}=={version} --hash=sha256:{hashlib.sha256(made.read_bytes()).hexdigest()}\n"


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that pip looks into in place of an index."""
    folder = tmp_path_factory.mktemp("index")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_NO_INDEX", "1")
        patch.setenv("PIP_FIND_LINKS", str(folder))
        yield folder


@pytest.fixture(scope="module")
def fleet(index: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two hosts that share a folder for packages."""
    folder = tmp_path_factory.mktemp("fleet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CROSSHOST_PACKAGES", str(folder / "packages"))
        with Server(folder, hosts=2, slots=2) as server:
            yield server


def producer(fleet: Server, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "producer", *words]
    return subprocess.run(command, cwd=folder, env=fleet.env, capture_output=True, text=True, timeout=100, check=False)


SCRIPT = """
from multiprocessing import Pool


def look(name):
    module = __import__(name)
    return module.__version__


if __name__ == "__main__":
    import sys
    with Pool(4) as pool:
        print(sorted(set(pool.map(look, sys.argv[1:] * 8, 1))))
"""


def test_a_program_finds_what_it_goes_with_before_what_its_hosts_have(
    fleet: Server, index: Path, tmp_path: Path
) -> None:
    """joblib is installed here, in another version, and no worker imports it."""
    lines = [
        wheel(index, "marigold", "1.0", "__version__ = '1.0'"),
        wheel(index, "joblib", "0.0.1", "__version__ = '0.0.1'"),
    ]
    write(tmp_path, "requirements.txt", "# what the hosts lack\n" + "".join(lines))
    write(tmp_path, "script.py", SCRIPT)
    done = producer(fleet, tmp_path, "sync", "requirements.txt", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"host-1@crosshost": {"state": "there"}, "host-2@crosshost": {"state": "there"}}
    done = producer(fleet, tmp_path, "run", "--packages", "requirements.txt", "script.py", "marigold", "joblib")
    assert (done.returncode, done.stdout, done.stderr) == (0, "['0.0.1', '1.0']\n", "")
    done = producer(fleet, tmp_path, "run", "script.py", "marigold")
    assert done.returncode == 1
    assert "No module named 'marigold'" in done.stderr


def test_run_brings_the_packages_itself(fleet: Server, index: Path, tmp_path: Path) -> None:
    write(tmp_path, "requirements.txt", wheel(index, "dahlia", "2.1", "__version__ = '2.1'"))
    write(tmp_path, "script.py", SCRIPT)
    done = producer(fleet, tmp_path, "run", "script.py", "--packages", "requirements.txt", "--", "dahlia")
    assert (done.returncode, done.stdout) == (0, "['2.1']\n"), done.stderr


def test_a_detached_program_and_its_processes_find_them(fleet: Server, index: Path, tmp_path: Path) -> None:
    write(tmp_path, "requirements.txt", wheel(index, "tulip", "3.0", "__version__ = '3.0'"))
    write(tmp_path, "script.py", "import tulip\n" + SCRIPT)
    with Popen([sys.executable, "-m", "worker", "--queues", "jobs,jobs.long", "--name", "host-1", "--slots", "1"],
               env=fleet.env, preexec_fn=die_with_us) as worker:  # fmt: skip
        store = Store(fleet.url)
        try:
            until(lambda: list_hosts(store, JOBS), "the host takes jobs", 30)
            done = producer(
                fleet, tmp_path, "run", "--detach", "--packages", "requirements.txt", "script.py", "--", "tulip"
            )
            assert done.returncode == 0, done.stderr
            watched = producer(fleet, tmp_path, "watch", done.stdout.split()[0])
            assert watched.stdout.splitlines() == ["['3.0']"], watched.stderr
        finally:
            worker.kill()
            until(lambda: not list_hosts(store, JOBS), "nobody counts on the worker", 20)


def test_a_package_that_is_another_than_was_locked_is_not_installed(fleet: Server, index: Path, tmp_path: Path) -> None:
    wheel(index, "foxglove", "1.0", "__version__ = 'poisoned'")
    write(tmp_path, "requirements.txt", f"foxglove==1.0 {HASH}\n")
    write(tmp_path, "script.py", SCRIPT)
    done = producer(fleet, tmp_path, "run", "--packages", "requirements.txt", "script.py", "foxglove")
    assert done.returncode == 100 + ExitCode.CANNOT_LOAD
    assert "2 of 2 workers have not got the packages" in done.stderr
    assert "host-1@crosshost: failed: ERROR: THESE PACKAGES DO NOT MATCH THE HASHES" in done.stderr
    assert "foxglove==1.0" in done.stderr
    assert "Traceback" not in done.stderr


def test_one_that_failed_is_tried_again_when_it_is_asked_for_again(fleet: Server, index: Path, tmp_path: Path) -> None:
    line = wheel(index, "aster", "1.0", "")
    made = next(index.glob("aster*"))
    made.rename(away := index / "away")
    path = write(tmp_path, "requirements.txt", line)
    assert producer(fleet, tmp_path, "sync", str(path)).returncode == ExitCode.CANNOT_LOAD
    away.rename(made)
    done = producer(fleet, tmp_path, "sync", str(path))
    assert done.returncode == 0, done.stderr
    assert "All have the packages" in done.stdout


def test_hosts_that_share_a_folder_install_once(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, commands, run = locked.check(wheel(index, "peony", "1.0", "")), list[list[str]](), environments._run

    def counted(command: list[str]) -> None:
        commands.append(command)
        run(command)

    monkeypatch.setattr(environments, "_run", counted)
    made = tmp_path / "made"
    with ThreadPoolExecutor(2) as executor:
        for one in [executor.submit(environments.make, made, text) for _ in range(2)]:
            one.result(60)
    assert len(commands) == 2, "a virtual environment, and pip in it"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made", "made.lock"]
    assert "peony.py" in [path.name for path in made.iterdir()]


def test_what_a_killed_installation_left_is_not_taken_for_whole(index: Path, tmp_path: Path) -> None:
    text, made = locked.check(wheel(index, "lupin", "1.0", "whole = True")), tmp_path / "made"
    left = tmp_path / "made.part" / "made"
    (left / "lupin-1.0.dist-info").mkdir(parents=True)
    (left / "lupin.py").write_text("whole = False")
    environments.make(made, text)
    assert (made / "lupin.py").read_text() == "whole = True"


def test_a_host_that_takes_no_packages_says_so() -> None:
    said = Environments("").ask(f"aster==1.0 {HASH}", again=True)
    assert said["state"] == "refused"
    assert "CROSSHOST_PACKAGES" in said["why"]


def test_a_host_checks_what_it_is_asked_for(tmp_path: Path) -> None:
    assert Environments(str(tmp_path)).ask("--index-url http://example.org\naster", again=True)["state"] == "refused"
    assert not list(tmp_path.iterdir())


def test_an_installation_that_takes_too_long_is_given_up(
    tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environments, "BOUND", 0.01)
    with pytest.raises(subprocess.TimeoutExpired):
        environments.make(tmp_path / "made", f"aster==1.0 {HASH}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["made.lock"]


def test_a_set_without_a_fleet_is_an_error_with_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CROSSHOST_BROKER_URL", raising=False)
    path = write(tmp_path, "requirements.txt", f"aster==1.0 {HASH}\n")
    with pytest.raises(Exception, match="CROSSHOST_BROKER_URL names none"):
        sync.sync(locked.read(str(path)), "requirements.txt")


@pytest.mark.parametrize(
    "wrong",
    [
        "aster",
        "aster==1.0",
        f"aster>=1.0 {HASH}",
        f"aster @ https://example.org/aster.whl {HASH}",
        f"--extra-index-url https://example.org aster==1.0 {HASH}",
        f"-e . {HASH}",
        f"-r other.txt\naster==1.0 {HASH}",
        f"aster==1.0 --global-option=x {HASH}",
        f"aster==1.0 ; python_version > '3' --no-binary=:all: {HASH}",
        f"aster==1.0 {HASH}\n" * 10_000,
        "aster==1.0 --hash=md5:0123",
        "",
        "# nothing\n",
    ],
)
def test_what_is_not_locked_is_refused(wrong: str) -> None:
    with pytest.raises(NotLocked):
        locked.check(wrong)


def test_the_forms_in_which_tools_write_a_set_are_one() -> None:
    one = f"aster==1.0 {HASH} {HASH.replace('0', '1')}\nbegonia[all]==2 ; python_version >= '3.11' {HASH}\n"
    folded = one.replace(" --hash", " \\\n    --hash").replace("\nbegonia", "\n    # via another\nbegonia")
    assert locked.check(folded) == locked.check(one)
    assert locked.digest(locked.check(one)) != locked.digest(locked.check(one.replace("1.0", "1.1")))
