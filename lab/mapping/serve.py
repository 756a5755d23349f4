"""A worker at one end of a pipe, on the producer's host: takes chunks, answers them, and goes when the pipe ends."""

from __future__ import annotations

import signal
import threading
from typing import Any

from lab.mapping.chunk import Job


def serve(conn: Any, job: Job) -> None:
    """Do what comes through the pipe until its other end is closed, by the producer or by its death."""
    _leave_signals_alone()
    while True:
        try:
            payloads = conn.recv()
        except (EOFError, OSError):
            return
        try:
            answer: Any = job.run(payloads)
        except Exception as exc:  # noqa: BLE001 - the function cannot be loaded: for the producer to tell
            answer = exc
        try:
            conn.send(answer)
        except OSError:
            return


def _leave_signals_alone() -> None:
    """Ctrl-C goes to all processes of a terminal, and is for the producer. A forked child has its handlers, too."""
    if threading.current_thread() is threading.main_thread():
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
