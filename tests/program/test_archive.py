"""The archive with a program's source: what a host does not unpack, whoever sealed it, and what it does not even fetch."""

from __future__ import annotations

import hashlib
import io
import json
import random
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
import redis

from lab.errors import CannotLoad, ProgramTooLarge, WrongKey
from lab.program import shipped
from lab.program.shipped import ABOUT, FILES, LIMIT, PACKED, Program, fetch
from tests import ROOT
from tests.program.test_program import process_of
from tests.store.test_security import next_call_is_served, plant

ABOUT_ONE = {"root": "/r", "main": "/r/m.py", "substituted": False, "paths": ["/r/m.py"]}


def archive(*contents: bytes, about: Any = ABOUT_ONE, how: int = zipfile.ZIP_DEFLATED, names: Any = str) -> bytes:
    """What ``pack`` makes, or nearly."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as entries:
        for number, data in enumerate([json.dumps(about).encode(), *contents]):
            entries.writestr(zipfile.ZipInfo(names(number)), data, how)
    return buffer.getvalue()


def saying(data: bytes, size: int) -> bytes:
    """The archive of one file, which says that it has another size than it has, in both places."""
    packed = bytearray(archive(data))
    for signature, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<L", packed, packed.rindex(signature) + at, size)
    return bytes(packed)


def with_comment() -> bytes:
    packed = archive(b"x")
    return packed[:-2] + struct.pack("<H", 3) + b"PK!"


def overlapping() -> bytes:
    """Many entries for the bytes of one: small, and large when unpacked."""
    kernel, paths = bytes(8 << 20), [f"/r/{n}.py" for n in range(64)]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as entries:
        entries.writestr(zipfile.ZipInfo("0"), json.dumps(ABOUT_ONE | {"paths": paths}), zipfile.ZIP_DEFLATED)
        entries.writestr(zipfile.ZipInfo("1"), kernel, zipfile.ZIP_DEFLATED)
        for number in range(2, 65):
            again = zipfile.ZipInfo(str(number))
            for name in ("header_offset", "CRC", "compress_size", "file_size", "compress_type"):
                setattr(again, name, getattr(entries.filelist[1], name))
            entries.filelist.append(again)
    return buffer.getvalue()


def many_entries() -> bytes:
    """A list of entries that is the whole archive."""
    size = FILES * 80
    return bytes(size) + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, size, 0, 0)


def zip64() -> bytes:
    """Where the list of entries is, and how long, is said in a second place, which zipfile believes."""
    packed = archive(b"x")
    return packed[:-22] + b"PK\x06\x07" + bytes(16) + packed[-22:]


def deep() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as entries:
        entries.writestr(zipfile.ZipInfo("0"), "[" * 200_000, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


TOO_LARGE: dict[str, Callable[[], bytes]] = {
    "a bomb": lambda: archive(bytes(LIMIT + 1)),
    "a bomb of many": lambda: archive(*[bytes(LIMIT // 4)] * 5, about=ABOUT_ONE | {"paths": ["/r/m.py"] * 5}),
    "a bomb that overlaps": overlapping,
    "a long head": lambda: archive(b"", about=ABOUT_ONE | {"paths": ["/r/" + "x" * ABOUT]}),
    "more files": many_entries,
    "a size that is not so large": lambda: saying(b"x = 1", 0xFFFFFFF0),
}
NOT_OURS: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "no zip": lambda: b"x" * 100,
    "half of one": lambda: archive(b"x" * 1000)[:-100],
    "a comment": with_comment,
    "a larger zip's end": zip64,
    "a bomb that says that it is small": lambda: saying(bytes(LIMIT * 8), 10),
    "a file that says that it is larger": lambda: saying(b"x = 1", 1000),
    "stored": lambda: archive(b"x", how=zipfile.ZIP_STORED),
    "bzip2": lambda: archive(bytes(1000), how=zipfile.ZIP_BZIP2),
    "names of its own": lambda: archive(b"x", names=lambda number: f"../../etc/{number}"),
    "the same name twice": lambda: archive(b"x", b"y", names=lambda number: str(min(number, 1))),
    "more files than paths": lambda: archive(b"x", b"y"),
    "more paths than files": lambda: archive(),
    "a head that is a list": lambda: archive(b"x", about=["root"]),
    "a head of something else": lambda: archive(b"x", about={"paths": ["/r/m.py"], "files": {}}),
    "a deep head": deep,
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", TOO_LARGE)
def test_what_a_program_may_not_have_is_not_unpacked(kind: str) -> None:
    with pytest.raises(ProgramTooLarge, match="which is what a host accepts"):
        Program.unpack(TOO_LARGE[kind]())


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", NOT_OURS)
def test_what_is_no_archive_of_ours_is_one_error(kind: str) -> None:
    with pytest.raises(CannotLoad, match="cannot be read"):
        dict(Program.unpack(NOT_OURS[kind]()).files)


UNPACK = """
import resource, sys
from lab.errors import LabError
from lab.program.shipped import Program
data = sys.stdin.buffer.read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    dict(Program.unpack(data).files)
except LabError:
    pass
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


