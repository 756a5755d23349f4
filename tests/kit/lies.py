"""Messages that lie about themselves, for the tests of what must not end a worker."""

from __future__ import annotations

import bz2
import json
import lzma
import random
import zlib
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from onloan import check, deadletters
from tests.kit.celery_fixtures import good_message

NUMBERS = [-1, 1e400, -1e400, float("nan"), 1 << 70, 10**400, True, 1.5]
TEXTS = ["", "x", "\x1b[2J", "a\nb", "\ud800", "x" * 5_000, "\u202e"]
OTHERS = [[], {}, ["x", "y"], {"x": "y"}, [[[]]], {"__type__": "bytes", "__value__": "x"}, False]
EVERY = [*NUMBERS, *TEXTS, *OTHERS]
SIGNATURE: dict[str, Any] = {
    "task": "work",
    "args": [9],
    "kwargs": {},
    "options": {},
    "subtask_type": None,
    "immutable": True,
}


def call(headers: Any = None, properties: Any = None, body: Any = None, **top: Any) -> dict[str, Any]:
    message = good_message()
    message["headers"].update(headers or {})
    message["properties"].update(properties or {})
    if body is not None:
        message["body"] = b64encode(json.dumps(body).encode()).decode()
    return {**message, **{name.replace("_", "-"): value for name, value in top.items()}}


def embed(**fields: Any) -> list[Any]:
    return [[1, 0], {}, fields]


TABLE: dict[str, dict[str, Any]] = {
    "time limits are texts": call({"timelimit": ["x", "y"]}),
    "a time limit is a text": call({"timelimit": [None, "y"]}),
    "a time limit is infinite": call({"timelimit": [float("inf"), None]}),
    "a time limit is no number": call({"timelimit": [float("nan"), None]}),
    "a time limit is negative": call({"timelimit": [-1, None]}),
    "a time limit is a century": call({"timelimit": [3_155_760_000, None]}),
    "a time limit is larger than a float": call({"timelimit": [10**400, None]}),
    "one time limit": call({"timelimit": [1]}),
    "three time limits": call({"timelimit": [1, 2, 3]}),
    "time limits by name": call({"timelimit": {"0": 1, "1": 2}}),
    "time limits are true": call({"timelimit": [True, True]}),
    "an ETA before time": call({"eta": "0001-01-01T00:00:00+14:00"}),
    "an ETA after time": call({"eta": "9999-12-31T23:59:59-14:00"}),
    "an ETA that is a number": call({"eta": 5}),
    "an expiry that is a list": call({"expires": [1]}),
    "an expiry that is a decoded time": call({"expires": {"__type__": "datetime", "__value__": "2999-01-01T00:00:00"}}),
    "retries below zero": call({"retries": -1}),
    "retries without end": call({"retries": 10**300}),
    "retries are a text": call({"retries": "1"}),
    "no id": call({"id": None}),
    "an id that is a list": call({"id": ["x"]}),
    "an id that steers the terminal": call({"id": "\x1b[2Jx"}),
    "half a surrogate pair": call({"task": "\ud800"}),
    "a task that is an object": call({"task": {"a": 1}}),
    "a shadow that is a list": call({"shadow": [1]}),
    "a group that is an object": call({"group": {"a": 1}}),
    "a place in a group that is a text": call({"group": "g", "group_index": "x"}),
    "a link in the headers": call({"callbacks": [SIGNATURE]}, body=embed()),
    "a chord in the headers": call({"chord": SIGNATURE}, body=embed()),
    "a header in place of a method": call({"update": "x"}),
    "a header in place of an attribute": call({"_protected": 5}),
    "stamps are a text": call({"stamps": "x", "stamped_headers": ["x"]}),
    "stamps have names that are no texts": call({"stamped_headers": [[1]], "stamps": {}}),
    "links are a text": call(body=embed(callbacks="x")),
    "a link is a number": call(body=embed(callbacks=[1])),
    "a link to nothing": call(body=embed(errbacks=[{"task": None}])),
    "a link of a link is a text": call(body=embed(callbacks=[{**SIGNATURE, "options": {"link": ["x"]}}])),
    "a chord is a list": call(body=embed(chord=[1])),
    "a chain is an object": call(body=embed(chain={"a": 1})),
    "something else after it": call(body=embed(hostname="x")),
    "arguments are a text": call(body=["ab", {}, {}]),
    "names of arguments are a list": call(body=[[1, 0], [], {}]),
    "two parts": call(body=[[1, 0], {}]),
    "four parts": call(body=[[1, 0], {}, {}, {}]),
    "an address for the answer that is a list": call(properties={"reply_to": ["x"]}),
    "an address for the answer that is an object": call(properties={"correlation_id": {"x": 1}}),
    "a place of delivery that is a list": call(properties={"delivery_info": [1]}),
    "a consumer that is a list": call(properties={"delivery_info": {"consumer_tag": [1]}}),
    "a priority that is a text": call(properties={"priority": "x"}),
    "an unknown encoding of the body": call(properties={"body_encoding": "x"}),
    "an encoding that decompresses": call(content_type="application/data", content_encoding="zlib"),
    "an encoding that is a list": call(content_encoding=["utf-8"]),
    "a type that is a list": call(content_type=["application/json"]),
    "a body that is a list": call() | {"body": [[1, 0], {}, {}]},
    "a body that is very deep": call(body=json.loads("[[" + "[" * 150 + "]" * 150 + "], {}, {}]")),
    "headers that are very deep": call({"x": json.loads("[" * 150 + "]" * 150)}),
    "a compression that is unknown": call({"compression": "x"}),
    "a compression that is a list": call({"compression": ["zlib"]}),
    "no compression at all": call({"compression": "zlib"}),
    "a bomb": call({"compression": "zlib"}) | {"body": b64encode(zlib.compress(bytes(50 << 20))).decode()},
    "a bomb of bzip2": call({"compression": "bzip2"}) | {"body": b64encode(bz2.compress(bytes(50 << 20))).decode()},
    "a bomb of LZMA": call({"compression": "lzma"}) | {"body": b64encode(lzma.compress(bytes(50 << 20))).decode()},
    "protocol 1 with time limits": call(body={"task": "work", "id": "x", "args": [1], "timelimit": ["x", "y"]})
    | {"headers": {}},
    "protocol 1, amended by headers": call(body={"task": "work", "id": "x", "args": [1], "kwargs": {}})
    | {"headers": {"timelimit": ["x", "y"]}},
    "protocol 1 with a link": call(body={"task": "work", "id": "x", "args": [1], "kwargs": {}, "callbacks": "x"})
    | {"headers": {}},
    "protocol 1 without an id": call(body={"task": "work", "args": [1], "kwargs": {}}) | {"headers": {}},
}


