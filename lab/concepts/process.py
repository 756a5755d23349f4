"""Process: a child with an id, an exit code and a memory of its own.

The program is the course's: a child says hello with its id; the parent waits for it and gives its own. Three more
children show what a parent learns from an exit code: 0 after a return, 3 after ``sys.exit(3)``, minus the number of the
signal that killed it. The last one changes a variable of this module.

* threads: the "child" has its parent's process id, and the parent sees the change: there is one memory. Nothing can
  kill a thread from outside, so ``kill()`` is refused.
* processes: a new interpreter with a new id. It imports this module for itself; what it changes, dies with it.
* cluster: the same on another host, so an id means little without the name of its host. The exit code still arrives.

The course says that after ``join()`` the subprocess runs on. It is the parent that waits, until the child has ended.
``args`` is a tuple: ``args=("labex")`` without the comma is a string, and calls ``hello("l", "a", "b", "e", "x")``.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

from lab.concepts._shared import PATIENCE, borne_out, main
from lab.evidence import Result, Who

word = "as imported"

WHY = {
    "threads": "A thread is not a new process: it has its parent's id and memory, and nobody can kill it.",
    "interpreters": "An interpreter has its own memory and modules in its parent's process: one id, and nobody can kill it.",
    "processes": "A process has its own interpreter and memory; the kernel keeps its exit code for the parent.",
    "cluster": "A worker host starts a real child process, watches it, and reports its id and its exact exit code.",
}


def hello(name: str, reply: Any) -> None:
    """Say hello with the id of the process that runs this."""
    print(f"child process: {os.getpid()}")
    print(f"Hello {name}")
    reply.put(Who.here())


def leave(code: int) -> None:
    """End with an exit code."""
    sys.exit(code)


def linger(ready: Any, release: Any) -> None:
    """Wait to be killed or to be asked to return."""
    ready.set()
    release.wait(PATIENCE)


def change_word(reply: Any) -> None:
    """Change the module variable of whatever memory this runs in."""
    global word
    word = "changed by the child"
    reply.put((Who.here(), word))


def run(ctx: Any, *, name: str = "labex") -> Result:
    """Start children, and see their ids, their exit codes and whose memory they change."""
    global word
    result = Result("process", ctx.place)
    reply, ready, release = ctx.Queue(), ctx.Event(), ctx.Event()

    started = time.perf_counter()
    child = ctx.Process(target=hello, args=(name, reply))
    child.start()
    child.join(PATIENCE)
    result.costs["start and join a child"] = time.perf_counter() - started
    print(f"parent process: {os.getpid()}")
    here, there = Who.here(), reply.get(timeout=PATIENCE)

    leaver = ctx.Process(target=leave, args=(3,))
    leaver.start()
    leaver.join(PATIENCE)

    victim = ctx.Process(target=linger, args=(ready, release))
    victim.start()
    ready.wait(PATIENCE)
    try:
        victim.kill()
        refusal = ""
    except NotImplementedError as exc:
        refusal = str(exc)
        release.set()
    victim.join(PATIENCE)

    word = "as imported"
    changer = ctx.Process(target=change_word, args=(reply,))
    changer.start()
    changed_by, childs_word = reply.get(timeout=PATIENCE)
    changer.join(PATIENCE)

    codes = [child.exitcode, leaver.exitcode, victim.exitcode]
    one_process = (here.host, here.pid) == (there.host, there.pid)
    result.who = sorted({there, changed_by})
    result.facts = {"parent": str(here), "child": str(there), "exit codes": codes}
    result.facts |= {"kill refused": refusal, "child's word": childs_word, "parent's word": word}
    result.check("a child that returns has exit code 0, one that calls sys.exit(3) has 3", codes[:2] == [0, 3])
    if ctx.place in ("threads", "interpreters"):
        child_is = {"threads": "a thread", "interpreters": "an interpreter"}[ctx.place]
        result.check(f"{child_is} cannot be killed: it was asked to return, and did", bool(refusal) and codes[2] == 0)
        result.check(f"{child_is} runs in its parent's process", one_process)
    else:
        result.check("a killed child has minus the signal's number", codes[2] == -signal.SIGKILL)
        result.check("a child runs in a process of its own", not one_process)
    if ctx.place == "threads":
        result.check("the parent sees what the thread did to the module variable", word == childs_word)
    else:
        result.check("what the child did to the module variable stayed in the child", word != childs_word)
    end = "could not be killed" if refusal else f"{codes[2]} when killed"
    memory = "the same memory" if word == childs_word else "a memory of its own"
    ids = f"Parent {here.pid}, child {there.pid} on {there.host}"
    return result.conclude(f"{ids}; exit codes {codes[0]}, {codes[1]}, and {end}; {memory}.", borne_out(result, WHY))


if __name__ == "__main__":
    raise SystemExit(main(run))
