"""Where a process of any program is now, asked of its host by whoever holds the fleet's key.

On Redis: the question goes to ``commands:HOST/NONCE`` of the run, where the host hears of signals (``worker.inbox``), and
the answer comes on ``stack:TICKET``, a list that nobody else knows of. Both are sealed.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass

from lab.errors import LabError, WorkerLost
from lab.settings import Settings
from lab.store.run import Run
from lab.store.script import Script
from lab.store.store import Store

PATIENCE = 5.0
"""Seconds for an answer."""

TELL = Script(
    """
local inbox = alive(ARGV[3]) and redis.call('HGET', KEYS[3], 'inbox')
if inbox then push(inbox, ARGV[3] .. ' ' .. ARGV[4]) end
return inbox and 1 or 0
""",
    numbered=False,  # the second copy is refused by the host
)


@dataclass(frozen=True)
class Frame:
    """One line of a stack.

    Attributes:
        file: Path of the source, on the host or where the program was started.
        line: Line in it.
        function: Which runs there.
        own: Whether it is the program's, and not of Crosshost, Python or what is installed.
    """

    file: str
    line: int
    function: str
    own: bool

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}"


@dataclass(frozen=True)
class Thread:
    """One thread of a process.

    Attributes:
        current: Whether it is the one that received the signal, which is the main one as a rule.
        frames: Innermost first.
    """

    current: bool
    frames: list[Frame]

    @property
    def where(self) -> Frame | None:
        """The innermost line of the program's own; None for a thread of the machinery."""
        return next((frame for frame in self.frames if frame.own), None)

    @property
    def waits(self) -> bool:
        """Whether it is inside an operation on a lock, a semaphore, a condition or what is made of them."""
        return any(frame.file.endswith("lab/cluster/synchronize.py") for frame in self.frames)


@dataclass(frozen=True)
class Stack:
    """Where a process is.

    Attributes:
        process: Its id in its run.
        host: Its host.
        pid: Its id there.
        stopped: Whether it is stopped (SIGSTOP), so that it cannot say where.
        threads: Its threads, the main one first.
    """

    process: str
    host: str
    pid: int
    stopped: bool
    threads: list[Thread]

    @property
    def program_threads(self) -> list[Thread]:
        """Those that run the program's own code."""
        return [thread for thread in self.threads if thread.where]

    @property
    def waits_at(self) -> Frame | None:
        """The program's line at which it waits for a lock or the like."""
        return next((thread.where for thread in self.program_threads if thread.waits), None)


def ask(settings: Settings, store: Store, run_id: str, process: str, patience: float = PATIENCE) -> Stack:
    """Ask the host of a process where that is now.

    Raises:
        WorkerLost: It is not there, or does not answer in time.
        LabError: Redis is not there, or what came back was not sealed by a holder of the key.
    """
    ticket = secrets.token_hex(8)
    run = tell(settings, store, run_id, process, f"stack {ticket}")
    answer = run.key("stack", ticket)
    replies = store.wait(lambda left: ("BLPOP", answer, left), patience)
    if not replies:
        raise WorkerLost(
            f"Process {process} of run {run_id} did not say within {patience:g} s where it is.",
            "Its host is silent, or the process cannot be interrupted. See: producer workers",
        )
    said = json.loads(bytes(run.unseal(answer, replies[0][1])))
    threads = [Thread(each["current"], [Frame(**frame) for frame in each["frames"]]) for each in said["threads"]]
    return Stack(process, said["host"], said["pid"], said["stopped"], threads)


def tell(settings: Settings, store: Store, run_id: str, process: str, words: str) -> Run:
    """Have the host of a process do something with it.

    Args:
        settings: With the fleet's key.
        store: Redis.
        run_id: The run of the process.
        process: Its id.
        words: What: the number of a signal that it is to be sent; or "stack" and a ticket.

    Returns:
        The run, as whoever tells is in it.

    Raises:
        WorkerLost: It is not there.
    """
    run = Run(settings, store, run_id, f"watcher-{secrets.token_hex(5)}")
    sealed = run.seal(run.key("commands", process), words.encode())
    if not run.eval(TELL, [run.key("process", process)], process, sealed):
        raise WorkerLost(f"There is no process {process} in run {run_id}, or no longer.", "See: producer top --once")
    return run


def ask_all(settings: Settings, store: Store, processes: list[tuple[str, str]]) -> dict[tuple[str, str], Stack]:
    """Ask several, each by run and process; who does not answer is missing."""
    stacks = {}
    for run_id, process in processes:
        try:
            stacks[run_id, process] = ask(settings, store, run_id, process, PATIENCE / 2)
        except LabError:
            continue
    return stacks
