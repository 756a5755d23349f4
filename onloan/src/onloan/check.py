"""What a message must look like before anything else reads it.

Whoever can write to Redis can write a message, and Celery, kombu and billiard believe what it says: a time limit that is no
number ends a worker in its event loop, long after the message was taken, and then the next worker that is given it. So each
field that one of them reads is checked where the message is taken: its type, and its range. What does not pass becomes a
dead letter; no message can do more than not be run.

Fields of protocol 2 lie in the headers, those of protocol 1 (Celery 3, still accepted) in the body; the table is the same.
Headers that Celery does not read, and the arguments of a call, may be anything: they are the task's business.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from reprlib import Repr
from typing import Any

from celery.app.task import Context
from kombu.exceptions import DecodeError

DEPTH = 100
"""Lists and objects inside of each other, at most: what follows walks, copies and prints them by recursion."""

NAME = 1_024
"""Characters of a name or an id."""

SECONDS = 10 * 366 * 86_400
"""The longest time limit."""

YEARS = (1970, 9_000)
"""An ETA or an expiry lies between them; past their ends datetime's own arithmetic fails."""

COUNT = 1 << 31
CLOCK = 1 << 53

ENCODINGS = {None, "", "utf-8", "utf8", "us-ascii", "ascii", "latin-1", "iso-8859-1", "binary", "ascii-8bit"}
"""Of bodies. Python has codecs of this kind that decompress without a limit, or are no text ("zlib", "rot13")."""

_repr = Repr()
_repr.maxstring = _repr.maxother = 60


class Refused(DecodeError):
    """Why a message is not run; a ``DecodeError``, so Celery too knows what to do with it."""


def _name(value: Any) -> bool:
    return type(value) is str and 0 < len(value) <= NAME and value.isprintable()


def _label(value: Any) -> bool:
    return type(value) is str and len(value) <= NAME and value.isprintable()


def _text(value: Any) -> bool:
    return type(value) is str


def _bool(value: Any) -> bool:
    return type(value) is bool


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value < COUNT


def _seconds(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and 0 <= value <= SECONDS)  # NaN is not


def _limits(value: Any) -> bool:
    return type(value) in (list, tuple) and len(value) == 2 and all(map(_seconds, value))


def _packed(value: Any) -> bool:
    return value in ("", "base64") if type(value) is str else False


def _moment(value: Any) -> bool:
    if type(value) is not str or len(value) > 64:
        return False
    try:
        moment = datetime.fromisoformat(value)
        year = (moment if moment.tzinfo is None else moment.astimezone(UTC)).year
    except (ValueError, OverflowError):
        return False
    return YEARS[0] <= year <= YEARS[1]


def _object(value: Any) -> bool:
    return isinstance(value, dict) and {str}.issuperset(map(type, value))


def _labels(value: Any) -> bool:
    return type(value) in (list, tuple) and all(map(_name, value)) and RESERVED.isdisjoint(value)


Rule = tuple[Callable[[Any], bool], str]
NAMED: Rule = (_name, f"a printable text of 1 to {NAME:,} characters")
LABEL: Rule = (_label, f"a printable text of at most {NAME:,} characters")
TEXT: Rule = (_text, "a text")
PACKED: Rule = (_packed, "base64, or nothing")
FLAG: Rule = (_bool, "true or false")
COUNTED: Rule = (_count, f"a whole number from 0 to {COUNT - 1:,}")
LIMITS: Rule = (_limits, f"two numbers of seconds from 0 to {SECONDS:,}, or null")
MOMENT: Rule = (_moment, f"a time in ISO 8601 of the years {YEARS[0]} to {YEARS[1]}")
OBJECT: Rule = (_object, "an object")
LABELS: Rule = (_labels, "a list of printable names, none of them Celery's own")

FIELDS: dict[str, Rule] = {
    "task": NAMED,
    "id": NAMED,
    "root_id": LABEL,
    "parent_id": LABEL,
    "group": LABEL,
    "group_index": COUNTED,
    "retries": COUNTED,
    "timelimit": LIMITS,
    "eta": MOMENT,
    "expires": MOMENT,
    "shadow": LABEL,
    "lang": LABEL,
    "meth": LABEL,
    "origin": LABEL,
    "argsrepr": TEXT,
    "kwargsrepr": TEXT,
    "ignore_result": FLAG,
    "replaced_task_nesting": COUNTED,
    "stamped_headers": LABELS,
    "stamps": OBJECT,
    "groups": LABELS,
    "headers": OBJECT,
    "compression": LABEL,
    "utc": FLAG,
    "taskset": LABEL,
}
"""Of a call; null is as good as absent, but for ``task`` and ``id``."""

