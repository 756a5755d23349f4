"""Values to encrypted bytes and back. ``docs/security.md`` is the specification.

A pickle can execute code when it is loaded, so a payload that anyone could have written must never reach the unpickler; and
what processes say to each other is nobody else's business. Each message is therefore encrypted and authenticated
(AES-256-GCM, NIST SP 800-38D), together with its *purpose*, the Redis key or process that it is for. One that was altered, or
sealed under another key, or copied from one key to another, does not open and is refused unread.

A message is a head of 33 bytes, a clear part, which Redis's scripts may read, and the ciphertext with its tag::

    0  version   1 byte
    1  key id    4 bytes     which of the fleet's keys
    5  epoch     16 bytes    random, drawn by each process that seals, and by each one that it forks
    21 kind      2 bytes     PLAIN, or TICKET for a message that lies elsewhere (lab.store.claimcheck); and BLOCK for
                             one that is no pickle, where that is not to be seen (lab.buffers); MANY for a call that is
                             many (lab.cluster.pool)
    23 counter   8 bytes     of the messages of this epoch
    31 size      2 bytes     of the clear part

The key of an epoch is derived from the fleet's by HKDF-SHA256 (RFC 5869). The nonce is the head's last 12 bytes. So a nonce
is used once under a key: the counter by one process alone, the epoch by nobody else.
"""

from __future__ import annotations

import itertools
import os
import struct
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import GCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from lab.errors import WrongKey
from lab.keyring import ID_SIZE, Keyring

VERSION = 2
PLAIN, TICKET, BLOCK, MANY = 0, 1, 1 << 8, 1 << 9
LARGE = 1 << 16
"""Bytes from which a copy costs more than a system call."""
_FRONT, _BACK = struct.Struct(">B4s16s"), struct.Struct(">HQH")
HEAD_SIZE = _FRONT.size + _BACK.size
KIND_AT = _FRONT.size + 1
"""Where the kind's lower byte is."""
SIZE_AT = HEAD_SIZE - 2
TAG_SIZE = 16
EPOCHS = 1024
"""Senders whose derived keys are kept."""

_Cipher = Callable[[bytes, Any, bytes], bytes]
_Sender = tuple[Any, bytes, _Cipher, Any, bytes]
"""Of which process, the front of the head, what encrypts, the counter, and the key."""

_process = object()


def _forked() -> None:
    global _process
    _process = object()


os.register_at_fork(after_in_child=_forked)