def lies(seed: int, count: int) -> Iterator[dict[str, Any]]:
    """Messages of which one to three fields that Celery reads have a value of any kind."""
    choice = random.Random(seed)
    places = [("headers", name) for name in check.FIELDS] + [("properties", name) for name in check.PROPERTIES]
    places += [("embed", name) for name in ("callbacks", "errbacks", "chain", "chord")] + [("body", "all")]
    for _ in range(count):
        parts: dict[str, dict[str, Any]] = {"headers": {}, "properties": {}, "embed": {}, "body": {}}
        for where, name in choice.sample(places, choice.randint(1, 3)):
            parts[where][name] = choice.choice([*EVERY, [choice.choice(EVERY), choice.choice(EVERY)]])
        body = parts["body"].get("all", [[1, 0], {}, parts["embed"]])
        yield call(parts["headers"], parts["properties"], body)


def examine(raw: str, links: bool = True) -> None:
    """What the transport does with a message, without a broker.

    Raises:
        Refused: It is one of those that no worker is given.
    """
    message = json.loads(raw)
    check.depth(message, raw.count("[") + raw.count("{"))
    check.envelope(message)
    data = b64decode(message["body"])
    if method := message["headers"].get("compression"):
        data = check.inflate(data, method, 1 << 20)
    body = json.loads(data)
    check.depth(body, data.count(b"[") + data.count(b"{"))
    check.body(body, message["headers"], links)


def refused(told: Iterable[str], links: bool) -> Counter[str]:
    """Those of some messages that must be dead letters, as their letters quote them."""
    found: Counter[str] = Counter()
    for raw in told:
        try:
            examine(raw, links)
        except check.Refused:
            found[raw[: deadletters.HEAD]] += 1
    return found
