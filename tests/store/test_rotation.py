"""The fleet's key is exchanged while programs run: nothing is started anew, and none of them notices."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab.errors import BadSettings
from lab.fleet.embedded import EmbeddedFleet
from lab.fleet.hosts import list_hosts
from lab.keyring import key_id
from lab.settings import Settings
from lab.store.store import Store
from tests.kit import variables
from tests.kit.wait import until

NEW = b"n" * 64

ONCE = """
import lab
from tests.store import replay_targets as targets
if __name__ == "__main__":
    ctx = lab.get_context("cluster")
    with ctx.Pool(2) as pool:
        print(sum(pool.map(targets.double, range(100), 1)), flush=True)
"""

LASTING = """
import sys
import lab
from tests.store import replay_targets as targets
if __name__ == "__main__":
    ctx = lab.get_context("cluster")
    inbox, outbox, there, back = (ctx.Queue() for _ in range(4))
    relay = ctx.Process(target=targets.relay, args=(inbox, outbox))
    relay.start()
    with ctx.Pool(1) as pool:
        for line in sys.stdin:  # each time: processes that were started before, and a new one
            inbox.put(line.strip())
            late = ctx.Process(target=targets.relay, args=(there, back))
            late.start()
            there.put(outbox.get(timeout=20))
            there.put(None)
            print(*back.get(timeout=20), pool.apply(targets.double, (21,)), flush=True)
            late.join()
    inbox.put(None)
"""


class Rotating:
    """A fleet, its key file, and terminals that hold one key or another."""

    def __init__(self, fleet: EmbeddedFleet, settings: Settings, directory: Path) -> None:
        self.file, self.settings, self.directory = Path(fleet.authkey_file), settings, directory
        self.store, self.old = Store(settings.broker_url), settings.authkey

    def write(self, *keys: bytes) -> None:
        """Put keys into the hosts' file, and wait until the hosts have announced them."""
        self.file.write_bytes(b"\n".join(keys) + b"\n")
        wanted = " ".join(key_id(key).hex() for key in keys)
        until(lambda: {host.key for host in list_hosts(self.store)} == {wanted}, "the hosts have read it", 20)

    def start(self, text: str, key: bytes) -> subprocess.Popen[str]:
        script = self.directory / "program.py"
        script.write_text(text)
        env = variables.leading_to(replace(self.settings, authkey=key)) | {"PYTHONPATH": os.getcwd()}
        pipe = subprocess.PIPE
        return subprocess.Popen([sys.executable, script], env=env, stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    def run(self, key: bytes) -> tuple[str, str]:
        """What a short program with a key prints."""
        with self.start(ONCE, key) as program:
            out, err = program.communicate(timeout=60)
        return out.strip(), err


@pytest.fixture
def rotating(tmp_path: Path) -> Iterator[Rotating]:
    with EmbeddedFleet(Settings(hosts=2, slots=4, lease=3.0)) as fleet:
        settings = fleet.start()
        yield Rotating(fleet, settings, tmp_path)


def said(word: str) -> str:
    return f"({word!r}, 'relayed') relayed 42"


def ask(program: subprocess.Popen[str], word: str) -> str:
    assert program.stdin
    assert program.stdout
    program.stdin.write(f"{word}\n")
    program.stdin.flush()
    return program.stdout.readline().strip()


def test_the_key_is_exchanged_under_a_running_program(rotating: Rotating) -> None:
    served, old = str(sum(2 * n for n in range(100))), rotating.old
    with rotating.start(LASTING, old) as program:
        assert ask(program, "one") == said("one")
        assert "WrongKey" in rotating.run(NEW)[1]

        rotating.write(old, NEW)
        assert ask(program, "two") == said("two")
        assert rotating.run(NEW) == (served, "")
        assert rotating.run(old) == (served, "")

        rotating.write(NEW, old)
        assert ask(program, "three") == said("three")
        assert rotating.run(NEW) == (served, "")
        assert rotating.run(old) == (served, "")
        _, err = program.communicate(timeout=30)
        assert (program.returncode, err) == (0, "")

    rotating.write(NEW)
    assert rotating.run(NEW) == (served, "")
    assert "WrongKey" in rotating.run(old)[1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "0 keys"),
        ("k" * 64 + "\n" + "l" * 64 + "\n" + "m" * 64, "3 keys"),
        ("k" * 64 + "\nshort", "5 bytes"),
    ],
    ids=["no key", "three keys", "a short one"],
)
def test_a_key_file_that_cannot_be_used_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "authkey").write_text(text)
    with pytest.raises(BadSettings, match=words):
        Settings.from_env({"CROSSHOST_AUTHKEY_FILE": str(tmp_path / "authkey")})


def test_a_key_file_holds_the_key_that_seals_and_perhaps_another(tmp_path: Path) -> None:
    path = tmp_path / "authkey"
    env: Any = {"CROSSHOST_AUTHKEY_FILE": str(path)}
    path.write_bytes(b"k" * 64 + b"\n")
    assert Settings.from_env(env).keyring.fingerprints() == key_id(b"k" * 64).hex()
    path.write_bytes(b"k" * 64 + b"\r\n\n" + b"l" * 64 + b"\n")
    assert Settings.from_env(env).keyring.fingerprints() == f"{key_id(b'k' * 64).hex()} {key_id(b'l' * 64).hex()}"
