"""What the tests of ``producer map`` map over files; at module level, so that every place finds it."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any


def same(item: Any) -> Any:
    return item


def number(text: str) -> int:
    return int(text)


def length(text: str) -> int:
    return len(text)


def slow_first(text: str) -> int:
    if text.startswith("first"):
        time.sleep(1)
    return len(text)


def picky(text: str) -> int:
    if text == "13":
        raise ValueError("thirteen is refused")
    return int(text)


def deadly(text: str) -> int:
    if text == "13":
        os.kill(os.getpid(), signal.SIGKILL)
    return int(text)


def leaving(text: str) -> int:
    if text == "13":
        sys.exit(3)
    return int(text)


def endless(text: str) -> int:
    if text == "13":
        while True:
            try:
                time.sleep(60)
            except Exception:  # noqa: BLE001 - the limit is not one
                continue
    return int(text)


def deaf(text: str) -> int:
    """Heeds no exception at all on the thirteenth item."""
    while text == "13":
        try:
            time.sleep(60)
        except BaseException:  # noqa: BLE001
            continue
    return int(text)


def not_json(text: str) -> Any:
    strange: dict[str, Any] = {"13": {1, 2}, "14": float("nan"), "15": same, "16": "\ud800"}
    return strange.get(text, text)


def chatty(text: str) -> str:
    print(f"saw {text}")
    return text


def ledger(line: str) -> str:
    """Write down that the item was begun, in a file that outlives us; then take a while."""
    path, _, item = line.partition(" ")
    with open(path, "a") as file:
        file.write(f"{item}\n")
    time.sleep(0.01)
    return item


def flaky(line: str) -> int:
    """Fail the first two times."""
    path, _, item = line.partition(" ")
    with open(path, "a") as file:
        file.write(f"{item}\n")
    tries = Path(path).read_text().split().count(item)
    if tries < 3:
        raise ConnectionError("not now")
    return tries
