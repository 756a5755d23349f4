"""The source of a program on its way to a host: what belongs to it, and what a host refuses."""

from __future__ import annotations

import hashlib
import io
import json
import marshal
import os
import pickle
import struct
import subprocess
import sys
import types
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from lab.errors import ProgramTooLarge, WrongKey
from lab.keyring import Keyring
from lab.program import shipped as program
from lab.program import source
from lab.program.shipped import LIMIT, Program, collect
from lab.store import wire
from tests.cluster import cluster_targets as targets
from tests.store.test_security import ended, next_call_is_served, plant
from worker.archives import KEEP, Archives


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory whose ``main.py`` is this program's main module."""
    main: Any = types.ModuleType("__main__")
    main.__file__, main.__spec__ = str(tmp_path / "main.py"), None
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(program, "_collectors", {})
    yield tmp_path
    for name in [name for name, module in sys.modules.items() if str(tmp_path) in str(getattr(module, "__file__", ""))]:
        del sys.modules[name]


def write(folder: Path, **files: str | bytes) -> None:
    for name, data in files.items():
        path = folder / name.replace("__in__", "/")
        path = path.with_name(path.name + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)


def taken(folder: Path) -> set[str]:
    found = collect()
    assert found is not None
    assert found.root == str(folder)
    return {os.path.relpath(path, folder) for path in found.files}


def test_a_program_is_its_main_module_and_what_it_imports_from_beside_it(folder: Path) -> None:
    write(
        folder,
        main="import json, beside\ndef f():\n    from pack import part\n    importlib.import_module('named')",
        beside="import further.than",
        further__in__than="",
        further__in____init__="",
        pack__in____init__="",
        pack__in__part="from . import x",
        pack__in__x="import multiprocessing",
        pack__in__deep__in__y="",
        named="",
        unrelated="",
        json="",
    )
    packs = {
        "pack/__init__.py",
        "pack/part.py",
        "pack/x.py",
        "pack/deep/y.py",
        "further/__init__.py",
        "further/than.py",
    }
    assert taken(folder) == {"main.py", "beside.py", "named.py", "json.py", *packs}


def test_a_namespace_package_belongs_to_a_program(folder: Path) -> None:
    write(folder, main="import space.part", space__in__part="")
    assert taken(folder) == {"main.py", "space/part.py"}


def test_what_was_imported_in_another_way_belongs_to_a_program(folder: Path) -> None:
    write(folder, main="", plugin="")
    assert taken(folder) == {"main.py"}
    __import__("plugin")
    assert taken(folder) == {"main.py", "plugin.py"}


def test_a_program_stays_as_it_was_read(folder: Path) -> None:
    write(folder, main="first = 1")
    before = collect()
    write(folder, main="second = 2")
    assert collect() == before


def test_data_and_caches_do_not_belong_to_a_program(folder: Path) -> None:
    write(folder, main="import pack", pack__in____init__="", pack__in____pycache____in__old="")
    (folder / "pack" / "data.csv").write_text("1,2")
    (folder / "pack" / "not-a-package").mkdir()
    (folder / "pack" / "not-a-package" / "x.py").write_text("")
    assert taken(folder) == {"main.py", "pack/__init__.py"}


def test_what_is_installed_beside_a_script_does_not_belong_to_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, main="import installed, lab, pytest, os", venv__in__lib__in__site="")
    packages = folder / "venv" / "lib" / "site-packages"
    write(packages, installed="")
    monkeypatch.syspath_prepend(str(packages))
    assert taken(folder) == {"main.py"}


def test_files_that_python_cannot_parse_are_left_for_it_to_complain_about(folder: Path) -> None:
    latin = "# -*- coding: latin-1 -*-\nimport named\nword = 'caf\xe9'\n".encode("latin-1")
    write(folder, main="import latin, wrong, bytes_", latin=latin, wrong="x = = 1", bytes_=b"\xff\xfe\0", named="")
    assert taken(folder) == {"main.py", "latin.py", "wrong.py", "bytes_.py", "named.py"}
    found = collect()
    assert found is not None
    assert found.files[str(folder / "latin.py")] == latin


