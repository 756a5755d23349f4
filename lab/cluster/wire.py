"""Values to signed bytes and back.

A pickle can execute code when it is loaded, so a payload that anyone could have written must never reach the unpickler.
Each one therefore starts with an HMAC-SHA256 (RFC 2104) under the fleet's authkey, taken over the payload and over the
*purpose*: the Redis key or the process that the payload is for. A blob that was altered, or signed with another key, or
copied from one key to another, does not verify and is refused unread. multiprocessing protects its own sockets in the
same way (``multiprocessing.connection.deliver_challenge``).
"""

from __future__ import annotations

import hmac
from functools import lru_cache
from typing import Any

from lab.errors import WrongKey

MAC_SIZE = 32
_FORMAT = b"crosshost-1\0"


@lru_cache(maxsize=512)
def _keyed(authkey: bytes, purpose: str) -> hmac.HMAC:
    # absorbing key and purpose once and copying is half the price of a fresh HMAC per message
    return hmac.new(authkey, _FORMAT + purpose.encode() + b"\0", "sha256")


def sign(authkey: bytes, purpose: str, payload: Any) -> bytes:
    """The 32-byte signature of a payload (any bytes-like object) for one purpose."""
    mac = _keyed(authkey, purpose).copy()
    mac.update(payload)
    signature: bytes = mac.digest()
    return signature


def seal(authkey: bytes, purpose: str, payload: Any) -> bytes:
    """Signature and payload in one blob."""
    return b"".join((sign(authkey, purpose, payload), payload))


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


def fingerprint(authkey: bytes) -> str:
    """Eight hex digits that tell two keys apart without giving either away."""
    return sign(authkey, "fingerprint", b"").hex()[:8]
