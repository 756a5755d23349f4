"""What is large is not copied into its pickle, nor out of it, and comes from the socket to where it lies."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from lab import buffers
from lab.buffers import LEAST, Packer, load_nested, nested
from lab.errors import KeyLost, WrongKey
from lab.keyring import Keyring
from lab.store import wire
from lab.store.link import READ_LARGE
from lab.store.run import Run
from lab.store.store import Store
from lab.store.wire import LARGE, Keys
from tests.kit.proxy import Proxy
from tests.kit.server import Server


def together(parts: list[Any], before: int = 0) -> memoryview:
    """Parts as they arrive: in memory that may be written to, behind something else."""
    return memoryview(bytearray(bytes(before) + b"".join(parts)))[before:]


OBJECTS = [
    None, 1, "word", b"", bytes(LEAST), b"x" * (2 * LEAST), bytearray(3 * LEAST), [b"y" * LEAST] * 3,
    np.arange(10), np.arange(LEAST), np.asfortranarray(np.ones((300, 300))), np.ones((400, 400))[::2, ::3], np.zeros((0, 3)),
    {"a": np.arange(LEAST), "b": [np.ones(LEAST, dtype="i1"), "c" * LEAST]}, np.array([1, "a", None], dtype=object),
    pickle.PickleBuffer(b"z" * LEAST),
]  # fmt: skip


@pytest.mark.parametrize("obj", OBJECTS, ids=lambda obj: f"{type(obj).__name__}-{getattr(obj, 'nbytes', '')}")
@pytest.mark.parametrize("before", [0, 1, 12])
def test_what_is_packed_is_the_same_when_it_is_loaded(obj: Any, before: int) -> None:
    back = buffers.loads(together(buffers.dumps(obj), before), before)
    expected = bytes(obj) if isinstance(obj, pickle.PickleBuffer) else obj
    np.testing.assert_equal(bytes(back) if isinstance(obj, pickle.PickleBuffer) else back, expected)
    again = load_nested(buffers.loads(together(buffers.dumps(nested(obj)), before), before))
    np.testing.assert_equal(bytes(again) if isinstance(obj, pickle.PickleBuffer) else again, expected)


def test_a_small_object_is_one_part_and_a_plain_pickle() -> None:
    (part,) = buffers.dumps({"a": [1, 2, np.ones(3)]})
    assert pickle.loads(part)["a"][:2] == [1, 2]


def test_a_large_array_is_a_part_by_itself_and_loaded_it_is_a_view() -> None:
    array = np.arange(LEAST)
    parts = buffers.dumps([array, "more"])
    assert any(np.shares_memory(np.frombuffer(part, dtype="u1"), array) for part in parts if len(part) == array.nbytes)
    arrived = together(parts)
    back, _ = buffers.loads(arrived)
    assert np.shares_memory(np.frombuffer(arrived, dtype="u1"), back)
    assert back.flags.writeable
    assert back.flags.aligned


def test_large_bytes_are_a_part_that_is_the_very_object() -> None:
    data = b"x" * (2 * LEAST)
    assert any(part is data for part in buffers.dumps([1, data, 2]))


def test_an_array_that_arrives_at_an_odd_place_is_aligned_all_the_same() -> None:
    back = buffers.loads(together(buffers.dumps(np.ones(LEAST)), 12), 12)
    assert back.ctypes.data % 16 == 0


def test_a_packer_that_has_failed_goes_on_with_the_next() -> None:
    packer = Packer()
    with pytest.raises((pickle.PicklingError, TypeError)):
        packer.dumps([np.ones(LEAST), (n for n in range(1))])
    for _ in range(3):
        np.testing.assert_equal(buffers.loads(together(packer.dumps([np.ones(LEAST)]))), [np.ones(LEAST)])
        assert buffers.loads(packer.dumps("x")[0]) == "x"


# Encrypted in parts


KEYS = Keys(Keyring(b"k" * 32), "run x")


@pytest.mark.parametrize("sizes", [(LARGE, 0, 1), (0, LARGE), (1, LARGE - 1), (LARGE, LARGE, 7), (5, 1 << 20, 5)])
def test_parts_open_as_one_message(sizes: tuple[int, ...]) -> None:
    parts = [bytes([n + 1]) * size for n, size in enumerate(sizes)]
    head, sealed = KEYS.seal("list", *parts, clear=b"seen")
    blob = head + bytes(sealed)
    for arrived in (blob, bytearray(blob)):
        payload = KEYS.unseal("list", arrived)
        assert bytes(payload) == b"".join(parts)
        assert not payload.readonly
    memory = memoryview(bytearray(sum(sizes)))
    plain = b"".join(KEYS.seal("list", b"".join(parts)))
    KEYS.unseal_into("list", plain, memory)
    assert bytes(memory) == b"".join(parts)


@pytest.mark.parametrize("at", [0, 1, 5, 21, 30, wire.HEAD_SIZE, wire.HEAD_SIZE + LARGE, -1])
def test_a_message_in_parts_that_was_altered_does_not_open(at: int) -> None:
    head, sealed = KEYS.seal("list", b"a" * LARGE, b"b" * LARGE)
    blob = bytearray(head + bytes(sealed))
    blob[at] ^= 1
    for arrived in (blob, bytes(blob)):
        with pytest.raises(WrongKey):
            KEYS.unseal("list", arrived)
        with pytest.raises(WrongKey):
            KEYS.unseal_into("list", arrived, memoryview(bytearray(2 * LARGE)))
    with pytest.raises(WrongKey):
        KEYS.unseal_into("list", head + bytes(sealed), memoryview(bytearray(2 * LARGE - 1)))


def test_a_block_and_a_pickle_are_told_apart_by_the_authenticated_head() -> None:
    for kind, block, ticket in ((0, False, False), (wire.BLOCK, True, False), (wire.BLOCK | wire.TICKET, True, True)):
        blob = KEYS.seal("list", b"x", kind=kind)
        assert (wire.is_block(blob), wire.is_ticket(blob)) == (block, ticket)
        KEYS.unseal("list", blob)
        with pytest.raises(WrongKey):
            KEYS.unseal("list", blob[:21] + bytes([blob[21] ^ 1]) + blob[22:])


# Read to where it lies


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("buffers")) as server:
        yield server


def test_large_and_small_replies_keep_their_places(server: Server) -> None:
    store = Store(server.url)
    sizes = [
        0,
        1,
        LARGE - 1,
        LARGE,
        LARGE + 1,
        (1 << 18) - 12,
        (1 << 18) - 11,
        (1 << 18) - 10,
        1 << 18,
        1 << 20,
        3_000_001,
    ]
    for size in sizes:
        store.call("SET", f"x{size}", bytes([size % 251]) * size)
    store.call("HSET", "hash", "field", b"h" * (1 << 20))
    for size in sizes:
        found = store.call(READ_LARGE, f"x{size}", 0, -1)
        assert found == bytes([size % 251]) * size, size
    asked: list[tuple[Any, ...]] = []
    for size in sizes:
        asked += [(READ_LARGE, f"x{size}", 0, -1), ("PING",), ("HGETALL", "hash"), (READ_LARGE, "missing", 0, -1)]
    replies = store.pipeline(asked)
    for size, (found, pong, fields, missing) in zip(sizes, zip(*[iter(replies)] * 4, strict=True), strict=True):
        assert found == bytes([size % 251]) * size
        assert (pong, missing) == (b"PONG", b"")
        assert fields == [b"field", b"h" * (1 << 20)]
    with pytest.raises(KeyLost):
        store.call(READ_LARGE, "hash", 0, -1)
    assert store.call("PING") == b"PONG"


def test_a_connection_that_breaks_in_a_large_reply_is_made_again(server: Server, run: Run, proxy: Proxy) -> None:
    key, data = run.key("x"), b"x" * 3_000_000
    run.store.call("SET", key, data, "PX", 60_000)
    for after in (0, 1, 7):
        proxy.lose_replies(1, after)
        assert run.store.call(READ_LARGE, key, 0, -1) == data
        assert proxy.lost == 1
