"""Claim checks: a large message is laid down beside its list, and a ticket for it goes through the list.

Lists are changed by scripts, and a script copies what passes through it, as does each move from one list to another: a
megabyte through Lua and BLMOVE costs Redis 2 ms, laid down by SET and read by GETRANGE 0.4. So what is large takes that way
(the claim check of Hohpe and Woolf, Enterprise Integration Patterns, 2003). Its key is used once; it is sealed for that key,
and the ticket with it, so nobody can exchange the one or the other. No more of it is read than CROSSHOST_MESSAGE_SIZE says.

On Redis: string ``luggage:ID``, until the message was read, or its list deleted. A process that is killed between laying a
message down and sending the ticket leaves it there until the run ends.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from typing import Any

from lab.errors import KeyLost, WrongKey
from lab.store.link import READ_LARGE
from lab.store.run import Run
from lab.store.script import Script
from lab.store.wire import PLAIN, TICKET, clear_part, is_ticket

SMALL = 1 << 17
"""Bytes up to which a message goes through its list: one round trip more costs as much as copying this."""

REGISTER_LUGGAGE = Script("create(KEYS[3])", fenced=True, numbered=False)

SWEEP = Script("sweep(KEYS[3]) return 1")
"""Delete a list, and what the tickets in it are for."""

DISCARD = Script("""
for i = 3, #KEYS do redis.call('UNLINK', KEYS[i]) redis.call('SREM', registry, KEYS[i]) end
return 1
""")


LAY = Script("redis.call('SET', KEYS[3], ARGV[3], 'PX', ttl)", numbered=False)


def check_in(run: Run, *parts: Any, waits: bool = True) -> tuple[Any, ...]:
    """What ``sealed`` makes a message of, in place of a payload that is given in one or more parts.

    Args:
        run: The run of who sends it.
        *parts: The payload.
        waits: Whether it waits if Redis has no memory left. What others must have to free some does not.

    Raises:
        RedisFull: It has waited for as long as the program does.
    """
    if sum(map(len, parts)) <= SMALL:
        return ("", *parts)
    key = run.key("luggage", secrets.token_hex(8))
    # It is there before what this process sends next: the ticket. It has an expiry even if we die now. Not posted where
    # memory is scarce: excluded, a ticket for what Redis had no memory for.
    message = run.seal(key, *parts)
    lay = ("SET", key, message, "PX", run.ttl)
    if run.store.may_post(sum(map(len, parts))):
        run.store.post(*lay)
    elif waits:
        run.store.call(*lay)
    elif run.store.refuses(*lay):
        run.eval(LAY, [key], message)
    run.post(REGISTER_LUGGAGE, [key])
    return (key,)


def luggage_of(message: tuple[Any, ...]) -> str:
    """The key under which what ``check_in`` made of a large payload lies; empty for a small one."""
    return str(message[0])


def sealed(run: Run, purpose: str, message: tuple[Any, ...], clear: bytes = b"", kind: int = PLAIN) -> Any:
    """What ``check_in`` made, ready to be sent.

    Args:
        run: The run of who sends it.
        purpose: The list that it is for.
        message: What ``check_in`` made.
        clear: What scripts must read of it; the name of its luggage is behind it.
        kind: PLAIN, BLOCK or MANY.
    """
    luggage, *parts = message
    if luggage:
        return run.seal(purpose, b"", kind=kind | TICKET, clear=clear + luggage.encode())
    return run.seal(purpose, *parts, kind=kind, clear=clear)


def receive(run: Run, source: str, blob: bytes) -> memoryview:
    """The payload of what this thread has just taken from a list.

    Raises:
        WrongKey: It cannot be had.
    """
    payload = run.unseal(source, blob)
    if not is_ticket(blob):
        return payload
    try:
        return check_out(run, blob)
    except WrongKey:
        raise
    except BaseException:
        # Excluded: a ticket taken and its message not read, as Redis went away or the user interrupted between the two.
        run.give_back(source)
        raise


def too_large(purpose: str, size: str, most: int) -> WrongKey:
    """The error for a message that this side does not read, as it has more bytes than its settings allow."""
    return WrongKey(
        f"A message for {purpose} has {size} bytes and was refused unread: CROSSHOST_MESSAGE_SIZE={most} is set there.",
        "If it is yours, send less at once, or raise CROSSHOST_MESSAGE_SIZE on that side.",
    )


def check_out(run: Run, ticket: bytes, skip: int = 0, keep: bool = False) -> memoryview:
    """The large message that a ticket, which opened, is for.

    Args:
        run: The run of who reads it.
        ticket: The message that was taken.
        skip: Bytes of its clear part before the name of the luggage.
        keep: Leave it there for somebody else; whoever knows that it is not needed any more discards it.

    Raises:
        WrongKey: It is not there any more, or was altered, or is larger than this side reads.
        BrokerUnreachable: Redis does not answer.
    """
    key, most = clear_part(ticket)[skip:].decode(), run.settings.message_size
    luggage = None
    with suppress(KeyLost):  # something else lay there: the same as nothing
        # One command, so that nobody can lay another one down between a look at its size and the reading.
        luggage = run.store.call(READ_LARGE, key, 0, most)
    if not luggage:
        raise WrongKey(
            f"A large message for {key} is not in Redis any more; what asked for it was refused.",
            "It was read before, by somebody who holds a copy of its ticket, or Redis has evicted it: set noeviction.",
        )
    if not keep:
        run.post(DISCARD, [key])
    if len(luggage) > most:
        raise too_large(key, f"more than {most}", most)
    return run.unseal(key, luggage)
