"""The memory that processes of a host share: one fills it, the others wait, and somebody always goes on."""

from __future__ import annotations

import json
import mmap
import os
import socket
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from lab.cluster.share import HostMemory
from lab.settings import Settings
from lab.store.run import Run
from lab.store.store import Store
from worker import shares
from worker.hosted import Hosted
from worker.shares import Shares

NAME, OTHER, SIZE = "0123456789abcdef", "fedcba9876543210", 8192


class Host:
    """The supervisor's side, and processes that do what a test says."""

    def __init__(self) -> None:
        self.settings = Settings.from_env(
            {"CROSSHOST_BROKER_URL": "unix:///nowhere.sock", "CROSSHOST_AUTHKEY": "k" * 32, "CROSSHOST_LEASE": "0.5",
             "CROSSHOST_MESSAGE_SIZE": "1m"}
        )  # fmt: skip
        self.store = Store(self.settings.broker_url)
        self.shares = Shares(self.settings, self.store)
        self.hosted: list[Hosted] = []

    def process(self, run: str = "a" * 12) -> Hosted:
        hosted = Hosted(Run(self.settings, self.store, run, f"p{len(self.hosted)}"), 1, None)  # type: ignore[arg-type]
        hosted._its_share.settimeout(5)
        self.hosted.append(hosted)
        return hosted

    def hear(self, hosted: Hosted, **said: Any) -> bool:
        """Have the supervisor hear what a process says."""
        hosted._its_share.sendall(json.dumps(said).encode() + b"\n")
        return self.shares.read(hosted)

    def close(self) -> None:
        self.shares.forsake()
        for hosted in self.hosted:
            hosted.close()


@pytest.fixture
def host() -> Iterator[Host]:
    host = Host()
    yield host
    host.close()


def answer(hosted: Hosted) -> tuple[dict[str, Any], int]:
    """What a process was answered, and the file that came with it (-1 if none did)."""
    data, files, _, _ = socket.recv_fds(hosted._its_share, 4096, 1)
    return json.loads(data), (files or [-1])[0]


def nothing(hosted: Hosted) -> bool:
    """Whether a process was not answered."""
    hosted._its_share.setblocking(False)
    try:
        socket.recv_fds(hosted._its_share, 4096, 1)
    except BlockingIOError:
        return True
    finally:
        hosted._its_share.settimeout(5)
    return False


def test_one_fills_and_the_others_get_what_it_filled(host: Host) -> None:
    first, second, third = (host.process() for _ in range(3))
    for hosted in (first, second):
        assert host.hear(hosted, get=NAME, size=SIZE)
    said, file = answer(first)
    assert said == {"fill": True}
    assert nothing(second)
    os.pwrite(file, b"x" * SIZE, 0)
    assert host.hear(first, filled=NAME)
    said, filled = answer(second)
    assert said == {"fill": False}
    assert os.pread(filled, SIZE, 0) == b"x" * SIZE
    host.hear(third, get=NAME, size=SIZE)
    assert answer(third)[0] == {"fill": False}
    with pytest.raises(PermissionError):
        os.pwrite(file, b"y", 0)  # nobody writes to it any more, who has filled it neither
    with pytest.raises(PermissionError):
        mmap.mmap(filled, SIZE)
    with pytest.raises(PermissionError):
        os.ftruncate(filled, 1)


@pytest.mark.parametrize("how", ["ends", "fails", "is stopped", "says nothing for a lease"])
def test_another_one_fills_when_the_first(host: Host, how: str) -> None:
    first, second = host.process(), host.process()
    for hosted in (first, second):
        host.hear(hosted, get=NAME, size=SIZE)
    _, old = answer(first)
    if how == "ends":
        host.shares.left(first)
    elif how == "fails":
        host.hear(first, failed=NAME)
    elif how == "is stopped":
        host.shares.stopped(first)
    else:
        time.sleep(0.3)
        host.hear(first, on=NAME)
        host.shares.look()
        assert nothing(second)  # it goes on, if slowly
        time.sleep(0.6)
        host.shares.look()
    said, new = answer(second)
    assert said == {"fill": True}
    os.pwrite(old, b"late", 0)  # who comes back writes to memory that is nobody's
    assert os.pread(new, 4, 0) == bytes(4)
    host.hear(first, filled=NAME)
    third = host.process()
    host.hear(third, get=NAME, size=SIZE)
    assert nothing(third)  # what the first says does not count any more
    host.hear(second, filled=NAME)
    assert answer(third)[0] == {"fill": False}


def test_one_that_ends_while_it_waits_is_not_asked(host: Host) -> None:
    first, second, third = (host.process() for _ in range(3))
    for hosted in (first, second, third):
        host.hear(hosted, get=NAME, size=SIZE)
    host.shares.left(second)
    second._its_share.close()
    host.shares.left(first)
    assert answer(third)[0] == {"fill": True}


def test_a_process_of_another_run_does_not_get_it(host: Host) -> None:
    mine, theirs = host.process(), host.process("b" * 12)
    host.hear(mine, get=NAME, size=SIZE)
    host.hear(mine, filled=NAME)
    host.hear(theirs, get=NAME, size=SIZE)
    assert answer(theirs)[0] == {"fill": True}  # a file of its own


@pytest.mark.parametrize(("name", "size"), [(NAME, 0), (NAME, -1), (NAME, (1 << 20) + 1), ("../x", 1), ("", 1)])
def test_what_is_too_much_or_is_no_object_is_refused(host: Host, name: str, size: int) -> None:
    hosted = host.process()
    assert host.hear(hosted, get=name, size=size)
    said, file = answer(hosted)
    assert (list(said), file) == (["no"], -1)


def test_one_run_has_no_more_than_a_number_of_objects(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "MOST", 1)
    hosted, other = host.process(), host.process("b" * 12)
    for process, name in ((hosted, NAME), (hosted, OTHER), (other, OTHER)):
        host.hear(process, get=name, size=SIZE)
    assert answer(hosted)[0] == {"fill": True}
    assert "no" in answer(hosted)[0]
    assert answer(other)[0] == {"fill": True}


@pytest.mark.parametrize("said", [b"nonsense\n", b"[]\n", b"1\n", b'{"get": "x"}\n', b"{}\n", b'{"a": 1, "b": 2}\n',
                                  b'{"get": "x", "size": "y"}\n', b"x" * 5000,
                                  b"[" * 2000 + b"\n", b'{"get": "x", "size": 1e999}\n'])  # fmt: skip
def test_a_process_that_says_what_makes_no_sense_is_not_listened_to(host: Host, said: bytes) -> None:
    hosted = host.process()
    hosted._its_share.sendall(said)
    assert not (host.shares.read(hosted) and host.shares.read(hosted))


def test_a_process_without_a_supervisor_fetches_for_itself() -> None:
    def fill(memory: memoryview, _tell: Any = None) -> None:
        memory[:] = b"z" * len(memory)

    memory, brought = HostMemory().memory(NAME, SIZE, fill)
    assert (bytes(memory), memory.readonly, brought) == (b"z" * SIZE, True, True)


def test_one_whose_supervisor_goes_away_while_it_waits_fetches_for_itself() -> None:
    ours, theirs = socket.socketpair()
    host = HostMemory()
    host.join(ours.detach())
    theirs.close()
    memory, _ = host.memory(NAME, SIZE, partial(_zero))
    assert bytes(memory) == bytes(SIZE)


def _zero(memory: memoryview, _tell: Any = None) -> None:
    memory[:] = bytes(len(memory))
