"""Threads: several lines of execution in one process, with one memory.

The course's hello, from several threads, each appending its name to one list. Then the very same through this place's
``Process``: on threads that is the same thing; elsewhere each child has a copy of the list, which it changes in vain.

* threads: all see one list, under one process id, with a thread id each.
* processes: each child gets the list as a pickle. Its copy has one name in it when it ends, the parent's has none.
* cluster: the same, and the copies are on other hosts. To bring something back, send it: here through a queue.

The course prints ``threading.get_ident()``. That number is an address inside this process, and is given to another
thread as soon as the first has ended; ``get_native_id()`` is the id by which the kernel knows the thread.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from lab.concepts._shared import PATIENCE, borne_out, join, main, start, take
from lab.evidence import Result, Who

WHY = {
    "threads": "One address space: the list that a thread appends to is the list itself.",
    "interpreters": "Each has objects of its own in one address space: what it got is a copy, and only messages come back.",
    "processes": "Each process has an address space of its own: what it got is a copy, and only messages come back.",
    "cluster": "Each process is in the memory of another host: what it got is a copy, and only messages come back.",
}


def hello(name: str, seen: list[str], reply: Any) -> None:
    """Say hello, append to the list, and tell how many names are in the list as seen from here."""
    print(f"child thread: {threading.get_native_id()}, Hello {name}")
    seen.append(name)
    reply.put((Who.here(), len(seen)))


def run(ctx: Any, *, names: tuple[str, ...] = ("Ada", "Grace", "Edsger")) -> Result:
    """Let threads, then children of this place, append to a list."""
    result = Result("threads", ctx.place)
    me = Who.here()
    print(f"main thread: {me.thread}")

    threads_list: list[str] = []
    reply = ctx.Queue()
    started = time.perf_counter()
    threads = [threading.Thread(target=hello, args=(name, threads_list, reply)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    result.costs["start and join a thread"] = (time.perf_counter() - started) / len(names)
    thread_whos = [who for who, _ in take(reply, len(names))]

    childrens_list: list[str] = []
    started = time.perf_counter()
    codes = join(start(ctx, hello, [(name, childrens_list, reply) for name in names]))
    result.costs["start and join a child"] = (time.perf_counter() - started) / len(names)
    answers = take(reply, len(names))
    child_whos = [who for who, _ in answers]

    result.who = sorted({*child_whos, *thread_whos})
    result.facts = {"main thread": str(me), "list after the threads": sorted(threads_list)}
    result.facts |= {"list after the children": sorted(childrens_list), "exit codes": codes}
    result.facts["names that each child saw"] = sorted(seen for _, seen in answers)
    result.check("threads share one list: every name is in it", sorted(threads_list) == sorted(names))
    result.check("threads share one process", {(who.host, who.pid) for who in thread_whos} == {(me.host, me.pid)})
    result.check("no thread has the main thread's id", me.thread not in {who.thread for who in thread_whos})
    result.check("all children ended well", set(codes) == {0})
    if ctx.place == "threads":
        result.check("children that are threads share the list too", sorted(childrens_list) == sorted(names))
    else:
        result.check("the parent's list has nothing of its children's", childrens_list == [])
        result.check("each child saw one name, its own", {seen for _, seen in answers} == {1})
    happened = f"{len(threads)} threads left {len(threads_list)} names in the list, "
    happened += f"{len(codes)} children of this place {len(childrens_list)}."
    return result.conclude(happened, borne_out(result, WHY))


if __name__ == "__main__":
    raise SystemExit(main(run))