_OVERWRITTEN = {"args", "kwargs", "properties", "delivery_info", "hostname", "reply_to", "correlation_id"}
RESERVED = frozenset(vars(Context)) - FIELDS.keys() - _OVERWRITTEN
"""Headers that would take the place of what a worker works out: of the links that lie in the body, and are checked there, or
of the request's own attributes and methods. No stock producer sends them."""

PROPERTIES: dict[str, Rule] = {
    "reply_to": LABEL,
    "correlation_id": LABEL,
    "priority": COUNTED,
    "delivery_mode": COUNTED,
    "body_encoding": PACKED,
    "expiration": LABEL,
    "content_type": LABEL,
    "content_encoding": LABEL,
}

WHERE: dict[str, Rule] = {"exchange": LABEL, "routing_key": LABEL, "redelivered": FLAG, "priority": COUNTED}
"""Of ``properties.delivery_info``, which has nothing else."""


def envelope(message: Any) -> None:
    """Check all of a message but its body, which is still encoded.

    Args:
        message: What was decoded from JSON.

    Raises:
        Refused: It is no message; says which field, what it is, and what it should be.
    """
    _require(type(message) is dict, "the message", message, "an object")
    headers, properties = message.get("headers"), message.get("properties")
    if headers is not None:
        _require(_object(headers), "headers", headers, "an object")
        if "task" in headers:
            _headers(headers)
            _call(headers)
    _require(_object(properties), "properties", properties, "an object")
    _fields("properties", properties, PROPERTIES)
    where = properties.get("delivery_info")
    if where is not None:
        _require(_object(where), "properties.delivery_info", where, "an object")
        _fields("properties.delivery_info", where, WHERE)
        if unknown := set(where) - set(WHERE):
            raise Refused(f"properties.delivery_info has {min(unknown)!r}, which no sender has a use for")
    _require(type(message.get("body", "")) in (str, type(None)), "body", message.get("body"), "a text")
    content = message.get("content-type")
    _require(content is None or _label(content), "content-type", content, LABEL[1])
    encoding = message.get("content-encoding")
    _require(encoding is None or _label(encoding), "content-encoding", encoding, LABEL[1])
    _require((encoding or "").lower() in ENCODINGS, "content-encoding", encoding, "the name of an encoding of text")


def broadcast(message: Any) -> None:
    """Check what kombu reads of a message that was published to all, such as a command of Celery's remote control.

    Raises:
        Refused: It is none.
    """
    _require(type(message) is dict, "the message", message, "an object")
    for name in ("headers", "properties"):
        _require(_object(message.get(name)), name, message.get(name), "an object")
    headers, where = message["headers"], message["properties"].get("delivery_info") or {}
    _require("compression" not in headers, "headers.compression", headers.get("compression"), "for a broadcast")
    clock = headers.get("clock") or 0
    _require(
        type(clock) is int and 0 <= clock < CLOCK, "headers.clock", clock, f"a whole number from 0 to {CLOCK - 1:,}"
    )
    _require(_object(where) and all(map(_label, where.values())), "delivery_info", where, "an object of texts")


def body(value: Any, headers: Mapping[str, Any], links: bool) -> None:
    """Check the body of a message that has passed ``envelope``, decoded.

    Args:
        value: The body.
        headers: Those of its message.
        links: Whether it may name what is to be called after it.

    Raises:
        Refused: Says what is wrong.
    """
    if isinstance(value, dict) and ("args" if "task" in headers else "task") in value:
        # protocol 1, which headers may amend; told apart in the way that Celery does it
        _headers(headers)
        _fields("body", value, FIELDS)
        _call({**value, **headers})
        args, kwargs, embed = value.get("args") or [], value.get("kwargs") or {}, value
    elif "task" in headers:
        _require(type(value) in (list, tuple) and len(value) == 3, "body", value, "[args, kwargs, embed]")
        args, kwargs, embed = value
    else:
        return  # no call at all: Celery says so
    _require(type(args) in (list, tuple), "args", args, "a list")
    _require(_object(kwargs), "kwargs", kwargs, "an object")
    if embed is not None:
        _require(_object(embed), "embed", embed, "an object")
        _links(embed, links, embed is value)


def _headers(headers: Mapping[str, Any]) -> None:
    _fields("headers", headers, FIELDS)
    if not RESERVED.isdisjoint(headers):
        name = min(RESERVED.intersection(headers))
        raise Refused(f"headers.{name} is {_repr.repr(headers[name])}, but that is for the worker to say")


