"""Data files that travel with a program: hosts that do not have them find what the program finds.

The hosts of these tests are processes of this machine. So that the files are not there, the program moves them away once it
has begun: by then they were read.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lab.errors import CannotLoad, ProgramTooLarge
from lab.program import along, shipped
from lab.program.along import CannotTake
from lab.program.shipped import Program
from tests.kit.processes import die_with_us
from tests.kit.server import Server
from tests.kit.wait import until
from tests.program.test_run_script import python, write
from worker.copies import KEEP, Copies, _lives

FINDS = """
import glob, os, sys
from multiprocessing import Pool
from pathlib import Path

HERE = Path(__file__).parent


def relative(_):
    return open("data.csv").read(), sorted(glob.glob("data/*.txt")), Path("data/a.txt").read_text()


def whole(path):
    beside = HERE / "data.csv"
    names = sorted(path.name for path in (HERE / "data").iterdir())
    walked = sorted(name for _, _, names in os.walk(HERE / "data") for name in names)
    return (beside.read_text(), beside.exists(), os.path.getsize(beside), names, walked, open(path).read(),
            open(os.fsencode(path), "rb").read(), (HERE / "nothing").exists(), os.path.isdir(HERE / "data"))


if __name__ == "__main__":
    paths = [os.path.abspath("data/a.txt")] * 4
    here = [relative(0)] * 4, [whole(path) for path in paths]
    for name in ("data", "data.csv"):
        os.rename(name, f"moved-{name}")
    with Pool(3) as pool:
        print((pool.map(relative, range(4)), pool.map(whole, paths)) == here)