def test_symbolic_links_are_followed_once(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    write(elsewhere, shared="", pack__in____init__="", pack__in__part="")
    write(folder, main="import shared, pack, broken, loop", loop__in____init__="")
    (folder / "shared.py").symlink_to(elsewhere / "shared.py")
    (folder / "pack").symlink_to(elsewhere / "pack")
    (folder / "broken.py").symlink_to(folder / "nowhere.py")
    (folder / "loop" / "again").symlink_to(folder / "loop")
    assert taken(folder) == {"main.py", "shared.py", "pack/__init__.py", "pack/part.py", "loop/__init__.py"}


def test_a_pipe_among_the_modules_is_not_waited_for(folder: Path) -> None:
    write(folder, main="import pack", pack__in____init__="")
    os.mkfifo(folder / "pack" / "fifo.py")
    assert taken(folder) == {"main.py", "pack/__init__.py"}


def test_a_program_of_more_than_32_mb_is_refused_with_its_largest_files(folder: Path) -> None:
    write(folder, main="import large, larger", large="#" * (LIMIT // 2), larger="#" * (LIMIT // 2 + 10))
    with pytest.raises(ProgramTooLarge, match=r"more than 32 MB.*larger\.py 16\.8 MB, large\.py 16\.8 MB"):
        collect()


def test_a_session_without_a_main_file_has_no_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))
    assert collect() is None


def test_a_command_that_is_installed_has_no_program(monkeypatch: pytest.MonkeyPatch) -> None:
    main: Any = types.ModuleType("__main__")
    main.__file__, main.__spec__ = str(Path(sys.executable).parent / "pytest"), None
    monkeypatch.setitem(sys.modules, "__main__", main)
    assert source.root_of_main() is None


def test_an_archive_gives_back_what_was_packed() -> None:
    one = Program("/here", "/here/main.py", True, {"/here/main.py": b"\xff", "/here/caf\udce9/b.py": b""})
    assert Program.unpack(one.pack()) == one
    assert one.pack() == Program("/here", "/here/main.py", True, dict(reversed(list(one.files.items())))).pack()


def test_byte_code_of_this_python_is_used_and_of_another_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    path, code = "/here/a.py", {"/here/a.py": marshal.dumps(compile("x = 2", "/here/a.py", "exec"))}
    one = Program("/here", "", False, {path: b"x = 1", "/here/b.py": b"x = 3"}, code=code)
    again = Program.unpack(one.pack())
    assert again == one

    def x(program: Program, path: str) -> int:
        found: dict[str, int] = {}
        exec(program.importable(None).loader("a", path).get_code("a"), found)
        return found["x"]

    assert (x(again, path), x(again, "/here/b.py")) == (2, 3)
    monkeypatch.setattr(program, "MAGIC", "of 3.99")
    archive = one.pack()
    monkeypatch.undo()
    assert x(Program.unpack(archive), path) == 1


BYTES = """
import sys
sys.path.insert(0, {folder!r})
import beside
{more}
from lab.program.shipped import Program, _with_code
files = {{path: open(path, "rb").read() for path in (beside.__file__, {folder!r} + "/never.py")}}
program = _with_code(Program({folder!r}, "", True, files))
assert list(program.code) == [beside.__file__]
print(program.pack().hex())
"""


def test_the_same_program_makes_the_same_bytes_whatever_it_has_done(tmp_path: Path) -> None:
    names = "import multiprocessing as mp\ndef f(a): return a in {'q', 'w', 1, None} or f'{a}' or (mp, 'q', 1.5)\n"
    (tmp_path / "beside.py").write_text(names)
    (tmp_path / "never.py").write_text(names)
    packed = {
        subprocess.run(
            [sys.executable, "-c", BYTES.format(folder=str(tmp_path), more=more)],
            env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True,
        ).stdout
        for seed, more in (("0", ""), ("1", "kept = [beside.f.__code__.co_consts, 'w']"), ("2", ""))
    }  # fmt: skip
    assert len(packed) == 1


# --- what a host refuses --------------------------------------------------------------------------------------------


@pytest.fixture
def client(cluster: Any) -> redis.Redis:
    """A client of the fleet's Redis, which may write what it likes."""
    cluster.connect()
    return redis.Redis.from_url(cluster.settings.broker_url)


def archive_of(path: Path) -> bytes:
    """A program whose main module writes a file."""
    main = "/nowhere/main.py"
    return Program("/nowhere", main, False, {main: f"open({str(path)!r}, 'w').close()".encode()}).pack()


def process_of(cluster: Any, name: str, digest: str) -> bytes:
    """A packed process that comes with a program."""
    prepare = {"name": "x", "sys_path": [os.getcwd(), *sys.path]}
    run = cluster.connect()
    head = {"issued": run.server_ms(), "python": list(sys.version_info[:2]), "prepare": prepare, "program": digest}
    head |= {"mailbox": run.key("mail", "intruder"), "runs_main": True}
    head["authkey"] = b"any".hex()
    text = json.dumps(head).encode()
    return struct.pack(">I", len(text)) + text + pickle.dumps(targets.nothing)


def send(cluster: Any, client: redis.Redis, name: str, digest: str, blob: bytes) -> None:
    run = cluster.connect()
    client.hset(run.key("program", digest), "archive", blob)
    plant(cluster, client, name, run.seal(run.key("process", name), process_of(cluster, name, digest)))
    ended(cluster, client)


def test_a_program_runs_on_a_host_if_it_is_sealed(cluster: Any, client: redis.Redis, tmp_path: Path) -> None:
    # what the tests below prove rests on this
    archive, run = archive_of(tmp_path / "ran"), cluster.connect()
    digest = hashlib.sha256(archive).hexdigest()
    send(cluster, client, "sealed", digest, run.seal(run.key("program", digest), archive))
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("forged", ["unsealed", "another key", "sealed for another purpose", "another program"])
def test_a_program_that_is_not_sealed_for_its_run_is_refused_unread(
    forged: str,
    cluster: Any,
    client: redis.Redis,
    tmp_path: Path,
) -> None:
    archive, run = archive_of(tmp_path / "ran"), cluster.connect()
    digest = hashlib.sha256(archive).hexdigest()
    key = run.key("program", digest)
    blobs = {
        "unsealed": b"\0" * wire.HEAD_SIZE + archive,
        "another key": wire.Keys(Keyring(b"some other fleet's key"), f"run {run.id}").seal(key, archive),
        "sealed for another purpose": run.seal(run.key("program", "0" * 64), archive),
        "another program": run.seal(key, archive + b"#"),
    }
    send(cluster, client, forged.replace(" ", "-"), digest, blobs[forged])
    assert not (tmp_path / "ran").exists()
    next_call_is_served(cluster)


def test_a_process_whose_program_is_gone_is_not_run(cluster: Any, client: redis.Redis) -> None:
    run, name = cluster.connect(), "without"
    plant(cluster, client, name, run.seal(run.key("process", name), process_of(cluster, name, "f" * 64)))
    ended(cluster, client)
    next_call_is_served(cluster)


def test_a_host_fetches_a_program_once_and_keeps_no_more_than_its_limit(cluster: Any) -> None:
    run, archives, digests = cluster.connect(), Archives(), []
    for n in range(5):
        archive = bytes([n]) * (KEEP // 4)
        digests.append(program._publish(run, archive))
        assert os.pread(archives.get(run, digests[-1]), KEEP, 0) == archive
    for digest in digests:
        run.store.call("DEL", run.key("program", digest))
    assert [os.fstat(archives.get(run, digest)).st_size for digest in digests[1:]] == [KEEP // 4] * 4
    with pytest.raises(WrongKey, match="not in Redis"):
        archives.get(run, digests[0])


def test_a_program_expires_with_its_run(cluster: Any) -> None:
    run = cluster.connect()
    digest = program._publish(run, b"archive")
    assert 0 < run.store.call("PTTL", run.key("program", digest)) <= run.ttl
    assert run.key("program", digest).encode() in run.store.call("SMEMBERS", run.key("keys"))


def test_an_archive_is_a_zip_that_any_tool_reads() -> None:
    archive = Program("/r", "/r/m.py", False, {"/r/m.py": b"x = 1"}).pack()
    with zipfile.ZipFile(io.BytesIO(archive)) as entries:
        assert entries.read("1") == b"x = 1"
