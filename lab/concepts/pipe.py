"""Pipe: two ends, what one sends the other receives, and end of file when nobody is left to send.

First the course's program: one child sends a hello into a pipe, another receives it. Then a ball goes back and forth
through a full-duplex pipe, and the time of a round trip is measured. Last the child closes its end: the parent, which
has closed its own copy of that end, gets EOFError instead of waiting for ever.

* threads: the object itself passes, not a copy. The time is two thread switches, each with a handover of the GIL.
* processes: a pickle through the kernel. The time is two process switches and four system calls.
* cluster: a sealed pickle through Redis: two messages, each over the network twice, whatever the two hosts are.

The course makes the pipe at module level and lets the children find it there. That works only where a child is a copy
of its parent (``fork``). Started any other way (macOS, Windows, Linux since Python 3.14, another host) each child
imports the module, makes a pipe of its own, and waits for ever. So here the ends travel as arguments.
"""

from __future__ import annotations

import time
from typing import Any

from lab.concepts._shared import PATIENCE, borne_out, join, main, median, seconds_text, start
from lab.evidence import Result, Who

WHY = {
    "threads": "The ends share one memory, so only a reference passes; the time is the switch from thread to thread.",
    "interpreters": "The ends share one process: each message is pickled and goes through the kernel, and a thread is woken.",
    "processes": "The ends share one kernel: each message is pickled, written and read, and the other process woken.",
    "cluster": "The ends share only the network: each message is encrypted, pushed to Redis and taken from there.",
}


def say(conn: Any, words: str) -> None:
    """Send one message and close the end."""
    conn.send(words)
    conn.close()


def hear(conn: Any, reply: Any) -> None:
    """Receive one message and print it."""
    words = conn.recv()
    print(words)
    reply.put((Who.here(), words))


def play(conn: Any, reply: Any) -> None:
    """Return every ball until None comes, then close the end."""
    for ball in iter(conn.recv, None):
        conn.send(ball)
    reply.put((Who.here(), "played"))
    conn.close()


def run(ctx: Any, *, words: str = "Hello labex", rounds: int = 300) -> Result:
    """Send a hello one way, a ball both ways, and close."""
    result = Result("pipe", ctx.place)
    reply = ctx.Queue()

    reader, writer = ctx.Pipe(duplex=False)
    children = start(ctx, say, [(writer, words)]) + start(ctx, hear, [(reader, reply)])
    hearer, heard = reply.get(timeout=PATIENCE)
    codes = join(children)

    mine, theirs = ctx.Pipe()
    children = start(ctx, play, [(theirs, reply)])
    theirs.close()  # the child has its own; while this one is open, the end is not closed and no EOF comes
    times, returned = [], 0
    for ball in range(rounds + 1):
        started = time.perf_counter()
        mine.send(ball)
        returned += mine.recv() == ball
        times.append(time.perf_counter() - started)
    mine.send(None)
    try:
        mine.recv()
        end = "a message"
    except EOFError:
        end = "EOFError"
    codes += join(children)
    player, _ = reply.get(timeout=PATIENCE)

    times.pop(0)  # the first waited for the child to start
    trip = result.costs["round trip"] = median(times)
    result.who = sorted({hearer, player})
    result.facts = {"heard": heard, "balls returned": returned, "after the peer closed": end, "exit codes": codes}
    result.facts["round trips in us"] = {"fastest": round(min(times) * 1e6), "slowest": round(max(times) * 1e6)}
    result.check("what one child sent, the other received", heard == words)
    result.check("every ball came back, in order", returned == rounds + 1)
    result.check("a pipe whose other end is closed gives EOFError", end == "EOFError")
    result.check("all children ended well", set(codes) == {0})
    return result.conclude(
        f"{heard!r} arrived; {returned} balls came back, {seconds_text(trip)} a round trip; then {end}.",
        borne_out(result, WHY),
    )


if __name__ == "__main__":
    raise SystemExit(main(run))