"""


def files(folder: Path) -> Path:
    write(folder, "data.csv", "1,2\n")
    for name in ("a", "b"):
        write(folder, f"data/{name}.txt", f"{name}\n")
    return write(folder, "script.py", FINDS)


@pytest.mark.parametrize("typed", [["--with", "data.csv", "--with", "data", "script.py"], ["script.py", "--with", "."]])
def test_a_host_finds_what_came_along_by_relative_and_by_whole_paths(
    typed: list[str], fleet: dict[str, str], tmp_path: Path
) -> None:
    files(tmp_path)
    done = python("-m", "producer", "run", *typed, cwd=tmp_path, env=fleet)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


def test_a_host_that_has_the_very_files_uses_them(fleet: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path, "data.csv", "1")
    write(tmp_path, "script.py", """
        import os
        from multiprocessing import Pool
        if __name__ == "__main__":
            with Pool(1) as pool:
                print(pool.apply(os.getcwd))
    """)  # fmt: skip
    done = python("-m", "producer", "run", "--with", "data.csv", "script.py", cwd=tmp_path, env=fleet)
    assert done.stdout == f"{tmp_path}\n", done.stderr


def test_a_file_that_was_changed_since_is_found_as_it_was(fleet: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path, "data.csv", "old")
    write(tmp_path, "script.py", """
        from multiprocessing import Pool
        def read():
            return open("data.csv").read()
        if __name__ == "__main__":
            open("data.csv", "w").write("newer")
            with Pool(1) as pool:
                print(pool.apply(read))
    """)  # fmt: skip
    done = python("-m", "producer", "run", "--with", "data.csv", "script.py", cwd=tmp_path, env=fleet)
    assert done.stdout == "old\n", done.stderr


def test_what_came_along_reaches_the_function_of_a_map(fleet: dict[str, str], tmp_path: Path) -> None:
    factor = write(tmp_path, "factor", "3")
    write(tmp_path, "times.py", "def times(line):\n    return int(line) * int(open('factor').read())\n")
    os.mkfifo(tmp_path / "items.txt")
    typed = ["map", "times.py:times", "items.txt", "--on", "cluster", "--with", "factor", "-q"]
    with subprocess.Popen(
        [sys.executable, "-m", "producer", *typed], cwd=tmp_path, env=fleet, stdout=subprocess.PIPE, text=True
    ) as process:
        with open(
            tmp_path / "items.txt", "w"
        ) as items:  # which waits until the command reads: it has the factor by then
            factor.unlink()
            items.write("1\n2\n")
        said, _ = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, "3\n6\n")


@pytest.mark.parametrize("place", ["threads", "processes"])
def test_where_all_is_on_this_host_it_changes_nothing(place: str, tmp_path: Path) -> None:
    write(tmp_path, "data.csv", "1")
    write(tmp_path, "script.py", "print(open('data.csv').read())")
    done = python("-m", "producer", "run", "--on", place, "--with", "data.csv", "script.py", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")
    wrong = python("-m", "producer", "run", "--on", place, "--with", "dta.csv", "script.py", cwd=tmp_path)
    assert (wrong.returncode, wrong.stdout) == (102, "")
    assert "Cannot read 'dta.csv'" in wrong.stderr


@pytest.mark.parametrize(
    ("what", "said"),
    [("nothing", "No such file"), ("pipe", "neither a file nor a folder"), ("large", "has more than 32 MB. Largest: ")],
)
def test_what_cannot_travel_is_said_before_a_fleet_is_started(what: str, said: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with open(tmp_path / "large", "wb") as file:
        file.truncate(along.LIMIT + 1)
    write(tmp_path, "script.py", "print('not printed')")
    done = python("-m", "producer", "run", "--with", what, "script.py", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (102, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_that_has_a_pipe_in_it_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(along, "_taken", {})
    monkeypatch.setattr(along, "_marks", {})
    os.mkfifo(tmp_path / "pipe")
    write(tmp_path, "a", "1")
    along.take([str(tmp_path), str(tmp_path / "a")])
    assert list(along.taken()[0]) == [str(tmp_path / "a")]
    with pytest.raises(CannotTake):
        along.take([str(tmp_path / "pipe")])


def test_source_and_data_have_one_bound_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(along, "_taken", {"/data": bytes(shipped.LIMIT - 10)})
    monkeypatch.setattr(along, "_marks", {"/data": [1, 2, 3]})
    monkeypatch.setattr(shipped, "_collectors", {})
    main: Any = sys.modules["__main__"]
    monkeypatch.setattr(main, "__file__", str(write(tmp_path, "script.py", "x = 'more than ten bytes'\n")))
    with pytest.raises(ProgramTooLarge, match="together with what is to travel"):
        shipped.collect()


# --- the copies of a host -------------------------------------------------------------------------------------------


@pytest.fixture
def copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Copies:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return Copies()


@pytest.mark.parametrize("path", ["../data", "/a/../../data", "data", "/a//b", "/nul\0"])
def test_a_path_that_leads_elsewhere_is_refused_and_nothing_is_left(copies: Copies, path: str, tmp_path: Path) -> None:
    with pytest.raises(CannotLoad, match="cannot be written on this host"):
        copies.of("program", {"/right": b"1", path: b"2"})
    assert [file for file in tmp_path.rglob("*") if file.is_file() and file.suffix != ".lock"] == []


def test_processes_that_come_at_once_write_once(copies: Copies) -> None:
    data = {f"/folder/{n}": b"x" * 1000 for n in range(200)}
    made = []
    for _ in range(4):
        reading, writing = os.pipe()
        if not os.fork():
            os.write(writing, str(os.stat(copies.of("program", data)).st_ino).encode())
            os._exit(0)
        os.close(writing)
        made.append(reading)
    inodes = {os.read(reading, 100) for reading in made}
    assert len(inodes) == 1
    assert b"" not in inodes
    for _ in made:
        os.wait()


def test_a_path_that_was_made_whole_among_the_copies_of_one_host_leads_to_those_of_another(copies: Copies) -> None:
    program = Program("/nowhere", "", True, {"/nowhere/data.csv": b"1,2"}, {"/nowhere/data.csv": [1, 2, 3]})
    elsewhere = "/tmp/crosshost-copies-1-ab/other/nowhere"
    reading, writing = os.pipe()
    if not os.fork():
        try:
            begins = copies.bring(program, "sum", elsewhere)
            os.write(writing, f"{begins} {Path(elsewhere, 'data.csv').read_text()}".encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading) as said:
        assert said.read() == f"{copies.folder}/sum/nowhere 1,2"
    os.wait()


def test_copies_that_somebody_uses_stay_and_others_go_when_there_are_too_many(copies: Copies) -> None:
    half = {"/data": bytes(KEEP // 2)}
    used = copies.of("used", half)  # by this process
    for name in ("unused", "third", "fourth"):
        if not (child := os.fork()):
            copies.of(name, half)
            os._exit(0)
        os.waitpid(child, 0)
    kept = sorted(path.name for path in Path(used).parent.iterdir() if path.is_dir())
    assert kept == ["fourth", "used"]
    copies.close()
    assert not Path(used).parent.exists()


def test_what_a_killed_supervisor_left_is_removed_by_the_next(copies: Copies, tmp_path: Path) -> None:
    if not (child := os.fork()):
        Copies().of("program", {"/data": b"1"})
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert len(list(tmp_path.iterdir())) == 1
    Copies()
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_ends_leaves_no_copies_and_the_next_removes_those_of_one_that_was_killed(tmp_path: Path) -> None:
    folder, there = tmp_path / "program", tmp_path / "there"
    for made in (folder, there, tmp_path / "fleet"):
        made.mkdir()
    with Server(tmp_path / "fleet") as server, open(tmp_path / "worker.log", "ab") as log:
        env = {**server.env, "TMPDIR": str(there)}

        def copies_after(signum: int) -> list[Path]:
            worker = subprocess.Popen(
                [sys.executable, "-m", "worker", "--name", "host-1"],
                env=env,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_us,
            )
            try:
                until(lambda: server.client.exists("crosshost:host:host-1"), "the host is there", 30)
                files(folder)
                command = [sys.executable, "-m", "producer", "run", "script.py", "--with", "."]
                done = subprocess.run(
                    command, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False
                )
                assert done.stdout == "True\n", done.stderr
                (copies,) = there.glob("crosshost-copies-*")
                worker.send_signal(signum)
                worker.wait(20)
                supervisor = int(copies.name.split("-")[2])  # which ends a moment after the worker that is killed
                until(lambda: not _lives(supervisor), "the supervisor is gone", 20)
            finally:
                worker.kill()
                worker.wait(10)
                server.client.delete("crosshost:host:host-1")
            shutil.rmtree(folder)
            folder.mkdir()
            return list(there.glob("crosshost-copies-*"))

        assert len(copies_after(signal.SIGKILL)) == 1
        assert copies_after(signal.SIGTERM) == []
