"""An exception on its way to another process, which is told of it even if its class cannot be loaded there.

Pickling an exception is a promise of its class that many break: one with two required arguments pickles, and then does not
unpickle; one that is local to a function does not even pickle; one may not be installed at the other end. So what is sent
is its pickle, as bytes, and beside it what anybody can read: its name, its message and its traceback.
"""

from __future__ import annotations

import traceback
from multiprocessing import pool
from typing import Any

from lab import byvalue
from lab.errors import LabError

_MaybeEncodingError: Any = vars(pool)["MaybeEncodingError"]  # not among the stubs, and what the stdlib's pool raises
_RemoteTraceback: Any = vars(pool)["RemoteTraceback"]
ExceptionWithTraceback: Any = vars(pool)["ExceptionWithTraceback"]


class ForeignError(LabError, _MaybeEncodingError, RuntimeError):  # type: ignore[misc]
    """Stands for an exception or a value that cannot be pickled where it arose, or not be loaded where it arrived.

    Its cause is the traceback of where the exception was raised.

    Attributes:
        value: What it stands for, in words: name and message of the exception.
        exc: Why that could not be had, in words.
    """

    def __init__(self, message: str, hint: str = "", value: str = "", exc: str = "") -> None:
        super().__init__(message, hint)
        self.args = (message, hint)  # it pickles by these, not by those that the stdlib's class made of them
        self.value, self.exc = value, exc


class Failure:
    """An exception that pickles, whatever it is; unpickled, it is the exception itself or a ForeignError.

    Args:
        carrier: The exception, and its traceback as a text, in the stdlib's object that unpickles into the exception with
            that traceback as its cause: its attributes are ``exc`` and ``tb``.
    """

    def __init__(self, carrier: Any) -> None:
        self._carrier = carrier

    @property
    def exc(self) -> BaseException:
        """The exception."""
        exc: BaseException = self._carrier.exc
        return exc

    @classmethod
    def of(cls, exc: BaseException) -> Failure:
        """The failure that an exception was, seen from where it is caught."""
        return cls(ExceptionWithTraceback(exc, exc.__traceback__))

    def __reduce__(self) -> Any:
        exc, tb = self._carrier.exc, self._carrier.tb
        members = getattr(exc, "exceptions", ()) if isinstance(exc, BaseExceptionGroup) else ()
        apart = (exc.message, tuple(map(Failure.of, members))) if members else None
        pickled, error = _pickled(self._carrier)
        return _arrived, (pickled, error, _in_words(exc), tb, _pickled(apart)[0] if members else b"")


def _pickled(obj: Any) -> tuple[bytes, str]:
    """The pickle, and why there is none; a class may do in its ``__reduce__`` what it likes, and end the process too."""
    try:
        return bytes(byvalue.ResultPickler.dumps(obj)), ""
    except BaseException as exc:  # noqa: BLE001
        return b"", _in_words(exc)


def _arrived(pickled: bytes, error: str, words: str, tb: str, members: bytes) -> BaseException:
    """The exception, as far as it can be had here."""
    reason: BaseException | None = None
    if pickled:
        try:
            exc = byvalue.loads(pickled)
            if isinstance(exc, BaseException):
                return exc
            reason = TypeError(f"it unpickles as {type(exc).__name__}, which is not an exception")
        except BaseException as caught:  # noqa: BLE001 - as above
            reason = caught
    foreign: BaseException
    if members:
        foreign = BaseExceptionGroup(*byvalue.loads(members))  # so that ``except*`` finds those that can be had
    else:
        how = f"which cannot be loaded here: {_in_words(reason)}" if reason else f"which cannot be pickled: {error}"
        foreign = ForeignError(
            f"{words}\nThis was raised in another process, as an exception {how}",
            "Pass all its arguments to Exception.__init__, or give it a __reduce__; define it in a module that both have.",
            words,
            _in_words(reason) if reason else error,
        )
    foreign.__cause__ = _RemoteTraceback(tb)
    return foreign


def unloadable(exc: BaseException) -> ForeignError:
    """The error for a value that arrived and cannot be loaded, because of an exception."""
    words = _in_words(exc)
    error = ForeignError(f"The result of a call could not be loaded: {words}", "", "a result", words)
    error.__cause__ = exc
    return error


def _in_words(exc: BaseException) -> str:
    """``module.Class: message``; without running anything of the exception's that could fail."""
    return "".join(traceback.format_exception_only(exc)).strip()
