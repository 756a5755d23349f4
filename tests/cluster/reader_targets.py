"""What the children of ``test_reader`` run."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any


def put_numbers(items: Any, many: int) -> None:
    for number in range(many):
        items.put(number)


def get_until_some_are_held(items: Any, least: int) -> int:
    """The last number got, when it was at least this one and more are held."""
    while (number := items.get()) < least or not held(items):
        pass
    return int(number)


def held(items: Any) -> int:
    """How many messages this process holds of a queue."""
    return len(items._reader.reader)


def get_and_be_killed(items: Any, least: int, note: Path) -> None:
    """Tell nobody on the fleet what was got."""
    note.write_text(str(get_until_some_are_held(items, least)))
    os.kill(os.getpid(), signal.SIGKILL)


def get_tell_and_wait(items: Any, least: int, last: Any) -> None:
    last.value = get_until_some_are_held(items, least)
    time.sleep(60)


def get_and_end(items: Any, least: int, last: Any) -> None:
    last.value = get_until_some_are_held(items, least)


def get_tell_and_do(items: Any, least: int, last: Any, then: Any) -> None:
    """Get more without a word between, then tell, then do something that ends this process."""
    get_until_some_are_held(items, least)
    last.value = items.get() if held(items) else get_until_some_are_held(items, least)
    then()


def get_all(items: Any, got: Any, pauses: list[float]) -> None:
    """Get until there is None, now and then slowly; then tell what."""
    numbers: list[int] = []
    while (number := items.get()) is not None:
        numbers.append(number)
        time.sleep(pauses[len(numbers) % len(pauses)])
    got.put(numbers)


def get_some(items: Any, many: int, got: Any) -> None:
    got.put([items.get() for _ in range(many)])


def wait_and_get(go: Any, items: Any, many: int, got: Any) -> None:
    go.wait()
    get_some(items, many, got)


def tell_size(items: Any, told: Any) -> None:
    told.send((items.qsize(), items.empty()))


def send_numbers(end: Any, many: int) -> None:
    for number in range(many):
        end.send(number)
    end.close()


def receive_some(end: Any, many: int, got: Any) -> None:
    got.put([end.recv() for _ in range(many)])
