"""Claim checks: a large message is laid down beside its list, and a ticket for it goes through the list.

Lists are changed by scripts, and a script copies what passes through it, as does each move from one list to another: a
megabyte through Lua and BLMOVE costs Redis 2 ms, laid down by SET and read by GET 0.4. So what is large takes that way (the
claim check of Hohpe and Woolf, Enterprise Integration Patterns, 2003). Its key is used once and the signature covers it, as
does that of the ticket, so nobody can exchange the one or the other.

On Redis: string ``luggage:ID``, until the message was read, or its list deleted. A process that is killed between laying a
message down and sending the ticket leaves it there until the run ends.
"""

from __future__ import annotations

import secrets
from typing import Any

from lab.cluster.run import Run
from lab.cluster.script import Script
from lab.errors import WrongKey

SMALL = 1 << 17
"""Bytes up to which a message goes through its list: one round trip more costs as much as copying this."""

INLINE, TICKET = b"\0", b"\1"

REGISTER_LUGGAGE = Script("create(KEYS[3])", fenced=True, numbered=False)

SWEEP = Script("sweep(KEYS[3]) return 1")
"""Delete a list, and what the tickets in it are for."""

DISCARD = Script("""
for i = 3, #KEYS do redis.call('UNLINK', KEYS[i]) redis.call('SREM', registry, KEYS[i]) end
return 1
""")


def check_in(run: Run, *parts: Any) -> tuple[Any, ...]:
    """What to seal and send in place of a payload that is given in one or more parts."""
    if sum(map(len, parts)) <= SMALL:
        return (INLINE, *parts)
    key = run.key("luggage", secrets.token_hex(8))
    # Both are there before what this process sends next: the ticket. The first has an expiry even if we die now.
    run.store.post("SET", key, run.seal(key, *parts), "PX", run.ttl)
    run.post(REGISTER_LUGGAGE, [key])
    return (TICKET, key.encode())


def luggage_of(message: tuple[Any, ...]) -> str:
    """The key under which what ``check_in`` made of a large payload lies; empty for a small one."""
    return message[1].decode() if message[0] is TICKET else ""


def receive(run: Run, source: str, blob: bytes) -> memoryview:
    """The payload of what this thread has just taken from a list.

    Raises:
        WrongKey: It cannot be had.
    """
    try:
        return check_out(run, run.unseal(source, blob))
    except WrongKey:
        raise
    except BaseException:
        # Excluded: a ticket taken and its message not read, as Redis went away or the user interrupted between the two.
        run.give_back(source)
        raise


def check_out(run: Run, message: memoryview, keep: bool = False) -> memoryview:
    """The payload of a message that was sealed after ``check_in``.

    Args:
        run: The run of who reads it.
        message: What was unsealed.
        keep: Leave it there for somebody else, if it is large; whoever knows that it is not needed any more discards it.

    Raises:
        WrongKey: It is not there any more, or was altered.
        BrokerUnreachable: Redis does not answer.
    """
    if message[0] != TICKET[0]:
        return message[1:]
    key = bytes(message[1:]).decode()
    luggage = run.store.call("GET", key)
    if luggage is None:
        raise WrongKey(
            f"A large message for {key} is not in Redis any more; what asked for it was refused.",
            "It was read before, by somebody who holds a copy of its ticket, or Redis has evicted it: set noeviction.",
        )
    if not keep:
        run.post(DISCARD, [key])
    return run.unseal(key, luggage)
