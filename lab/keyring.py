"""The keys of a fleet: one that seals, and while it is being exchanged another one that opens as well."""

from __future__ import annotations

import hashlib
import hmac
import os
from contextlib import suppress
from pathlib import Path

from lab.errors import BadSettings

ID_SIZE = 4
MIN_KEY = 16
MOST_KEYS = 2


def key_id(authkey: bytes) -> bytes:
    """Four bytes that tell two keys apart without giving either away; in hex, the fingerprint that reports show."""
    return hmac.digest(authkey, b"crosshost-2 fingerprint", hashlib.sha256)[:ID_SIZE]


class Keyring:
    """The keys that this side of the fleet holds.

    A file is looked at again when somebody comes who was not known, and read again if it was changed. So a key is exchanged
    without starting anything anew.

    Args:
        first: What seals.
        old: What opens as well; empty outside of an exchange of keys.
        path: The file they were read from; empty if they were not.
    """

    def __init__(self, first: bytes, old: bytes = b"", path: str = "") -> None:
        # Excluded: a file that was changed after the keys were read from it and before this. It is read once more.
        self._path, self._read_at = path, tuple[int, ...]()
        self._take(first, old)

    def _take(self, *keys: bytes) -> None:
        self._keys = {key_id(key): key for key in reversed(keys) if key}
        self.first = key_id(keys[0])

    def refresh(self) -> None:
        """Read the file again, if it was changed. One that cannot be used now changes nothing."""
        changed = _changed_at(self._path)
        if changed is not None and changed != self._read_at:
            with suppress(BadSettings):
                self._take(*read_keys("the key file", self._path))
                self._read_at = changed

    def get(self, wanted: bytes) -> bytes | None:
        """The key with this id, None if it is not (or no longer) held."""
        self.refresh()
        return self._keys.get(wanted)

    def fingerprints(self) -> str:
        """The fingerprints of all keys, that of the one that seals first."""
        self.refresh()
        return " ".join(sorted((known.hex() for known in self._keys), key=lambda known: known != self.first.hex()))


def read_keys(name: str, path: str) -> tuple[bytes, ...]:
    """The keys in a file: one a line, the one that seals first.

    Raises:
        BadSettings: It cannot be read, or has none, or too many, or a short one.
    """
    try:
        keys = tuple(Path(path).read_bytes().split())
    except OSError as exc:
        raise BadSettings(f"{name} is {path!r}, which is not a readable file ({exc.strerror}).", "Correct it.") from exc
    if not 1 <= len(keys) <= MOST_KEYS:
        raise BadSettings(
            f"{name} is {path!r}, a file with {len(keys)} keys in it; it needs one.",
            "While keys are exchanged it has two, each on its own line, and the first one seals (docs/security.md).",
        )
    for key in keys:
        check_length(name, key)
    return keys


def check_length(name: str, key: bytes) -> None:
    """Refuse a short key.

    Raises:
        BadSettings: It is short.
    """
    if len(key) < MIN_KEY:
        raise BadSettings(f"The key in {name} has {len(key)} bytes; it needs at least {MIN_KEY}.", "Make a longer one.")


def _changed_at(path: str) -> tuple[int, ...] | None:
    if not path:
        return None
    try:
        status = os.stat(path)
    except OSError:
        return None  # it is being exchanged
    return status.st_mtime_ns, status.st_ino, status.st_size
