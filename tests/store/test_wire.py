"""The format of sealed messages: what opens, what does not, and that no nonce is used twice."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from lab.errors import WrongKey
from lab.keyring import Keyring, key_id
from lab.store import wire
from lab.store.wire import Keys, LastingKeys, Once

KEY, OTHER = b"k" * 32, b"l" * 32
SIZES = [0, 1, 100, wire.LARGE - 100, wire.LARGE, 3_000_000]


def keys(key: bytes = KEY, scope: str = "run 1", **options: Any) -> Keys:
    return Keys(Keyring(key), scope, **options)


def joined(blob: Any) -> bytes:
    return blob if isinstance(blob, bytes) else b"".join(blob)


@pytest.mark.parametrize("size", SIZES)
def test_what_was_sealed_opens_for_its_purpose_alone(size: int) -> None:
    payload = os.urandom(size)
    blob = joined(keys().seal("here", payload, clear=b"number"))
    assert bytes(keys().unseal("here", blob)) == payload
    assert wire.clear_part(blob) == b"number"
    assert not wire.is_ticket(blob)
    for reader, purpose in ((keys(), "there"), (keys(OTHER), "here"), (keys(scope="run 2"), "here")):
        with pytest.raises(WrongKey, match="refused unread"):
            reader.unseal(purpose, blob)


@pytest.mark.parametrize("known", [True, False], ids=["known sender", "unknown sender"])
def test_a_message_with_any_byte_changed_or_cut_off_is_refused(known: bool) -> None:
    reader, sender = keys(), keys()
    blob = sender.seal("here", b"a payload", clear=b"clear")
    if known:
        reader.unseal("here", sender.seal("here", b"first"))
    for at in range(len(blob)):
        for changed in (blob[:at] + bytes([blob[at] ^ 1]) + blob[at + 1 :], blob[:at]):
            with pytest.raises(WrongKey, match="refused unread"):
                reader.unseal("here", changed)
    with pytest.raises(WrongKey):
        reader.unseal("here", blob + b"x")
    assert bytes(reader.unseal("here", blob)) == b"a payload"


def test_several_parts_are_one_payload_and_nothing_of_it_can_be_read() -> None:
    blob = keys().seal("here", b"a sec", memoryview(b"ret th"), bytearray(b"ing"))
    assert bytes(keys().unseal("here", blob)) == b"a secret thing"
    assert b"sec" not in blob


def test_the_format_is_the_one_that_is_documented() -> None:
    blob = keys(scope="run abc").seal("a purpose", b"a payload", kind=wire.TICKET, clear=b"clear")
    assert blob[0] == 2
    assert blob[1:5] == key_id(KEY)
    assert blob[21:33] == b"\0\1" + bytes(8) + b"\0\5"
    assert blob[33:38] == b"clear"
    derived = HKDF(SHA256(), 32, salt=blob[5:21], info=b"crosshost-2 run abc").derive(KEY)
    assert AESGCM(derived).decrypt(blob[21:33], blob[38:], blob[:38] + b"a purpose") == b"a payload"


@pytest.mark.parametrize(
    ("version", "older"), [(1, "that side is older"), (3, "this side is older"), (255, "this side")]
)
def test_another_version_is_refused_and_the_error_says_which_side_is_older(version: int, older: str) -> None:
    blob = keys().seal("here", b"payload")
    with pytest.raises(WrongKey, match=f"its format is {version}, not 2.*{older}"):
        keys().unseal("here", bytes([version]) + blob[1:])


def test_a_key_that_is_not_held_is_named() -> None:
    with pytest.raises(WrongKey, match=f"names the key {key_id(OTHER).hex()}, and this side holds {key_id(KEY).hex()}"):
        keys().unseal("here", keys(OTHER).seal("here", b"payload"))


def in_a_fork(work: Callable[[], bytes]) -> bytes:
    read_end, write_end = os.pipe()
    if not (pid := os.fork()):
        try:
            os.write(write_end, work())
        finally:
            os._exit(0)
    os.close(write_end)
    with open(read_end, "rb") as pipe:
        found = pipe.read()
    os.waitpid(pid, 0)
    return found


def test_a_fork_does_not_go_on_with_the_nonces_of_its_parent() -> None:
    sender = keys()
    first = sender.seal("here", b"payload")
    blobs = [in_a_fork(lambda: bytes(sender.seal("here", b"payload"))) for _ in range(3)]
    blobs.append(in_a_fork(lambda: in_a_fork(lambda: bytes(sender.seal("here", b"payload")))))
    blobs += [first, sender.seal("here", b"payload")]
    assert len({blob[5:21] for blob in blobs}) == 5  # the parent's own two have one epoch
    assert len({blob[5:33] for blob in blobs}) == 6
    assert all(bytes(sender.unseal("here", blob)) == b"payload" for blob in blobs)


def test_threads_do_not_use_a_nonce_twice() -> None:
    sender, found, together = keys(), list[bytes](), threading.Barrier(8)

    def seal_many() -> None:
        together.wait()
        found.extend([sender.seal("here", b"") for _ in range(2000)])

    threads = [threading.Thread(target=seal_many) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({blob[5:33] for blob in found}) == len(found) == 16_000


def test_forgeries_do_not_crowd_out_the_senders_that_are_known() -> None:
    reader, blob = keys(), keys().seal("here", b"payload")
    reader.unseal("here", blob)
    for n in range(2 * wire.EPOCHS):
        with pytest.raises(WrongKey):
            reader.unseal("here", blob[:5] + n.to_bytes(16, "big") + blob[21:])
    assert len(reader._openers) == 1


def test_the_number_of_senders_whose_keys_are_kept_is_bounded_and_all_of_them_are_read(monkeypatch: Any) -> None:
    monkeypatch.setattr(wire, "EPOCHS", 8)
    reader, senders = keys(), [keys() for _ in range(20)]
    for _ in range(2):
        for sender in senders:
            assert bytes(reader.unseal("here", sender.seal("here", b"payload"))) == b"payload"
            assert len(reader._openers) <= 8


def test_a_copy_is_told_from_a_message_in_whatever_order_they_come(monkeypatch: Any) -> None:
    monkeypatch.setattr(Once, "RECENT", 8)
    monkeypatch.setattr(Once, "SENDERS", 4)
    once, sender = Once(), keys()
    blobs = [sender.seal("here", b"") for _ in range(40)]
    late = [*blobs[1:6], blobs[0], *blobs[6:]]  # as from two threads
    for blob in late:
        once.check("here", blob)
    for blob in blobs:  # what was forgotten, too
        with pytest.raises(WrongKey, match="came before"):
            once.check("here", blob)
    for other in [keys() for _ in range(10)]:
        once.check("here", other.seal("here", b""))
        assert len(once._senders) <= 4


# --- two keys ---------------------------------------------------------------------------------------------------------


def test_with_two_keys_the_first_one_seals_and_both_open() -> None:
    both = Keys(Keyring(KEY, OTHER), "run 1")
    assert bytes(both.unseal("here", keys(OTHER).seal("here", b"old"))) == b"old"
    assert bytes(keys().unseal("here", both.seal("here", b"new"))) == b"new"


def test_a_child_answers_with_the_key_that_its_start_was_sealed_with() -> None:
    child = Keys(Keyring(KEY, OTHER), "run 1", follow=True)
    child.seal("here", b"before anything was opened")
    child.unseal("here", keys(OTHER).seal("here", b"start"))
    child.unseal("here", keys().seal("here", b"not the first"))
    assert bytes(keys(OTHER).unseal("here", child.seal("here", b"answer"))) == b"answer"


def test_a_key_file_is_read_again_when_it_was_changed(tmp_path: Any) -> None:
    path = tmp_path / "authkey"
    path.write_bytes(OTHER)
    ring = Keyring(OTHER, path=str(path))
    reader, lasting = Keys(ring, "run 1"), LastingKeys(ring, "jobs")
    assert bytes(keys(OTHER, "jobs").unseal("here", lasting.seal("here", b"x"))) == b"x"
    with pytest.raises(WrongKey):
        reader.unseal("here", keys().seal("here", b"x"))
    path.write_bytes(KEY + b"\n" + OTHER + b"\n")
    assert bytes(reader.unseal("here", keys().seal("here", b"x"))) == b"x"
    assert bytes(reader.unseal("here", keys(OTHER).seal("here", b"x"))) == b"x"
    assert ring.fingerprints() == f"{key_id(KEY).hex()} {key_id(OTHER).hex()}"
    assert bytes(keys(KEY, "jobs").unseal("here", lasting.seal("here", b"x"))) == b"x"
    path.write_bytes(KEY)
    with pytest.raises(WrongKey):
        reader.unseal("here", keys(OTHER).seal("here", b"x"))
    for unusable in (b"", b"short", KEY + b"\n" + OTHER + b"\n" + KEY):
        path.write_bytes(unusable)
        assert bytes(reader.unseal("here", keys().seal("here", b"x"))) == b"x"
    path.unlink()
    assert bytes(reader.unseal("here", keys().seal("here", b"x"))) == b"x"
