"""What processes of the tests of large objects run."""

from __future__ import annotations

from typing import Any

import numpy as np

TIMEOUT = 30.0
OWN = np.zeros(50_000)


def writes(array: Any) -> tuple[Any, bool]:
    """An array with one more in its first place, and whether it could be written to at all."""
    possible = array.flags.writeable and array.flags.aligned
    array[0] += 1
    return array, possible


def same(value: Any) -> Any:
    return value


def own(number: int) -> Any:
    """An array that this worker keeps, and changes with each call."""
    OWN[:] = number
    return OWN


def echo(source: Any, reply: Any) -> None:
    """What comes from a queue goes back by another, until None comes."""
    while (value := source.get()) is not None:
        reply.put(value)


def echo_on_pipe(conn: Any) -> None:
    while (value := conn.recv()) is not None:
        conn.send(value)


def fails_with(array: Any) -> None:
    raise ValueError(array)
