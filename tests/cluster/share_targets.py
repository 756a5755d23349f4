"""What processes of the tests of ``ctx.share`` run."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import numpy as np

from lab.cluster import share
from lab.evidence import Who

TIMEOUT = 30.0
KEPT: list[Any] = []


def total(shared: Any) -> int:
    """The sum of a shared array."""
    return int(shared.value.sum())


def total_of(shared: Any, start: int) -> int:
    """The same, from an index on."""
    return int(shared.value[start:].sum())


def keep(shared: Any) -> None:
    """As an initializer: keep it, for ``total_of_kept``."""
    KEPT[:] = [shared]


def total_of_kept(_: int) -> int:
    return total(KEPT[0])


def tell(reply: Any, shared: Any) -> None:
    """What a process finds in it."""
    reply.put(total(shared))


def pass_on(source: Any, reply: Any) -> None:
    """What it gets, it sends on, without having looked at it."""
    reply.put(source.get(timeout=TIMEOUT))


def look(shared: Any) -> dict[str, Any]:
    """What a process can do with a shared array, and where that lies."""
    array = shared.value["array"]
    base: Any = array
    while getattr(base, "base", None) is not None:
        base = base.base
    return {
        "equal": bool((array == np.arange(len(array))).all()),
        "writeable": array.flags.writeable,
        "memory": type(getattr(base, "obj", base)).__name__,
        "aligned": array.ctypes.data % 64 == 0,
        "others": (shared.value["words"], bytes(shared.value["view"]), shared.value["view"].readonly),
        "again": shared.value is shared.value,
    }


def refuses_writing(shared: Any) -> str:
    """The error that somebody meets who writes to it."""
    try:
        shared.value["array"][0] = 1
    except ValueError as exc:
        return str(exc)
    return "it was written to"


def make(ctx_make: Any, reply: Any) -> None:
    """Share something, and end."""
    reply.put(ctx_make(np.ones(1000, dtype=np.int64)))


def share_on_cluster(obj: Any) -> Any:
    from lab.cluster.context import default_context

    return default_context().share(obj)


def share_between_processes(obj: Any) -> Any:
    from lab import sharedfile

    return sharedfile.share(obj)


def read_when_told(shared: Any, commands: Any, reply: Any) -> None:
    """Read it ("read"), or begin to and never come to the end ("stall"); None ends it."""
    module: Any = share
    real = module.fetch

    def stalled(run: Any, name: str, memory: Any, tell: Any) -> None:
        real(run, name, memory[: share.PIECE], tell)
        reply.put(("stalled", os.getpid()))
        threading.Event().wait(TIMEOUT)

    while (command := commands.get(timeout=TIMEOUT)) is not None:
        module.fetch = stalled if command == "stall" else real
        reply.put(("total", total(shared)))


def total_bytes(shared: Any) -> int:
    """The bytes of the second of two things in it."""
    return int(shared.value[1].nbytes)


def back(shared: Any) -> Any:
    """What it is, as a value that can be sent."""
    value = shared.value
    return value.tobytes() if isinstance(value, memoryview) else value


def here(_: int) -> Who:
    time.sleep(0.01)
    return Who.here()


def total_and_host(shared: Any) -> tuple[str, int]:
    time.sleep(0.01)
    return Who.here().host, total(shared)
