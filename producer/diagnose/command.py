"""``producer diagnose``: read, run, and say what was found."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

from lab.errors import ExitCode, LabError
from producer import output
from producer.diagnose import judging, running
from producer.diagnose.finding import Finding
from producer.diagnose.reading import read
from producer.diagnose.running import Ran
from producer.names import BadName
from producer.progress import Progress

NEEDS_FORK = ("main_guard", "lambda", "lock_each")
"""Confusions with which a script does not get far where each process runs the file again."""
ELSEWHERE = {
    "threads": ("main_guard", "lambda", "lock_each", "unsendable", "nested", "global"),
    "cluster": ("lambda",),
}
"""Confusions of processes that are none in another place: threads share all there is, and a fleet sends functions whole."""
ALONE = re.compile(
    r"^(?:Process (?P<process>\S+):|Exception in thread (?P<thread>.+?)(?: \(.*\))?:)\n(?P<told>Traceback.*\n(?:[ \t].*\n)*)"
    r"(?P<raised>\w.*)$",
    re.MULTILINE,
)
"""What is written to stderr of a process or thread that ends by an exception."""
NOTHING = "None of the confusions that are known here."


class NotPython(LabError, ValueError):
    """The file is no script that could be read."""

    exit_code = ExitCode.USAGE


def diagnose(script: str, args: list[str], place: str, limit: float, runs: bool, as_json: bool) -> ExitCode:
    """Diagnose a script.

    Args:
        script: Its path.
        args: Its arguments.
        place: Where it is run.
        limit: Seconds after which it is ended.
        runs: Whether it is run at all.
        as_json: Whether to write JSON, and nothing else, to stdout.

    Returns:
        0 if it has none of the confusions and ended well; else 1.

    Raises:
        BadName: There is no such file.
        NotPython: It cannot be read.
    """
    found = [each for each in _read(script) if each.confusion not in ELSEWHERE.get(place, ())]
    ran = None
    if runs:
        progress = Progress(None if as_json else sys.stderr)
        progress.say(f"running {script}, for {limit:g} s at most ...")
        ran = running.run(script, args, place, _method(found, place), limit)
        progress.clear()
        found = together(found, judging.judge(ran, script))
    failure = failed(ran) if ran else ""
    if as_json:
        output.write_json(_as_json(script, found, ran, failure))
    else:
        output.write(_text(script, found, ran, failure))
    return ExitCode.CHECK_FAILED if found or failure else ExitCode.OK


def _read(script: str) -> list[Finding]:
    if os.path.isdir(script):
        raise BadName(f"{script!r} is a directory.", "Name a script in it: producer diagnose SCRIPT.py")
    try:
        source = Path(script).read_bytes()
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or exc
        raise BadName(
            f"Cannot read {script!r}: {reason}.", "Type the path of a Python file: producer diagnose SCRIPT.py"
        ) from exc
    try:
        return read(source, script)
    except (SyntaxError, ValueError) as exc:
        raise NotPython(f"{script} is not Python: {exc}", f"See what Python says of it: python {script}") from exc
    except RecursionError as exc:
        raise NotPython(
            f"{script} is nested too deeply to be read.", f"Run it: producer run {script} --on processes"
        ) from exc


def _method(found: list[Finding], place: str) -> str:
    """The start method with which the script gets furthest."""
    forks = place == "processes" and hasattr(os, "fork") and any(each.confusion in NEEDS_FORK for each in found)
    return "fork" if forks else ""


def together(read_: list[Finding], seen: list[Finding]) -> list[Finding]:
    """What was read and what was seen, each confusion at a line once; what was seen is sure."""
    found = {(each.confusion, each.line): each for each in read_}
    lines = {each.confusion: each.line for each in reversed(read_)}
    for each in seen:
        line = (
            each.line if (each.confusion, each.line) in found or each.confusion not in lines else lines[each.confusion]
        )
        before = found.get((each.confusion, line))
        says = f"{before.says} {each.says}" if before else each.says
        found[each.confusion, line] = Finding(each.confusion, line, says, True, "read and run" if before else "run")
    return sorted(found.values(), key=lambda each: (each.confusion == "hangs", each.line, each.confusion))


def advice(finding: Finding, found: list[Finding], script: str) -> str:
    """What to type next; of a script that does not end and has confusions, about the first of these."""
    return (finding if finding.lesson else found[0]).next(script)


def failed(ran: Ran) -> str:
    """How a run failed, in one line; empty if it did not."""
    last = next(iter(ran.stderr.strip().splitlines()[-1:]), "it said nothing on stderr")
    if ran.code is None:
        return (
            ""
            if ran.hangs
            else f"It was still at work after {ran.seconds:.0f} s, and was ended: give it longer with --limit."
        )
    if ran.code:
        return f"It ended with {ran.code}: {last}"
    raised = ALONE.search(ran.stderr)
    return f"It ended with 0, and {_of_whom(raised)} raised {raised['raised']}." if raised else ""


def _of_whom(raised: re.Match[str]) -> str:
    """Who ended by an exception, and in which line."""
    lines = judging.LINE.findall(raised["told"])
    return f"{raised['process'] or raised['thread']}, in line {lines[-1][1]}," if lines else str(raised["process"])


def _text(script: str, found: list[Finding], ran: Ran | None, failure: str) -> str:
    parts = []
    for each in found:
        may = "" if each.sure else ", it may be"
        where = f"line {each.line}" if each.line else "somewhere"
        parts.append(f"{script}, {where}: {each.title}{may}.\n  {each.says}\n  next: {advice(each, found, script)}\n")
    if not found:
        parts.append(f"{script}: {NOTHING}\n")
    if ran is None:
        parts.append("It was read, and not run.\n")
    elif failure:
        parts.append(f"{failure}\n")
    else:
        how = f"It was run on {ran.place}{f' (started by {ran.method})' if ran.method else ''}"
        parts.append(f"{how}, and ended after {ran.seconds:.1f} s.\n" if ran.code is not None else f"{how}.\n")
    return "\n".join(parts)


def _as_json(script: str, found: list[Finding], ran: Ran | None, failure: str) -> dict[str, Any]:
    run: dict[str, Any] | None = None
    if ran is not None:
        run = {
            "place": ran.place,
            "start method": ran.method or None,
            "code": ran.code,
            "seconds": round(ran.seconds, 2),
            "ended": ran.code is not None,
            "hangs": ran.hangs,
            "failure": failure or None,
            "where": [
                {"process": name, "line": line, "text": text, "in": function}
                for name, line, text, function in judging.stands(ran, os.path.abspath(script))
            ],
            "stdout": ran.stdout[-running.TOLD :],
            "stderr": ran.stderr,
        }
    return {
        "script": script,
        "ok": not found and not failure,
        "findings": [{**each.to_json(), "next": advice(each, found, script)} for each in found],
        "run": run,
    }
