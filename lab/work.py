"""Work to measure with: nothing, computing, handing back; at module level, so that every place finds it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from lab.concepts._shared import cores


def same(value: Any) -> Any:
    """Hand back."""
    return value


def burn(loops: int) -> int:
    """Compute in pure Python, which holds the GIL."""
    total = 0
    for i in range(loops):
        total += i * i % 7
    return total


def example(_item: Any) -> int:
    """Some 2 ms of computing, for when no function is given."""
    return burn(20_000)


def machine(_: Any = None) -> tuple[str, int]:
    """The machine under this process, by an id that two containers of one kernel share, and the cores it may use."""
    time.sleep(0.05)  # so that no worker answers for all
    boot = Path("/proc/sys/kernel/random/boot_id")
    return boot.read_text().strip() if boot.is_file() else os.uname().nodename, cores()
