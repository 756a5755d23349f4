"""What the user of Redis may do, of all that ``producer`` and its programs do: found without doing any of it.

Redis looks at a user's rules when a command is queued in a transaction (``MULTI``), and runs none of it before ``EXEC``. So
each command is queued, and the connection is closed: nothing of it ever takes effect.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import redis
from redis.exceptions import NoPermissionError

RUN = "crosshost:{doctor}:probe"
SHA = "0" * 40
OF_A_RUN = """
get K|mget K|set K 1|exists K|type K|del K|unlink K|rename K K|pexpire K 1|getrange K 0 1|strlen K|setrange K 0 a|setbit K 0 1
bitcount K|bitfield K GET u8 0
hset K f 1|hget K f|hmget K f|hgetall K|hdel K f|hexists K f|hincrby K f 1|hstrlen K f|hscan K 0
sadd K m|srem K m|smembers K|sismember K m|scard K|sscan K 0|spop K|srandmember K
zadd K 1 m|zrem K m|zscore K m|zcard K|zrangebyscore K 0 1|zrangebylex K - +
lpush K 1|rpush K 1|lpop K|rpop K|blpop K 1|brpop K 1|lmove K K LEFT LEFT|blmove K K LEFT LEFT 1|lrange K 0 1|llen K
lindex K 0|lrem K 0 1|ltrim K 0 1|memory usage K
"""
"""The commands of a run, each with a key ``K``."""

OTHERS = [
    "eval return 0", f"evalsha {SHA} 0", f"script exists {SHA}", "script load return", "time", "info memory", "unwatch",
    "client id", "client list ID 1", "client kill ID 1", "smembers crosshost:hosts", "hgetall crosshost:host:doctor",
    "zrangebyscore crosshost:busy 0 1", "getrange crosshost:host-packages:doctor 0 1",
    "lpush crosshost:celery:processes 1", "lpush crosshost:celery:jobs 1", "llen crosshost:celery:processes",
    "hset crosshost:job:doctor f 1", "zadd crosshost:jobs 1 m", "get crosshost:result:doctor",
    "lrange crosshost:celery:dead 0 0", "ltrim crosshost:celery:dead 0 -1",
    "smembers crosshost:celery:_kombu.binding.celery.pidbox", "brpop crosshost:celery:x.reply.celery.pidbox 1",
    "publish crosshost:celery:/0.celery.pidbox x",
]  # fmt: skip
"""The commands for what does not belong to a run."""


class NoTransactions(Exception):
    """``MULTI`` is refused, or answered by somebody else than Redis: nothing can be asked without doing it."""

    def __init__(self, reply: object) -> None:
        super().__init__(reply)
        self.forbidden = isinstance(reply, NoPermissionError)


def probes() -> list[list[str]]:
    """Every command, with arguments that make sense to Redis."""
    of_a_run = [text.replace("K", RUN) for line in OF_A_RUN.strip().splitlines() for text in line.split("|")]
    probes = [text.split() for text in (*of_a_run, *OTHERS)]
    return [["eval", "return 0", "0"] if words[0] == "eval" else words for words in probes]


def refused(connection: Any) -> Iterator[tuple[str, str]]:
    """The commands that are refused, each with what Redis says of it; the connection is closed afterwards.

    Args:
        connection: One of redis-py's, for this alone.

    Raises:
        NoTransactions: It cannot be known.
        redis.RedisError: The connection broke.
    """
    try:
        # Excluded: a probe that takes effect, as Redis, or what stands in its place, has begun no transaction.
        if (begun := _reply(connection, ["multi"])) != b"OK":
            raise NoTransactions(begun)
        for words in probes():
            reply = _reply(connection, words)
            if isinstance(reply, Exception):
                if isinstance(reply, NoPermissionError) or "unknown command" in str(reply).lower():
                    yield " ".join(words).replace(RUN, "crosshost:{RUN}:..."), str(reply)
            elif reply != b"QUEUED":
                raise NoTransactions(reply)
    finally:
        connection.disconnect()


def _reply(connection: Any, words: list[str]) -> Any:
    connection.send_command(*words)
    try:
        return connection.read_response()
    except redis.ResponseError as exc:
        return exc
