"""What the processes of the tests across hosts run, and values of many types to send through them."""

from __future__ import annotations

import array
import collections
import datetime
import decimal
import enum
import fractions
import os
import pathlib
import re
import sys
import time
import uuid
import zoneinfo
from dataclasses import dataclass, field
from typing import Any, NamedTuple

TIMEOUT = 30.0


class Pair(NamedTuple):
    first: int
    second: str


Plain = collections.namedtuple("Plain", "x y")


@dataclass(frozen=True)
class Frozen:
    number: int
    rest: tuple[Any, ...] = ()


@dataclass
class Slotted:
    __slots__ = ("name",)
    name: str


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Text(str):
    __slots__ = ()


@dataclass
class Tree:
    value: Any
    children: list[Tree] = field(default_factory=list)


VALUES: list[Any] = [
    None, ..., NotImplemented, True, False, 0, 1, -1, 2**100, 0.1, -0.0, float("inf"), 1e-320, 1j, complex(1, -0.0),
    "", "a\0\n", "äß€\U0001f40d", "\udc80", b"", b"\0\xff\r\n$1", bytearray(b"\0x"), (), (1,), (True, 1, 1.0), [], [[]],
    {}, {1: "int", "1": "str", None: (), (1, 2): [3]}, set(), {1, "a", None}, frozenset(), frozenset({frozenset({1})}),
    Pair(1, "b"), Plain(1, Plain(2, 3)), Frozen(1, (Frozen(2),)), Slotted("s"), Tree(1, [Tree(2), Tree("3", [Tree(None)])]),
    Colour.RED, Level.LOW, Access.READ | Access.WRITE, Text("a subclass"),
    datetime.datetime(2024, 2, 29, 23, 59, 59, 999999), datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC),
    datetime.datetime(2024, 7, 1, tzinfo=zoneinfo.ZoneInfo("UTC")), datetime.date.min, datetime.time(1, 2, fold=1),
    datetime.timedelta(microseconds=-1), decimal.Decimal("1.10"), decimal.Decimal("-0E+3"), fractions.Fraction(1, 3),
    pathlib.Path("a/b"), pathlib.PurePosixPath("/x"), pathlib.PureWindowsPath("C:/x"), uuid.UUID(int=7), range(1, 9, 2),
    collections.OrderedDict(b=1, a=2), collections.defaultdict(list, k=[1]), collections.deque([1, 2], maxlen=3),
    collections.Counter("aab"), array.array("d", [0.5]), re.compile("a+", re.IGNORECASE), int, Pair, len, os.path.join,
    ValueError("a", 1), KeyError(Pair(1, "b")), {"deep": [({"set": {(1, b"2")}}, Colour.RED, [None, ...])]},
]  # fmt: skip


def portrait(value: Any) -> Any:
    """A value as text in which every type shows: 1, True and 1.0 are equal, their portraits are not."""
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if isinstance(value, dict):
        return kind, [(portrait(key), portrait(item)) for key, item in value.items()]
    if isinstance(value, (set, frozenset)):
        return kind, sorted(map(portrait, value), key=repr)
    if isinstance(value, (tuple, list, collections.deque)):
        return kind, [portrait(item) for item in value]
    if isinstance(value, BaseException):
        return kind, portrait(value.args)
    return kind, repr(value)


def same(value: Any) -> Any:
    return value


def send_back(values: Any, reply: Any) -> None:
    """What came as an argument, through a queue."""
    for value in values:
        reply.put(value)


def relay(source: Any, target: Any, count: int) -> None:
    for _ in range(count):
        target.put(source.get(timeout=TIMEOUT))


def echo(conn: Any, count: int) -> None:
    for _ in range(count):
        if not conn.poll(TIMEOUT):
            sys.exit(9)
        conn.send(conn.recv())


def contend(value: Any, inside: Any, lock: Any, chosen: Any, start: Any, reply: Any, times: int) -> None:
    """Read, wait a moment, write back what was read plus one; count how often somebody else was inside meanwhile."""
    if not chosen.wait(TIMEOUT):
        sys.exit(9)
    start.wait(TIMEOUT)
    met = 0
    for _ in range(times):
        with lock:
            inside.add(1)
            seen = value.value
            time.sleep(0.002)  # the window, opened on purpose
            met += inside.value > 1
            value.value = seen + 1
            inside.add(-1)
    reply.put((os.environ["CROSSHOST_HOST"], met))


def count_and_wait(runs: Any, go: Any) -> None:
    runs.add(1)
    if not go.wait(TIMEOUT):
        sys.exit(9)


def count(runs: Any) -> None:
    runs.add(1)