class Keys:
    """The keys of one run, or of another scope, as this process has them.

    Args:
        ring: The fleet's keys.
        scope: What the keys that are derived from those are for.
        follow: Seal with the key that the first message which was opened here was sealed with, as whoever sent it need not
            hold another. Otherwise, with the ring's first.
    """

    def __init__(self, ring: Keyring, scope: str, follow: bool = False) -> None:
        self._ring, self._scope = ring, scope.encode()
        self._follow, self._chosen = follow, b""
        self._openers: dict[bytes, AESGCM] = {}
        self._sender: _Sender = (None, b"", AESGCM(bytes(32)).encrypt, itertools.count(), b"")

    def seal(self, purpose: str, *parts: Any, kind: int = PLAIN, clear: bytes = b"") -> Any:
        """A message, bytes; as a list of its parts, which ``Store`` sends uncopied, if it is large.

        Args:
            purpose: What it is for; it opens for nothing else.
            parts: The payload, in bytes-like parts.
            kind: PLAIN or TICKET, and BLOCK or MANY.
            clear: What is authenticated but can be read by everybody.
        """
        sender = self._sender
        if sender[0] is not _process:  # excluded: a fork that goes on with the counter of its parent
            sender = self._begin()
        _, front, encrypt, counter, key = sender
        back = _BACK.pack(kind, next(counter), len(clear))
        head = front + back + clear
        if len(parts) > 1 and (size := sum(map(len, parts))) >= LARGE:
            return [head, _encrypt_parts(key, back, parts, size, head + purpose.encode())]
        payload = parts[0] if len(parts) == 1 else b"".join(parts)
        sealed = encrypt(back, payload, head + purpose.encode())
        return head + sealed if len(sealed) < LARGE else [head, sealed]

    def unseal(self, purpose: str, blob: bytes | bytearray) -> memoryview:
        """The payload of a message; memory that may be written to, if it is large.

        Raises:
            WrongKey: It was not sealed for this purpose with a key of this fleet.
        """
        opener = self._openers.get(bytes(blob[1 : _FRONT.size]))
        if opener is None or blob[0] != VERSION:
            return self._first_of(purpose, blob)
        return _open(opener, purpose, blob)

    def unseal_into(self, purpose: str, blob: bytes | bytearray, memory: memoryview) -> None:
        """Write the payload of a message, which has just as many bytes, to where it is to lie.

        Raises:
            WrongKey: It was not sealed for this purpose with a key of this fleet.
        """
        opener = self._openers.get(bytes(blob[1 : _FRONT.size])) if blob[:1] == bytes([VERSION]) else None
        if opener is None or len(blob) != HEAD_SIZE + len(memory) + TAG_SIZE:
            payload = self.unseal(purpose, blob)
            if len(payload) != len(memory):
                raise _refused(purpose, blob, f"it has {len(payload)} bytes, not {len(memory)}")
            memory[:] = payload
            return
        _open(opener, purpose, blob, memory)

    def _begin(self) -> _Sender:
        """Draw an epoch. Two threads may do it at once: then there are two."""
        chosen, epoch = self._chosen or self._ring.first, os.urandom(16)
        key = self._ring.get(chosen)
        if key is None:  # it was exchanged meanwhile
            chosen = self._ring.first
            key = self._ring.get(chosen)
        assert key is not None
        derived = self._derive(key, epoch)
        front, cipher = _FRONT.pack(VERSION, chosen, epoch), AESGCM(derived)
        sender = self._sender = (_process, front, cipher.encrypt, itertools.count(), derived)
        return sender

    def _derive(self, key: bytes, epoch: bytes) -> bytes:
        return HKDF(SHA256(), 32, salt=epoch, info=b"crosshost-2 " + self._scope).derive(key)

    def _first_of(self, purpose: str, blob: bytes | bytearray) -> memoryview:
        """Open the first message of a sender."""
        if len(blob) < HEAD_SIZE + TAG_SIZE:
            raise _refused(purpose, blob, "it is too short to be a message")
        version, key_name, epoch = _FRONT.unpack_from(blob)
        if version != VERSION:
            older = "that side is older" if version < VERSION else "this side is older"
            raise _refused(purpose, blob, f"its format is {version}, not {VERSION}: if it is genuine, {older}")
        key = self._ring.get(key_name)
        if key is None:
            held = self._ring.fingerprints()
            raise _refused(purpose, blob, f"it names the key {key_name.hex()}, and this side holds {held}")
        opener = AESGCM(self._derive(key, epoch))
        payload = _open(opener, purpose, blob)
        # Not before it opened. Excluded: forgeries that crowd out the senders that there are.
        while len(self._openers) >= EPOCHS:
            self._openers.pop(next(iter(self._openers)), None)
        self._openers[bytes(blob[1 : _FRONT.size])] = opener
        if self._follow and not self._chosen:
            self._chosen = key_name
            self._sender = (None, *self._sender[1:])
        return payload


class LastingKeys(Keys):
    """The keys of a scope that outlives them all: each message is sealed with the key that is the ring's first by then."""

    def seal(self, purpose: str, *parts: Any, kind: int = PLAIN, clear: bytes = b"") -> bytes:
        """A message, bytes (``Keys.seal``)."""
        self._ring.refresh()
        if self._sender[1][1 : 1 + ID_SIZE] != self._ring.first:
            self._sender = (None, *self._sender[1:])
        blob = super().seal(purpose, *parts, kind=kind, clear=clear)
        return blob if isinstance(blob, bytes) else b"".join(blob)


