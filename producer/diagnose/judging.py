"""The running part of a diagnosis: what a run has shown of a script's confusions."""

from __future__ import annotations

import linecache
import os
import re
from collections.abc import Iterator

from producer.diagnose.finding import Finding, seen
from producer.diagnose.running import Frame, Ran, Stand

MANY_CALLS = 1000
SMALL = 20e-6
"""Seconds of a call that is smaller than handing it over."""
SAID = (
    ("main_guard", r"An attempt has been made to start a new process|is not under a main guard"),
    (
        "lambda",
        r"Can't pickle (local object )?<function|Can't (pickle|get) local object|AttributeError: Can't get attribute",
    ),
    ("unsendable", r"should only be shared between processes through inheritance"),
    ("nested", r"daemonic processes are not allowed to have children"),
    ("loss", r"BrokenProcessPool|terminated abruptly while the future was"),
)
"""What the standard library says of a confusion, when it notices it."""
LINE = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)')


def judge(ran: Ran, script: str) -> list[Finding]:
    """What a run has shown."""
    path = os.path.abspath(script)
    found = [*_said(ran, path), *_vanished(ran), *_callbacks(ran), *_lost(ran), *_small(ran)]
    if ran.hangs:
        found += [*_stuck(ran, path), _hangs(ran, path)]
    return found


def _said(ran: Ran, path: str) -> Iterator[Finding]:
    for confusion, words in SAID:
        if said := re.search(words, ran.stderr):
            lines = [int(each["line"]) for each in LINE.finditer(ran.stderr) if os.path.abspath(each["file"]) == path]
            line = next(text for text in ran.stderr.splitlines() if said[0] in text)
            yield seen(confusion, lines[-1] if lines else 0, f"When it was run, Python said: {line.strip()[:200]}")


def _vanished(ran: Ran) -> Iterator[Finding]:
    fetched = {each["id"] for each in ran.noted("fetched")}
    told = set()
    for each in ran.noted("failed") if ran.code == 0 else ():  # else it was not let come to the end
        if each["id"] not in fetched and each["line"] not in told:
            told.add(each["line"])
            yield seen(
                "vanish", each["line"], f"When it was run, this call raised {each['error']!r}, and nobody was told."
            )


def _callbacks(ran: Ran) -> Iterator[Finding]:
    for each in ran.noted("thread raised"):
        if "_handle_results" in each["functions"]:
            yield seen(
                "callback",
                each["line"],
                f"When it was run, this callback raised {each['error']!r} in the thread of the pool that hands out"
                " results, and ended it:"
                " every later call waits for ever.",
            )
            return


def _lost(ran: Ran) -> Iterator[Finding]:
    for each in ran.noted("worker ended"):
        code = each["code"]
        how = f"was killed by signal {-code}" if code < 0 else f"ended with {code}"
        lines = [made["line"] for made in ran.noted("pool made")]
        yield seen(
            "loss",
            lines[0] if lines else 0,
            f"When it was run, a worker of the pool {how} in the middle of its work; the call that it had is in"
            " nobody's hands.",
        )
        return


def _small(ran: Ran) -> Iterator[Finding]:
    calls, made = ran.noted("calls"), ran.noted("pool made")
    number, seconds = sum(each["count"] for each in calls), sum(each["seconds"] for each in calls)
    if not calls or not made or number < MANY_CALLS or seconds / number > SMALL:
        return
    took = max(each["until"] for each in calls) - min(each["at"] for each in made)
    if seconds < took:
        yield seen(
            "slow_pool",
            made[0]["line"],
            f"Measured: the {number:,} calls that were timed took {seconds:.3f} s by themselves, and {took:.2f} s with"
            " this pool around them, so a plain loop is faster: hand over more at once (chunksize), or what takes longer.",
        )


# where it hangs


def _stuck(ran: Ran, path: str) -> Iterator[Finding]:
    """What the places where all stand say of the reason."""
    main = ran.stands[0]
    here = main.own(path)
    line = here.line if here else 0
    children = ran.stands[1:]
    if any(child.inside("_finalize_join") for child in children) and main.inside("join", "wait", "poll"):
        yield seen(
            "join_first",
            line,
            "When it was run, this waited for a process to end, and that waited for its queue to be read.",
        )
    wanting = [(stand, frame) for stand in ran.stands for frame in _for_locks(stand, path)]
    if len(wanting) > 1:
        lines = sorted({frame.line for _, frame in wanting})
        yield seen(
            "two_locks",
            lines[0],
            f"When it was run, {len(wanting)} of its processes or threads waited for locks (line"
            f" {', '.join(map(str, lines))}), and nobody gave one"
            " back.",
        )
    for stand in ran.stands:
        for number, calls in enumerate(stand.threads):
            own = stand.own(path, number)
            task = any(
                os.path.basename(f.file) in ("thread.py", "pool.py") and f.function in ("_worker", "worker")
                for f in calls
            )
            if own and task and any(f.function in ("result", "get") for f in calls[: calls.index(own)]):
                yield seen(
                    "get_inside",
                    own.line,
                    "When it was run, a task waited here for another task, and no worker was left to do that.",
                )
                return


def _for_locks(stand: Stand, path: str) -> Iterator[Frame]:
    for number, calls in enumerate(stand.threads):
        own = stand.own(path, number)
        if own is None:
            continue
        inner = calls[: calls.index(own)]
        text = linecache.getline(path, own.line)
        # C code has no frames: for a lock of C the script's own line is the innermost one
        in_lock = any(
            f.function in ("__enter__", "acquire") and os.path.basename(f.file) == "synchronize.py" for f in inner
        )
        if (
            (in_lock or not inner)
            and re.search(r"\bwith\b|\.acquire\(", text)
            and not re.search(r"Pool|Executor|open\(", text)
        ):
            yield own


def _hangs(ran: Ran, path: str) -> Finding:
    main = ran.stands[0]
    here = main.own(path)
    stood = [f"{name} in {f'line {line} ({text})' if line else text}" for name, line, text, _ in stands(ran, path)]
    where = "; ".join(stood) or "nobody can be asked"
    return seen(
        "hangs", here.line if here else 0, f"After {ran.seconds:.0f} s it had not ended, and nobody moved: {where}."
    )


def stands(ran: Ran, path: str) -> list[tuple[str, int, str, str]]:
    """Where each process and thread of the script stood: its name, the line, its text, and the function that it is in."""
    found = []
    for stand in ran.stands:
        for number in range(len(stand.threads)):
            own = stand.own(path, number)
            if own is None and number:
                continue
            name = stand.name if not number else f"a thread of {stand.name}"
            file, function = stand.waits_in(number)
            text = linecache.getline(path, own.line).strip() if own else ""
            found.append((name, own.line if own else 0, text or f"{function} of {file}", function))
    return found
