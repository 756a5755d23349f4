"""Thread-local: a variable that has one value for each thread, and what takes its place elsewhere.

Each worker of a pool writes its own name twice before its first item: into a module global, and into a
``threading.local``. Later, when all have done so, each looks at what it finds there. And in each worker one more thread
looks too.

* threads: the global has one name, the last writer's: every other worker finds a stranger's. The ``threading.local``
  has each worker's own, so it is what a thread keeps its connection or its random generator in.
* processes: the global is each worker's own already, one per process. That is what a pool's initializer is for.
* cluster: the same, one per worker process on each host: state per host would be shared by that host's workers alone.

Everywhere a new thread finds the ``threading.local`` empty: it belongs to a thread, not to a process or a task. The
course names thread-local in its introduction and does not come back to it.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from lab.concepts._shared import PATIENCE, borne_out, main
from lab.evidence import Result, Who

of_the_process: Who | None = None
of_the_thread = threading.local()

WHY = {
    "threads": "All workers share the module's globals; only what is in a threading.local is a worker's own.",
    "interpreters": "Each interpreter imports the module for itself, so its globals are its own, though the process is one.",
    "processes": "Each worker process has its own copy of the module, so a global set by the initializer is its own.",
    "cluster": "Each worker process, on whatever host, has its own copy of the module, so its globals are its own.",
}


def settle(gate: Any) -> None:
    """In each worker, before its first item: sign both variables, and wait until all have."""
    global of_the_process
    of_the_process = of_the_thread.owner = Who.here()
    of_the_thread.gate = gate
    gate.wait(PATIENCE)


def look(_: int) -> tuple[Who, Who | None, Who, bool, float]:
    """Who runs this, whom both variables name, and whether a new thread finds anything in its own."""
    of_the_thread.gate.wait(PATIENCE)  # as many items as workers, and each waits here for all: so each worker has one
    started = time.perf_counter()
    owner = of_the_thread.owner
    cost = time.perf_counter() - started
    with ThreadPoolExecutor(1) as executor:
        new_thread_has_it = executor.submit(hasattr, of_the_thread, "owner").result()
    return Who.here(), of_the_process, owner, new_thread_has_it, cost


def run(ctx: Any, *, workers: int = 4) -> Result:
    """Sign a global and a thread-local in each worker, and read them back."""
    result = Result("thread_local", ctx.place)
    with ctx.Pool(workers, initializer=settle, initargs=(ctx.Barrier(workers),)) as pool:
        looks = pool.map(look, range(workers), chunksize=1)
        pool.close()
        pool.join()

    result.who = sorted({who for who, *_ in looks})
    own_global = sum(who == owner for who, owner, *_ in looks)
    own_local = sum(who == owner for who, _, owner, *_ in looks)
    hosts: dict[str, set[int]] = {}
    for who in result.who:
        hosts.setdefault(who.host, set()).add(who.pid)
    result.facts = {"workers": len(result.who), "found their own global": own_global}
    result.facts |= {"found their own thread-local": own_local, "new threads that found one": sum(x[3] for x in looks)}
    result.facts["processes on each host"] = {host: len(pids) for host, pids in hosts.items()}
    result.costs["read a thread-local"] = min(cost for *_, cost in looks)
    result.check("every worker had one item", len(result.who) == workers)
    result.check("every worker found its own name in its thread-local", own_local == workers)
    result.check("a new thread found its thread-local empty", not any(x[3] for x in looks))
    if ctx.place == "threads":
        result.check("the global had one name: the last that was written", own_global == 1)
    else:
        result.check("every worker found its own name in its process's global", own_global == workers)
    happened = f"Workers {workers}, processes {sum(map(len, hosts.values()))}, hosts {len(hosts)}: "
    happened += f"{own_local} of {workers} found their own thread-local, {own_global} their own global."
    return result.conclude(happened, borne_out(result, WHY))


if __name__ == "__main__":
    raise SystemExit(main(run))