def _encrypt_parts(key: bytes, nonce: bytes, parts: Sequence[Any], size: int, known: bytes) -> bytearray:
    """What ``AESGCM.encrypt`` makes of the parts together, without putting them together first."""
    encryptor = Cipher(AES(key), GCM(nonce)).encryptor()
    encryptor.authenticate_additional_data(known)
    sealed, at = bytearray(size + TAG_SIZE), 0
    with memoryview(sealed) as memory:
        for part in parts:
            at += encryptor.update_into(part, memory[at:])
        encryptor.finalize()
        memory[at:] = encryptor.tag
    return sealed


def _open(opener: AESGCM, purpose: str, blob: bytes | bytearray, into: memoryview | None = None) -> memoryview:
    end = HEAD_SIZE + int.from_bytes(blob[SIZE_AT:HEAD_SIZE], "big")
    nonce, known = blob[_FRONT.size : HEAD_SIZE], blob[:end] + purpose.encode()
    try:
        if into is None and len(blob) < LARGE:
            return memoryview(opener.decrypt(nonce, blob[end:], known))
        sealed = memoryview(blob)[end:]
        if into is None:
            into = memoryview(bytearray(max(len(sealed) - TAG_SIZE, 0)))
        opener.decrypt_into(nonce, sealed, known, into)
        return into
    except (InvalidTag, ValueError):  # the latter of one that ends within its head
        raise _refused(purpose, blob, "it does not open: it was altered, or sealed for something else") from None


def _refused(purpose: str, blob: bytes | bytearray, why: str) -> WrongKey:
    return WrongKey(
        f"A payload of {len(blob)} bytes for {purpose} was refused unread: {why}.",
        "It was altered on the way, or written by someone who does not hold the fleet's authkey.",
    )


def is_ticket(message: bytes) -> bool:
    """Whether a message, which opened, is the ticket for another one."""
    return message[KIND_AT] == TICKET


def is_block(message: bytes) -> bool:
    """Whether a message, which opened, says that it is no pickle but a block."""
    return message[KIND_AT - 1] == 1


def clear_part(message: bytes) -> bytes:
    """What of a message, which opened, everybody can read."""
    return message[HEAD_SIZE : HEAD_SIZE + int.from_bytes(message[SIZE_AT:HEAD_SIZE], "big")]


class Once:
    """Remembers which messages were read, for one who is alone in reading a list: a message that comes again is a copy.

    A sender's messages come in about the order in which they were sealed, its threads aside. So one that was sealed before
    what is forgotten already is a copy too, and there is an end to what has to be remembered.
    """

    RECENT = 1024
    SENDERS = 4096

    def __init__(self) -> None:
        self._senders: dict[bytes, _Recent] = {}

    def check(self, purpose: str, blob: bytes) -> None:
        """Note a message that opened.

        Raises:
            WrongKey: It was noted before.
        """
        epoch, counter = blob[1 : _FRONT.size], blob[KIND_AT + 1 : SIZE_AT]
        recent = self._senders.get(epoch)
        if recent is None:
            while len(self._senders) >= self.SENDERS:
                self._senders.pop(next(iter(self._senders)), None)
            recent = self._senders.setdefault(epoch, _Recent())
        mine = object()
        # Excluded, as this is one step: two threads that read two copies at once.
        if counter <= recent.forgotten or recent.known.setdefault(counter, mine) is not mine:
            raise _refused(purpose, blob, "it came before, so this is a copy")
        recent.order.append(counter)
        if len(recent.order) > self.RECENT:
            last = recent.order.popleft()
            recent.forgotten = max(last, recent.forgotten)
            recent.known.pop(last, None)


class _Recent:
    """What came of one sender."""

    def __init__(self) -> None:
        self.order: deque[bytes] = deque()
        self.known: dict[bytes, object] = {}
        self.forgotten = b""
