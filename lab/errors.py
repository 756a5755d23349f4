"""What one host cannot suffer: the errors that only a fleet can raise.

Where multiprocessing has an error of its own for a case (``queue.Empty``, ``EOFError``, ``ValueError`` ...) the lab
raises that one. The classes here are for the rest. Each says what happened with the numbers, carries a hint with the
next command to type, and pickles, so that it can cross a host like any other exception.
"""

from __future__ import annotations

from enum import IntEnum
from multiprocessing import AuthenticationError


class ExitCode(IntEnum):
    """What the producer's commands return to the shell; 2, 130 and 143 are the shell's own conventions.

    Attributes:
        meaning: When a command ends with it. ``producer --help`` and ``docs/exit-codes.md`` say the same.
    """

    meaning: str

    def __new__(cls, value: int, meaning: str) -> ExitCode:
        """A code with its meaning."""
        code = int.__new__(cls, value)
        code._value_, code.meaning = value, meaning
        return code

    OK = 0, "all went well; every claim that was checked held"
    CHECK_FAILED = 1, "a claim did not hold, a program failed or has a confusion, or the doctor found something wrong"
    USAGE = 2, "what was typed cannot be done, or --resume refused"
    BAD_SETTINGS = 3, "a CROSSHOST_ variable has a value that cannot be used"
    BROKER_UNREACHABLE = 4, "Redis does not answer, no longer does, or has no memory left"
    WRONG_KEY = 5, "two sides hold different authkeys, or a signature is not valid"
    NO_WORKERS = 6, "no fleet is configured, or none of its hosts is alive"
    NOT_ENOUGH_SLOTS = 7, "no host had room for a process in time"
    LOST = 8, "a worker died under its work, or a lease ran out"
    FLEET_FAILED = 9, "the embedded fleet did not start, or ended by itself"
    WRONG_VERSION = 10, "a host runs another version of Crosshost"
    CANNOT_LOAD = 11, "a host cannot load the program, or it cannot be sent"
    SOME_FAILED = 12, "map went on, and some of its items failed"
    STOPPED = 13, "map stopped at an item that failed"
    OUTPUT_FAILED = 14, "the output cannot be written"
    NOT_READY = 15, "the job has not ended yet"
    JOB_FAILED = 16, "the job failed or was cancelled, so there is no result"
    NO_SUCH_JOB = 17, "no job of this id is known, or no longer"
    JOB_ENDED = 18, "the job had ended before it could be cancelled"
    INTERRUPTED = 130, "Ctrl-C"
    TERMINATED = 143, "SIGTERM"


class LabError(Exception):
    """Base of the lab's own errors.

    Args:
        message: What happened, with the numbers.
        hint: Why, and the next command to type.
    """

    exit_code = ExitCode.CHECK_FAILED

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class BadSettings(LabError, ValueError):
    """A variable of the environment has a value that cannot be used."""

    exit_code = ExitCode.BAD_SETTINGS


class BrokerUnreachable(LabError, ConnectionError):
    """Redis does not answer, or no longer does."""

    exit_code = ExitCode.BROKER_UNREACHABLE


class NotTrusted(BrokerUnreachable):
    """What answers in Redis's place cannot prove by its certificate that it is Redis; nothing was sent to it."""


class RedisFull(BrokerUnreachable):
    """Redis answers, but has no memory left for what it is sent."""


class KeyLost(BrokerUnreachable):
    """What this program had in Redis is gone from there, or something else lies in its place.

    Args:
        message: What happened.
        hint: Why, and what to do.
        named: Whether the message names the key.
    """

    HINT = (
        "Somebody has deleted, flushed or overwritten it, or Redis has evicted it. Set maxmemory-policy noeviction, "
        "and leave crosshost:* alone; docs/outages.md says what is noticed, and when."
    )

    def __init__(self, message: str, hint: str = HINT, named: bool = False) -> None:
        super().__init__(message, hint)
        self.named = named

    @classmethod
    def gone(cls, key: str, what: str) -> KeyLost:
        """The error for what should be under a key, and is not."""
        return cls(f"Redis has lost what was in {key}: {what}.", named=True)


class WrongKey(LabError, AuthenticationError):
    """Two sides of the fleet hold different authkeys, or a payload does not open with what this side holds."""

    exit_code = ExitCode.WRONG_KEY


class WrongVersion(LabError, RuntimeError):
    """A host of the fleet runs another version of Crosshost than this program."""

    exit_code = ExitCode.WRONG_VERSION


class NoWorkers(LabError, RuntimeError):
    """Redis answers, but no host of a fleet is alive on it."""

    exit_code = ExitCode.NO_WORKERS


class NotEnoughSlots(LabError, RuntimeError):
    """No host of the fleet had room for a process in the time allowed."""

    exit_code = ExitCode.NOT_ENOUGH_SLOTS


class WorkerLost(LabError, RuntimeError):
    """A call was given up because every process that took it died."""

    exit_code = ExitCode.LOST


class CallOverdue(LabError, TimeoutError):
    """A call took longer than it was allowed to (``lab.limited``)."""


class LeaseLost(LabError, RuntimeError):
    """This process was taken for dead: its locks were given away, and what it sends now is refused."""

    exit_code = ExitCode.LOST


class ObjectGone(LabError, ConnectionRefusedError):
    """A managed or shared object is not there any more: its manager was shut down, nobody has it, or its run has ended."""

    exit_code = ExitCode.LOST


class NotReady(LabError, RuntimeError):
    """The result of a job was asked for before the job had ended."""

    exit_code = ExitCode.NOT_READY


class JobFailed(LabError, RuntimeError):
    """A job has no result, as one of its chunks failed for good or it was cancelled."""

    exit_code = ExitCode.JOB_FAILED


class JobEnded(LabError, RuntimeError):
    """A job was to be cancelled, and had ended."""

    exit_code = ExitCode.JOB_ENDED


class NoSuchJob(LabError, LookupError):
    """No job of this id is known; it may have expired."""

    exit_code = ExitCode.NO_SUCH_JOB


class FleetFailed(LabError, RuntimeError):
    """The embedded fleet did not start, or ended by itself."""

    exit_code = ExitCode.FLEET_FAILED


class NotHere(LabError, ValueError):
    """A place that there is not on this machine, or not in this Python."""

    exit_code = ExitCode.USAGE


class CannotLoad(LabError, RuntimeError):
    """A host could not load the program, for example because it lacks a module."""

    exit_code = ExitCode.CANNOT_LOAD

    @classmethod
    def on(cls, host: str, error: str, lacks: str | None) -> CannotLoad:
        """The error of one host.

        Args:
            host: Its name.
            error: The exception, in one line.
            lacks: The module that is not installed there, if that is the reason.
        """
        hint = "What the host printed says where."
        if lacks:
            hint = f"Install {lacks.partition('.')[0]} on every host of the fleet, in the Python that runs its worker."
        return cls(f"Host {host} could not load the program: {error}", hint)


class CallEnded(LabError):
    """A call was ended, as what waited for it was interrupted."""

    exit_code = ExitCode.INTERRUPTED


class ProgramTooLarge(LabError, ValueError):
    """A program has more source of its own than hosts accept."""

    exit_code = ExitCode.CANNOT_LOAD