def _call(fields: Mapping[str, Any]) -> None:
    for name in ("task", "id"):
        _require(_name(fields.get(name)), name, fields.get(name), NAMED[1])


def _links(embed: Mapping[str, Any], links: bool, whole: bool) -> None:
    unknown = set() if whole else set(embed) - {"callbacks", "errbacks", "chain", "chord"}
    if unknown:
        raise Refused(f"embed has {_repr.repr(min(unknown))}, which Celery has no use for")
    for name in ("callbacks", "errbacks", "chain"):
        value = embed.get(name)
        if value is not None:
            _require(type(value) in (list, tuple), f"embed.{name}", value, "a list of signatures")
            for each in value:
                _signature(f"embed.{name}", each)
    if embed.get("chord") is not None:
        _signature("embed.chord", embed["chord"])
    if not links and (names := [name for name in ("callbacks", "errbacks", "chain", "chord") if embed.get(name)]):
        raise Refused(f"it names what is to be called after it (embed.{names[0]}), which this app does not allow")


def _signature(where: str, value: Any) -> None:
    """A call that is to be sent later, as ``Signature.from_dict`` takes it, and those that lie in it."""
    _require(_object(value), where, value, "a signature")
    _require(_name(value.get("task")), f"{where}.task", value.get("task"), NAMED[1])
    kind, args = value.get("subtask_type"), value.get("args")
    _require(kind is None or _label(kind), f"{where}.subtask_type", kind, LABEL[1])
    _require(args is None or type(args) in (list, tuple), f"{where}.args", args, "a list")
    for name in ("kwargs", "options"):
        given = value.get(name)
        _require(given is None or _object(given), f"{where}.{name}", given, "an object")
    options = value.get("options") or {}
    for name in ("link", "link_error"):
        for each in _listed(options.get(name)):
            _signature(f"{where}.{name}", each)


def _listed(value: Any) -> Any:
    return () if value is None else value if type(value) in (list, tuple) else (value,)


def _fields(where: str, values: Mapping[str, Any], rules: Mapping[str, Rule]) -> None:
    for name, value in values.items():
        if value is not None and name in rules and not rules[name][0](value):
            _require(False, f"{where}.{name}", value, rules[name][1])


def _require(held: bool, what: str, value: Any, should: str) -> None:
    if not held:
        raise Refused(f"{what} is {_repr.repr(value)}, not {should}")


def depth(value: Any, brackets: int) -> None:
    """Refuse what lies too deep.

    Args:
        value: Decoded JSON.
        brackets: How many ``[`` and ``{`` its text has: few cannot lie deep.

    Raises:
        Refused: There is more in more than ``DEPTH`` of it.
    """
    if brackets <= DEPTH:
        return
    level = [value]
    for _ in range(DEPTH + 1):
        level = [
            inner
            for outer in level
            if type(outer) in (dict, list)
            for inner in (outer.values() if type(outer) is dict else outer)
            if type(inner) in (dict, list)
        ]
        if not level:
            return
    raise Refused(f"lists and objects lie in each other more than {DEPTH} deep")


def _zlib(limit: int, data: bytes) -> bytes:
    return zlib.decompressobj().decompress(data, limit)


_INFLATE: dict[str, Callable[[int, bytes], bytes]] = {
    **dict.fromkeys(("application/x-gzip", "gzip", "zlib"), _zlib),
    **dict.fromkeys(
        ("application/x-bz2", "bzip2", "bzip"), lambda limit, data: bz2.BZ2Decompressor().decompress(data, limit)
    ),
    **dict.fromkeys(
        ("application/x-lzma", "lzma", "xz"), lambda limit, data: lzma.LZMADecompressor().decompress(data, limit)
    ),
}


def inflate(data: bytes, method: str, limit: int) -> bytes:
    """Undo the compression of a body, so far as that takes no more memory than any other message may.

    Args:
        data: The body.
        method: kombu's name for how it was compressed.
        limit: Bytes.

    Raises:
        Refused: It would be larger, is damaged, or of a kind that cannot be bounded.
    """
    if method not in _INFLATE:
        raise Refused(f"headers.compression is {_repr.repr(method)}, not one of {', '.join(_INFLATE)}")
    try:
        plain = _INFLATE[method](limit + 1, data)
    except (zlib.error, lzma.LZMAError, OSError, ValueError) as exc:
        raise Refused(f"its body cannot be decompressed: {exc}") from exc
    if len(plain) > limit:
        raise Refused(f"its body is more than the {limit:,} bytes that a worker takes when it is decompressed")
    return plain