@pytest.mark.parametrize("kind", ["a bomb", "a bomb that overlaps", "a bomb that says that it is small", "more files"])
def test_a_bomb_costs_no_memory(kind: str) -> None:
    bomb = (TOO_LARGE | NOT_OURS)[kind]()
    done = subprocess.run(
        [sys.executable, "-c", UNPACK], input=bomb, cwd=ROOT, capture_output=True, timeout=60, check=True
    )
    assert int(done.stdout) < 16  # MB; it makes 32 or more


def test_a_program_of_the_largest_size_passes() -> None:
    noise = random.Random(1).randbytes(LIMIT - FILES + 1)  # which cannot be compressed
    files = {f"/r/{n:05}.py": b"x" for n in range(FILES - 1)} | {"/r/noise.py": noise}
    largest = Program("/r", "/r/noise.py", False, files)
    packed = largest.pack()
    assert LIMIT < len(packed) < PACKED - 100
    assert Program.unpack(packed) == largest


def test_a_program_of_too_many_files_is_refused_where_it_is_made(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipped, "FILES", 5)
    collector = shipped.Collector(str(tmp_path))
    paths = [tmp_path / f"m{n}.py" for n in range(6)]
    for path in paths:
        path.write_text("")
    for path in paths[:5]:
        collector.add(str(path))
    with pytest.raises(ProgramTooLarge, match="more than 5 files"):
        collector.add(str(paths[5]))


def test_an_archive_that_no_program_has_is_not_fetched(cluster: Any) -> None:
    run = cluster.connect()
    client, key = redis.Redis.from_url(cluster.settings.broker_url), run.key("program", "0" * 64)
    client.hset(key, "archive", bytes(PACKED + 1))
    sent = int(client.info("stats")["total_net_output_bytes"])
    with pytest.raises(WrongKey, match=f"has {PACKED + 1} bytes"):
        fetch(run, "0" * 64)
    assert int(client.info("stats")["total_net_output_bytes"]) - sent < 1 << 20
    client.delete(key)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", ["a bomb", "names of its own"])
def test_a_host_tells_the_program_what_is_wrong_with_its_archive(kind: str, cluster: Any) -> None:
    client, run = redis.Redis.from_url(cluster.settings.broker_url), cluster.connect()
    bomb = (TOO_LARGE | NOT_OURS)[kind]()
    digest, name = hashlib.sha256(bomb).hexdigest(), kind.replace(" ", "-")
    client.hset(run.key("program", digest), "archive", run.seal(run.key("program", digest), bomb))
    plant(cluster, client, name, run.seal(run.key("process", name), process_of(cluster, name, digest)))
    mailbox, events = run.key("mail", "intruder"), {}
    while "exit" not in events:
        mail: Any = client.blpop([mailbox], timeout=20)
        assert mail, "the end was not reported"
        said = json.loads(bytes(run.unseal(mailbox, mail[1])))
        events[said["event"]] = said
    assert ("which is what a host accepts" if kind == "a bomb" else "cannot be read") in events["unloadable"]["error"]
    assert events["exit"]["exitcode"] == 1
    next_call_is_served(cluster)
