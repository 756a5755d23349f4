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


class FleetFailed(LabError, RuntimeError):
    """The embedded fleet did not start, or ended by itself."""

    exit_code = ExitCode.FLEET_FAILED
