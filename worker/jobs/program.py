"""``program``: a user's own program, whose root runs on this host as a process of its own until it ends.

The task is the root's parent: it reads what the root prints, looks whether somebody has cancelled it, and tells how it ended.
It takes a slot for jobs. The processes that the root starts are placed on the hosts like those of any program, so a root
never waits for a slot that it has itself.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from types import FrameType
from typing import Any

from celery import shared_task
from celery.exceptions import Ignore

from lab.jobs.programs import (
    FOREVER,
    INPUT,
    PIECE,
    RESULT,
    STDERR,
    STDOUT,
    TASK,
    Asked,
    End,
    ProgramFailed,
    ProgramLost,
    Programs,
)
from lab.jobs.records import begun_keys
from lab.program.shipped import PACKED
from worker.allowance import Allowance
from worker.archives import in_memory
from worker.copies import Copies
from worker.jobs.task import JobTask, patiently

BEAT = 0.5
"""Seconds between two looks whether it was cancelled, or another host has taken it over."""
PACE = 0.05
"""Seconds between two pieces of output: what is printed in between is one piece, and who prints without end waits, as at a
full pipe."""
GRACE = 3.0
"""Seconds that a cancelled program has to end after SIGTERM."""
LAST = 1 << 20
"""Bytes that are read of each pipe when the program has ended."""
MOST = PACKED + 2 * INPUT


class Superseded(Exception):
    """Another host has begun this program since, as this one was taken for dead."""


class Cancelled(Exception):
    """Somebody has cancelled it."""


@shared_task(
    base=JobTask, name=TASK, bind=True, throws=(ProgramFailed, ProgramLost), soft_time_limit=FOREVER, time_limit=FOREVER
)
def run(self: Any) -> int:
    """Run a program to its end; its exit code, which is 0."""
    job_id, attempt, here = self.request.id, self.request.begun.runs, self.app.settings.host
    records = self.app.records
    programs = Programs(records)
    begun = patiently(partial(programs.begin, job_id, attempt, MOST))
    if begun.end is not None:
        return _outcome(begun.end)  # an earlier run has said so, and could not say that it was done
    number = begun.printed
    if attempt > 1:
        earlier = patiently(partial(records.earlier, job_id, self.request.retries, self.request.its_run))
        lost = " and ".join(
            f"{host} {'was stopped' if left else 'died, or its worker, or it was cut off'}" for host, left in earlier
        )
        if not begun.asked.restart:
            error = f"host {lost} while it ran there, and it was not to be started again (--restart)"
            end = End(-signal.SIGKILL, earlier[-1][0] if earlier else here, error=error)
            patiently(partial(programs.ended, job_id, attempt, end))
            raise ProgramLost(end.error)
        said = f"crosshost: host {lost}; the program begins again, on {here}\n".encode()
        patiently(partial(programs.append, job_id, attempt, number, STDERR, said))
        number += 1
    root = _Root(programs, job_id, attempt, number, begun_keys(job_id, self.request.retries), here)
    try:
        end = root.run(begun.asked, begun.archive, Allowance(self.app.settings))
    except Superseded:
        raise Ignore from None
    except Cancelled:
        self.update_state(state="REVOKED")
        raise Ignore from None
    if not patiently(partial(programs.ended, job_id, attempt, end)):
        raise Ignore
    return _outcome(end)


def _outcome(end: End) -> int:
    if not end.well:
        raise ProgramFailed(end.described)
    return end.exit_code


class _Root:
    """The root's process, as its parent sees it.

    Args:
        programs: Where to write what it prints.
        job_id: The job.
        attempt: Which run of it this is.
        number: The number of its next piece of output.
        begun: The keys in which it is noted who began it, to be renewed.
        host: This host.
    """

    def __init__(self, programs: Programs, job_id: str, attempt: int, number: int, begun: list[str], host: str) -> None:
        self._programs, self._job_id, self._attempt, self._number = programs, job_id, attempt, number
        self._begun, self._host = begun, host
        self._renew_at = 0.0

    def run(self, asked: Asked, archive: bytes, allowance: Allowance) -> End:
        """Start it, and see it to its end.

        Raises:
            Superseded, Cancelled: It had to end.
            BrokerUnreachable: Redis was away for too long to go on.
        """
        self._allowance = allowance
        files = [in_memory(json.dumps(asdict(asked)).encode()), in_memory(archive), in_memory(b"")]
        self._copies = Copies()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "worker.root", *map(str, (self._copies.folder, os.getpid(), *files))],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=files,
                start_new_session=True,
            )  # fmt: skip
            before = signal.signal(signal.SIGTERM, self._end_with_slot)
            try:
                self._serve()
            finally:
                self._kill(signal.SIGKILL)  # whoever it left behind, too
                self._process.wait()
                self._drain()
                signal.signal(signal.SIGTERM, before)
            return self._end(asked, files[2])
        finally:
            self._copies.close()
            for fd in files:
                os.close(fd)

    def _end_with_slot(self, signum: int, _frame: FrameType | None) -> None:
        """The slot is ended, as its host stops: leave nobody of the program behind."""
        self._kill(signal.SIGKILL)
        self._copies.close()
        signal.signal(signum, signal.SIG_DFL)
        os.kill(os.getpid(), signum)

    def _kill(self, signum: int) -> None:
        with suppress(ProcessLookupError, PermissionError):  # the latter of a group that has ended, on macOS
            os.killpg(self._process.pid, signum)

    def _serve(self) -> None:
        streams = {self._process.stdout: STDOUT, self._process.stderr: STDERR}
        look_at = 0.0
        with selectors.DefaultSelector() as selector:
            for pipe, name in streams.items():
                assert pipe is not None
                os.set_blocking(pipe.fileno(), False)
                selector.register(pipe, selectors.EVENT_READ, name)
            while self._process.poll() is None:
                if time.monotonic() >= look_at:
                    self._look()
                    look_at = time.monotonic() + BEAT
                if not selector.get_map():
                    with suppress(subprocess.TimeoutExpired):  # it has closed both, or has just ended
                        self._process.wait(BEAT)
                    continue
                ready = selector.select(max(0.0, look_at - time.monotonic()))
                for key, _ in ready:
                    if not self._forward(key.fd, key.data):
                        selector.unregister(key.fileobj)  # it will print nothing more there
                if ready:
                    time.sleep(PACE)

    def _look(self) -> None:
        ours, cancelled = patiently(partial(self._programs.beat, self._job_id, self._attempt))
        if cancelled:
            self._terminate()
            raise Cancelled
        if not ours:
            raise Superseded
        if time.monotonic() >= self._renew_at:
            patiently(partial(self._programs.renew, self._job_id, *self._begun))
            self._renew_at = time.monotonic() + self._programs.renew_every

    def _terminate(self) -> None:
        self._kill(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE)

    def _forward(self, fd: int, stream: str) -> bool:
        """Send on what lies in a pipe; whether more may come."""
        data = os.read(fd, PIECE)
        kept = self._allowance.of(len(data))
        if kept:
            self._append(stream, data[:kept])
        if kept < len(data) and (last := self._allowance.last_words()):
            self._append(STDERR, last.encode())
        return bool(data)

    def _append(self, stream: str, data: bytes) -> None:
        append = partial(self._programs.append, self._job_id, self._attempt, self._number, stream, data)
        if not patiently(append):
            raise Superseded
        self._number += 1

    def _drain(self) -> None:
        """Send on what it printed last, and no more than pipes hold: somebody who left its group may print without end."""
        for pipe, name in ((self._process.stdout, STDOUT), (self._process.stderr, STDERR)):
            assert pipe is not None
            with pipe, suppress(BlockingIOError, Superseded):
                left = LAST
                while left > 0 and self._forward(pipe.fileno(), name):
                    left -= PIECE

    def _end(self, asked: Asked, outcome: int) -> End:
        size = os.fstat(outcome).st_size
        said = json.loads(os.pread(outcome, size, 0)) if 0 < size <= 2 * RESULT else {}
        code = self._process.returncode
        if asked.function and code == 0 and "result" not in said:
            said["error"] = f"{asked.typed} ended the program before it returned"
        return End(code, self._host, **said)
