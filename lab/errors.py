"""What one host cannot suffer: the errors that only a fleet can raise.

Where multiprocessing has an error of its own for a case (``queue.Empty``, ``EOFError``, ``ValueError`` ...) the lab
raises that one. The classes here are for the rest. Each says what happened with the numbers, carries a hint with the
next command to type, and pickles, so that it can cross a host like any other exception.
"""

from __future__ import annotations

from enum import IntEnum
from multiprocessing import AuthenticationError


class ExitCode(IntEnum):
    """What the producer's commands return to the shell; 2 is the shell's own convention for bad usage."""

    OK = 0
    CHECK_FAILED = 1
    USAGE = 2
    BAD_SETTINGS = 3
    BROKER_UNREACHABLE = 4
    WRONG_KEY = 5
    NO_WORKERS = 6
    NOT_ENOUGH_SLOTS = 7
    LOST = 8
    FLEET_FAILED = 9
    WRONG_VERSION = 10
    CANNOT_LOAD = 11
    SOME_FAILED = 12
    STOPPED = 13
    OUTPUT_FAILED = 14
    NOT_READY = 15
    JOB_FAILED = 16
    NO_SUCH_JOB = 17


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


class WrongKey(LabError, AuthenticationError):
    """Two sides of the fleet hold different authkeys, or a payload carries no valid signature."""

    exit_code = ExitCode.WRONG_KEY


class WrongVersion(LabError, RuntimeError):
    """A host of the fleet runs another version of Crosshost than this program."""

    exit_code = ExitCode.WRONG_VERSION


class NoWorkers(LabError, RuntimeError):
    """Redis answers, but no host of a fleet is alive on it."""

    exit_code = ExitCode.NO_WORKERS


class NotEnoughSlots(LabError, RuntimeError):
    """No slot of the fleet became free to start a process in the time allowed."""

    exit_code = ExitCode.NOT_ENOUGH_SLOTS


class WorkerLost(LabError, RuntimeError):
    """A call was given up because every process that took it died."""

    exit_code = ExitCode.LOST


class LeaseLost(LabError, RuntimeError):
    """This process was taken for dead: its locks were given away, and what it sends now is refused."""

    exit_code = ExitCode.LOST


class ObjectGone(LabError, ConnectionRefusedError):
    """A managed object is not there any more: its manager was shut down, or its run has ended."""

    exit_code = ExitCode.LOST


class NotReady(LabError, RuntimeError):
    """The result of a job was asked for before the job had ended."""

    exit_code = ExitCode.NOT_READY


class JobFailed(LabError, RuntimeError):
    """A job has no result, as one of its chunks failed for good or it was cancelled."""

    exit_code = ExitCode.JOB_FAILED


class NoSuchJob(LabError, LookupError):
    """No job of this id is known; it may have expired."""

    exit_code = ExitCode.NO_SUCH_JOB


class FleetFailed(LabError, RuntimeError):
    """The embedded fleet did not start, or ended by itself."""

    exit_code = ExitCode.FLEET_FAILED


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


class ProgramTooLarge(LabError, ValueError):
    """A program has more source of its own than hosts accept."""

    exit_code = ExitCode.CANNOT_LOAD
