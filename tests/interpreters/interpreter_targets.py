"""What children of the tests run."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import Any

from tests.cluster.contract_targets import TIMEOUT

seen: list[str] = []


def count(value: Any, token: Any, times: int) -> None:
    """Add, so that an addition is lost if two are in it."""
    for _ in range(times):
        with token:
            number = value.value
            time.sleep(0)
            value.value = number + 1


def remember(word: str, reply: Any) -> None:
    """Add to a list of this module, and tell what is in it, and where this is."""
    seen.append(word)
    reply.put((os.getpid(), threading.get_native_id(), list(seen)))


def hold_its_lock(go: Any, taken: Any) -> None:
    """Compute for a while without once letting go of the interpreter's lock; how many seconds."""
    while not go.value:
        time.sleep(0.001)
    began = time.perf_counter()
    sum(range(50_000_000))
    taken.value = time.perf_counter() - began


def refuse_daemon(reply: Any) -> None:
    """What becomes of a thread that is a daemon."""
    try:
        threading.Thread(target=seen.clear, daemon=True).start()
    except RuntimeError as exc:
        reply.put(str(exc))


def raise_error() -> None:
    """End badly."""
    raise ValueError("said by the child")


def fill(queue: Any, size: int) -> None:
    """Put more than a pipe takes, and end at once."""
    queue.put(b"x" * size)


def stay(ready: Any) -> None:
    """Never end."""
    ready.put(None)
    threading.Event().wait()


def import_module(name: str) -> None:
    """Import something."""
    __import__(name)
    sys.modules[name]


def start_another(ctx: Any, reply: Any) -> None:
    """Have a child of one's own, and wait for it."""
    child = ctx.Process(target=remember, args=("grandchild", reply))
    child.start()
    child.join(TIMEOUT)
    reply.put(child.exitcode)


def take(*_shared: Any) -> None:
    """Do nothing with what came."""


def where(reply: Any) -> None:
    """In which directory this is."""
    reply.put(os.getcwd())


def ask_for(ctx: Any, what: str, reply: Any) -> None:
    """What becomes of asking for something in a child."""
    try:
        getattr(ctx, what)(*[b"data"] * (what == "share"))
    except NotImplementedError as exc:
        reply.put(type(exc).__name__)
    else:
        reply.put("it is there")


def close_stdin() -> None:
    """Close it, as some libraries do."""
    sys.stdin.close()
