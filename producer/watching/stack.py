"""Where one process is now."""

from __future__ import annotations

from dataclasses import asdict

from lab.store.run import ROOT
from lab.watching import stack
from producer import output
from producer.watching.fleet import NoSuchProcess, find, printable, spoken, watched


def show(typed: str, as_json: bool) -> None:
    """Write the stacks of a process's threads to stdout, innermost line first; ``>`` marks the program's own.

    Raises:
        NoSuchProcess: What was typed names none, or the program itself.
        LabError: The fleet cannot be reached, or does not answer.
    """
    fleet = watched()
    fleet.settings.require_key()
    run, process = find(fleet.watcher.look(), typed)
    if process.id == ROOT:
        raise NoSuchProcess(
            "The root is the program itself: it runs where it was started, and not on a host of the fleet.",
            "There, Python's own tool shows it: python -m pip install py-spy, then py-spy dump --pid PID",
        )
    found = stack.ask(fleet.settings, fleet.store, run.id, process.id)
    if as_json:
        output.write_json({"run": run.id, "name": process.name, **asdict(found)})
        return
    lines = [f"{spoken(process)} (process {process.id} of run {run.id}): {process.doing} {process.on}".rstrip()]
    if found.stopped:
        lines.append("It is stopped (SIGSTOP), so it cannot say where it is.")
    for number, thread in enumerate(found.threads, 1):
        machinery = "" if thread.where else ", Crosshost's or the stdlib's"
        lines.append(f"thread {number}{' (main)' if thread.current else machinery}, innermost first")
        lines += [f"  {'>' if frame.own else ' '} {frame}" for frame in thread.frames] or ["    no Python code"]
    output.write("".join(printable(line) + "\n" for line in lines))
