"""Values to signed bytes and back.

A pickle can execute code when it is loaded, so a payload that anyone could have written must never reach the unpickler.
Each one therefore starts with an HMAC-SHA256 (RFC 2104) under the fleet's authkey, taken over the payload and over the
*purpose*: the Redis key or the process that the payload is for. A blob that was altered, or signed with another key, or
copied from one key to another, does not verify and is refused unread. multiprocessing protects its own sockets in the
same way (``multiprocessing.connection.deliver_challenge``).
"""

from __future__ import annotations

import hmac
import secrets
from functools import lru_cache
from typing import Any

from lab.errors import WrongKey

MAC_SIZE = 32
NONCE_SIZE = 16
LARGE = 1 << 16
"""Bytes from which a copy costs more than a system call."""
_FORMAT = b"crosshost-1\0"


@lru_cache(maxsize=512)
def _begun(authkey: bytes, purpose: str) -> hmac.HMAC:
    return hmac.new(authkey, _FORMAT + purpose.encode() + b"\0", "sha256")


def sign(authkey: bytes, purpose: str, *parts: Any) -> bytes:
    """The 32-byte signature, for one purpose, of a payload given in one or more bytes-like parts."""
    mac = _begun(authkey, purpose).copy()  # to begin costs as much as to sign a small payload
    for part in parts:
        mac.update(part)
    return mac.digest()


def seal(authkey: bytes, purpose: str, *parts: Any) -> Any:
    """Signature and payload in one blob, bytes; as a list of its parts, which ``Store`` sends uncopied, if it is large."""
    blob = [sign(authkey, purpose, *parts), *parts]
    return b"".join(blob) if sum(map(len, parts)) < LARGE else blob


def unseal(authkey: bytes, purpose: str, blob: bytes) -> memoryview:
    """The payload of a sealed blob, verified.

    Raises:
        WrongKey: The blob was not sealed for this purpose with this key.
    """
    view = memoryview(blob)
    payload = view[MAC_SIZE:]
    if not hmac.compare_digest(view[:MAC_SIZE], sign(authkey, purpose, payload)):
        raise WrongKey(
            f"A payload of {len(blob)} bytes for {purpose} carries no valid signature; it was refused unread.",
            "It was altered on the way, or written by someone who does not hold the fleet's authkey.",
        )
    return payload


def conceal(authkey: bytes, purpose: str, secret: bytes) -> bytes:
    """A short secret, readable only with the fleet's key; it travels inside of what ``seal`` signs.

    The secret is XORed with a keystream: HMAC-SHA256 over a fresh nonce and a counter. HMAC is a pseudorandom function
    (Bellare 2006), and one in counter mode is a cipher (NIST SP 800-38A, 6.5).
    """
    nonce = secrets.token_bytes(NONCE_SIZE)
    return nonce + _xor(secret, authkey, purpose, nonce)


def reveal(authkey: bytes, purpose: str, concealed: bytes) -> bytes:
    """The secret again."""
    return _xor(concealed[NONCE_SIZE:], authkey, purpose, concealed[:NONCE_SIZE])


def _xor(data: bytes, authkey: bytes, purpose: str, nonce: bytes) -> bytes:
    blocks = range(0, len(data), MAC_SIZE)
    stream = b"".join(sign(authkey, f"secret {purpose}", nonce, b"%d" % block) for block in blocks)
    return bytes(a ^ b for a, b in zip(data, stream, strict=False))


def fingerprint(authkey: bytes) -> str:
    """Eight hex digits that tell two keys apart without giving either away."""
    return sign(authkey, "fingerprint", b"").hex()[:8]
