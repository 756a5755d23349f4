"""What a test asks of processes: whether they live, and that they die with it."""

from __future__ import annotations

from pathlib import Path

from worker.lifeline import end_with_parent


def die_with_us() -> None:
    """In a child: die with the process that started it, however that dies."""
    end_with_parent()


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and has not been waited for does not (Linux)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
