"""What joblib's calls of the tests run; without scikit-learn, which takes seconds to import."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from tests.cluster import limit_targets


def square(n: int) -> int:
    return n * n


def refuse_seven(n: int) -> int:
    if n == 7:
        raise LookupError("seven is refused")  # this comment is in the traceback
    return n


def mark_then_sleep(directory: str, n: int, seconds: float) -> int:
    """Says that it has begun, and that it has ended."""
    (Path(directory) / f"begun-{n}").touch()
    time.sleep(seconds)
    (Path(directory) / f"ended-{n}").touch()
    return n


def inner(n: int) -> tuple[list[int], str]:
    """A ``Parallel`` in a call, and the backend that it had."""
    from joblib import Parallel, delayed, parallel

    backend = type(parallel.get_active_backend()[0]).__name__
    return Parallel(n_jobs=2)(delayed(square)(i) for i in range(n)), backend


def total(array: Any, n: int) -> tuple[str, float]:
    """The host, and what depends on all of an array."""
    return os.environ.get("CROSSHOST_HOST", ""), float(array.sum()) + n


def write(array: Any, n: int) -> float:
    array[0] = n
    return float(array.sum())


def total_at_the_second_attempt(array: Any, mark: str) -> float:
    if not os.path.exists(mark):
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return float(array.sum())


def given_value() -> int | None:
    """What the initializer was given, if there was one."""
    return int(limit_targets.given[0].value) if limit_targets.given else None


def threads_of_libraries(_: int) -> tuple[str, list[int]]:
    """What the libraries of this process are told about threads, and what they do."""
    import numpy as np
    from threadpoolctl import threadpool_info

    np.ones((2, 2)) @ np.ones((2, 2))
    return os.environ["OMP_NUM_THREADS"], [pool["num_threads"] for pool in threadpool_info()]
