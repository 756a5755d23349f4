"""Dead letters: messages that no worker will run, kept with the reason, so that nothing disappears in silence.

On Redis: one list, newest first, of JSON objects. It holds at most ``KEEP`` letters and expires ``TTL_MS`` after the last
one was added; of a message larger than ``HEAD`` only its beginning is kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

KEEP = 1_000
HEAD = 1 << 16
TTL_MS = 7 * 86_400_000

_NUMBERS = {"time", "deliveries", "size"}

LUA_BURY = f"""
local function bury(list, letter, raw, now)
  letter = cjson.decode(letter)
  letter.time, letter.size, letter.message = now, #raw, string.sub(raw, 1, {HEAD})
  redis.call('LPUSH', list, cjson.encode(letter))
  redis.call('LTRIM', list, 0, {KEEP - 1})
  redis.call('PEXPIRE', list, {TTL_MS})
end
"""
"""Lua function that adds a letter: list, letter without time and message (JSON), message, milliseconds."""

_ADD = (
    LUA_BURY
    + """
local t = redis.call('TIME')
bury(KEYS[1], ARGV[1], ARGV[2], t[1] * 1000 + math.floor(t[2] / 1000))
"""
)


@dataclass(frozen=True)
class DeadLetter:
    """A message that will not be run.

    Attributes:
        time: When it was given up, milliseconds by Redis's clock.
        reason: Why.
        queue: The queue that it came from.
        task: Name of its task, empty if it names none.
        id: Id of its task, likewise.
        deliveries: How often a worker was given it.
        size: Bytes of the message.
        message: The message, or the first ``HEAD`` bytes of it.
    """

    time: int
    reason: str
    queue: str = ""
    task: str = ""
    id: str = ""
    deliveries: int = 0
    size: int = 0
    message: str = ""

    @property
    def when(self) -> str:
        """The time in ISO 8601, UTC, to the second."""
        return datetime.fromtimestamp(self.time / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def letter(reason: str, queue: str = "", task: Any = "", id: Any = "", deliveries: int = 0) -> str:
    """What is said of a message, as JSON for ``LUA_BURY``; what the message itself claims is cut to a line."""
    return json.dumps(
        {
            "reason": _line(reason, 500),
            "queue": _line(queue),
            "task": _line(task),
            "id": _line(id),
            "deliveries": deliveries,
        }
    )


def add(call: Callable[..., Any], key: str, said: str, message: str | bytes = "") -> None:
    """Add a letter about a message that is in no queue.

    Args:
        call: Runs a Redis command and returns its reply.
        key: The list.
        said: What ``letter`` made.
        message: The message.
    """
    call("EVAL", _ADD, 1, key, said, message)


def read(call: Callable[..., Any], key: str) -> list[DeadLetter]:
    """All letters, newest first; one that is no letter is shown as it is."""
    return [_parse(raw) for raw in call("LRANGE", key, 0, -1)]


def clear(call: Callable[..., Any], key: str, count: int) -> None:
    """Forget the oldest ``count``, which are those that were read: what has come since stays."""
    call("LTRIM", key, 0, -count - 1)


def as_json(letters: list[DeadLetter]) -> str:
    """All that is known of some letters, as a JSON list."""
    return json.dumps([asdict(each) | {"when": each.when} for each in letters], indent=2)


def as_text(letters: list[DeadLetter]) -> str:
    """Some letters in two lines each; what strangers wrote cannot steer the terminal."""
    return "".join(map(_two_lines, letters)) or "No dead letters.\n"


def _two_lines(letter: DeadLetter) -> str:
    head = (letter.when, letter.queue or "-", letter.task or "-", letter.id or "-", f"given {letter.deliveries}x")
    text = "  ".join(head) + f"\n    {letter.reason}"
    return "".join(char if char.isprintable() or char == "\n" else "?" for char in text) + "\n"


def _parse(raw: bytes) -> DeadLetter:
    text = raw.decode(errors="replace")
    try:
        fields = json.loads(text)
        letter = DeadLetter(**{name: fields[name] for name in DeadLetter.__dataclass_fields__})
        if not all(type(value) is (int if name in _NUMBERS else str) for name, value in vars(letter).items()):
            raise ValueError("a field of another type")
        _ = letter.when
        return letter
    except (ValueError, KeyError, TypeError, OverflowError, OSError, RecursionError):
        return DeadLetter(0, "not a dead letter", size=len(raw), message=text[:HEAD])


def _line(value: Any, limit: int = 200) -> str:
    text = "" if value is None else str(value)
    # Excluded: half a surrogate pair, which JSON may name and Redis's script could not read again.
    return " ".join(text[: 4 * limit].split())[:limit].encode(errors="replace").decode()
