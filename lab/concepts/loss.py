"""Loss: a worker of a pool is killed in the middle of a call. What becomes of the call?

Twelve calls go to a pool of three workers. One kills the process that runs it, the first time it is run; one does so every
time. A kill stands for whatever ends a process without an exception: the kernel short of memory, a segmentation fault, a
machine that is switched off. Each call's answer is waited for by itself, but not for ever.

* threads: a thread cannot be killed, it lives and dies with the program. The two calls raise instead.
* processes: ``multiprocessing.Pool`` starts a new worker and knows nothing of the call that the dead one had. Its caller
  would wait for ever; here it stops waiting after some seconds.
* cluster: taking a call moves it to a list of its worker's own, in Redis. When the worker dies, the pool puts back what that
  list holds: the first call is answered by somebody else. The second is given up after three deaths, by name; the ten
  others never notice.

(``concurrent.futures.ProcessPoolExecutor`` does better than the pool: it fails all calls, with BrokenProcessPool.)
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import Counter
from typing import Any

from lab import atomic_add
from lab.concepts._shared import PATIENCE, borne_out, main
from lab.errors import WorkerLost
from lab.evidence import Result, Who

WHY = {
    "threads": "Threads share one process: there is no worker to lose, only a program.",
    "processes": "The pool replaces the worker, but nobody remembers which call it had.",
    "cluster": "A call that was taken is in its worker's list until it is answered; a dead worker's list is put back.",
}
KILLS_ONCE, KILLS_ALWAYS, GIVES_UP = 4, 8, 3.0
_deaths: Any = None


def use(deaths: Any) -> None:
    """Give a worker the counter of deaths."""
    global _deaths
    _deaths = deaths


def work(number: int) -> tuple[int, Who]:
    """Return the number and who we are; for two numbers, die."""
    if number == KILLS_ALWAYS or (number == KILLS_ONCE and _deaths.value == 0):
        if number == KILLS_ONCE:
            atomic_add(_deaths, 1)
        if multiprocessing.parent_process() is None:
            raise RuntimeError("a thread cannot be killed")
        os.kill(os.getpid(), signal.SIGKILL)
    return number, Who.here()


def run(ctx: Any, *, workers: int = 3, count: int = 12) -> Result:
    """Ask for every call by itself, and see which are answered."""
    result = Result("loss", ctx.place)
    deaths, outcomes = ctx.Value("i", 0), dict[int, str]()
    pool = ctx.Pool(workers, use, (deaths,))
    begun = time.perf_counter()
    calls = {number: pool.apply_async(work, (number,)) for number in range(count)}
    for number in sorted(calls, key=(KILLS_ONCE, KILLS_ALWAYS).__contains__):  # those two last
        hopeless = ctx.place == "processes" and number in (KILLS_ONCE, KILLS_ALWAYS)
        try:
            answered, who = calls[number].get(GIVES_UP if hopeless else PATIENCE)
            outcomes[number] = "answered" if answered == number else "wrong"
            result.who.append(who)
        except multiprocessing.TimeoutError:
            outcomes[number] = "never answered"
        except WorkerLost:
            outcomes[number] = "WorkerLost"
        except RuntimeError:
            outcomes[number] = "raised"
    result.costs["all calls settled"] = time.perf_counter() - begun
    pool.terminate()
    pool.join()

    result.who = sorted(set(result.who))
    tally = Counter(outcomes.values())
    expected = {
        "threads": ("raised", "raised"),
        "processes": ("never answered", "never answered"),
        "cluster": ("answered", "WorkerLost"),
    }[ctx.place]
    result.facts = {"outcomes": dict(tally), "kills once": outcomes[KILLS_ONCE], "kills always": outcomes[KILLS_ALWAYS]}
    others = [outcome for number, outcome in outcomes.items() if number not in (KILLS_ONCE, KILLS_ALWAYS)]
    result.check("the calls that kill nobody were answered", set(others) == {"answered"})
    result.check(f"the call that kills once was {expected[0]}", outcomes[KILLS_ONCE] == expected[0])
    result.check(f"the call that kills always ended as: {expected[1]}", outcomes[KILLS_ALWAYS] == expected[1])
    happened = ", ".join(f"{n} {outcome}" for outcome, n in sorted(tally.items()))
    return result.conclude(
        f"Of {count} calls: {happened}; the one that kills once: {outcomes[KILLS_ONCE]}, always: {outcomes[KILLS_ALWAYS]}.",
        borne_out(result, WHY),
    )


if __name__ == "__main__":
    raise SystemExit(main(run))
