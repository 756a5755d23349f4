"""A limit on one call: how long it may take, and how often it is tried.

``limited(function, timeout=2, retries=1)`` is the function with that limit: a callable of its own, which goes wherever the
function goes, so no signature of the standard library changes and no argument of the function can be taken for the limit.

Who ends a call whose time is up depends on where it runs:

* in a process of a pool on the cluster, its kernel: SIGALRM, which nobody handles, ends the process, whatever it does just
  then, C code that keeps the GIL included. The pool replaces it. What the caller gets was laid down before the call began;
* in the main thread of any other process, the alarm: it raises in the call, which ends waiting and Python code. C code that
  does not return to the interpreter goes on until it does;
* in any other thread, nobody: Python cannot end a thread from outside. The call goes on to its end, and fails then.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any, Generic, ParamSpec, Protocol, TypeVar

from lab.errors import CallOverdue

P = ParamSpec("P")
T = TypeVar("T")

SHOWN = 40
"""Characters of an argument that an error shows."""


def limited(function: Callable[P, T], timeout: float | None = None, retries: int = 0) -> Limited[P, T]:
    """A function with a limit on each of its calls.

    Args:
        function: What is called.
        timeout: Seconds from the moment in which the call begins; None for no limit.
        retries: How often a call that raised an Exception, or whose time was up, is tried again. What it did until then,
            it does again.

    Raises:
        TypeError, ValueError: It is no function, or no limit.
    """
    if not callable(function):
        raise TypeError(f"what is limited must be callable, not {function!r}")
    if timeout is not None and not timeout > 0:
        raise ValueError(f"timeout must be more than 0 seconds, not {timeout!r}")
    if not isinstance(retries, int):
        raise TypeError(f"retries must be an integer, not {retries!r}")
    if retries < 0:
        raise ValueError(f"retries must be 0 or more, not {retries!r}")
    return Limited(function, timeout, retries)


class Host(Protocol):
    """What a pool's process is to the limited calls that run in it: it can be ended under them.

    Attributes:
        host: The name of the host that it is on.
    """

    host: str

    def before_limited(self, error: CallOverdue, failed: int, retries: int) -> int:
        """Make sure that this process holds no other call, and that the caller gets this error if it is ended now.

        Args:
            error: What the caller gets if no retry is left.
            failed: Attempts at the call that failed in this process.
            retries: How often it may be tried again, in all processes.

        Returns:
            How many attempts ended with other processes before.
        """


host: Host | None = None
"""Set in a process that may be ended under a call, as the pool whose it is replaces it."""


class Limited(Generic[P, T]):
    """The function that ``limited`` returns.

    Attributes:
        function, timeout, retries: What it was given.
    """

    # No dict: excluded, by functools.update_wrapper, one whose own ``function`` becomes this one's (scikit-learn's delayed).
    __slots__ = ("__weakref__", "function", "retries", "timeout")

    def __init__(self, function: Callable[P, T], timeout: float | None, retries: int) -> None:
        self.function, self.timeout, self.retries = function, timeout, retries

    def __call__(self, *args: P.args, **kwds: P.kwargs) -> T:
        """Call it.

        Raises:
            CallOverdue: It took too long, in every attempt.
        """
        failed = 0
        while True:
            attempt = _Attempt(self, failed, args, kwds)
            attempt.announce()
            try:
                return attempt.run()
            except Exception as exc:
                failed += 1
                if attempt.earlier + failed > self.retries:
                    if self.retries:
                        exc.add_note(f"This was the last of {self.retries + 1} attempts.")
                    raise

    def __repr__(self) -> str:
        return f"limited({self.function!r}, timeout={self.timeout!r}, retries={self.retries!r})"

    @property
    def __name__(self) -> str:
        """The function's."""
        return _name(self.function)


def is_limited(function: Any) -> bool:
    """Whether a call of this is a limited one: it, what it is a ``functools.partial`` of, or what it is wrapped around."""
    while not isinstance(function, Limited):
        # Not by getattr: an object that has an attribute of every name has one without end.
        inside = getattr(function, "__dict__", {})
        function = function.func if isinstance(function, partial) else inside.get("func") or inside.get("function")
        if function is None:
            return False
    return True


class _Alarm(BaseException):
    """The time is up; not an Exception, so that ``except Exception`` in the call lets it pass."""


class _Attempt(Generic[P, T]):
    """One attempt at a call.

    Attributes:
        earlier: Attempts that ended with other processes.
    """

    innermost: _Attempt[Any, Any] | None = None
    """Whose alarm is on; in the main thread."""

    def __init__(self, limited: Limited[P, T], failed: int, args: Any, kwds: Any) -> None:
        self._limited, self._failed, self._args, self._kwds = limited, failed, args, kwds
        self.earlier = 0
        self._seconds = limited.timeout or 0.0
        self._begun = time.monotonic()
        self._outer = _Attempt.innermost if threading.current_thread() is threading.main_thread() else None
        # What the limit of a call around this one ends sooner, it ends as that.
        self._alarmed = (
            limited.timeout is not None
            and threading.current_thread() is threading.main_thread()
            and (self._outer is None or self._outer._left() > limited.timeout)
        )
        self._fired = False
        self._handler: Any = None
        self._timer = (0.0, 0.0)

    def announce(self) -> None:
        """Lay down what becomes of the call if this process is ended under it."""
        if self._alarmed and host is not None:
            error = self._error(f"its process on host {host.host} was ended")
            self.earlier = host.before_limited(error, self._failed, self._limited.retries)

    def run(self) -> T:
        """Make it."""
        self._begun = time.monotonic()
        try:
            try:
                self._arm()
                result = self._limited.function(*self._args, **self._kwds)
            finally:
                self._disarm()
        except _Alarm as alarm:
            if not self._fired:
                raise
            if _Attempt.innermost is self:
                self._disarm()  # the alarm came in the middle of that; it comes only once
            raise self._error("its time was up") from alarm
        if self._limited.timeout is not None and self._left() < 0:
            took = time.monotonic() - self._begun
            raise self._error(f"it took {took:.3g} s, in a thread or in code that nobody can end from outside")
        return result

    def _arm(self) -> None:
        if self._alarmed:
            self._handler = signal.signal(signal.SIGALRM, signal.SIG_DFL if host is not None else _raise)
            _Attempt.innermost = self
            self._timer = signal.setitimer(signal.ITIMER_REAL, self._seconds)

    def _disarm(self) -> None:
        """Leave the alarm as it was found."""
        if not self._alarmed:
            return
        _Attempt.innermost = None  # first: an alarm that is already on its way is nobody's
        signal.setitimer(signal.ITIMER_REAL, 0)
        left, interval = self._timer
        if self._outer is not None:
            self._outer.announce()
            left = self._outer._left()
        elif left:
            left -= time.monotonic() - self._begun
        if self._handler is not None:
            signal.signal(signal.SIGALRM, self._handler)
        _Attempt.innermost = self._outer
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(left, 1e-6), interval)

    def _left(self) -> float:
        return self._begun + self._seconds - time.monotonic()

    def _error(self, how: str) -> CallOverdue:
        tries = self._limited.retries + 1
        attempts = f", in the last of {tries} attempts" if tries > 1 else ""
        call = _in_words(self._limited.function, self._args, self._kwds)
        return CallOverdue(
            f"{call} was not done after {self._seconds:g} s{attempts}: {how}.",
            "Allow it more time (lab.limited, timeout=), or see where it spends it: producer stack",
        )


def _raise(_signum: int, _frame: FrameType | None) -> None:
    if (attempt := _Attempt.innermost) is not None:
        attempt._fired = True
        raise _Alarm


def _name(function: Any) -> str:
    named = getattr(function, "func", function)  # of a functools.partial
    return str(getattr(named, "__qualname__", None) or type(named).__name__)


def _in_words(function: Any, args: tuple[Any, ...], kwds: dict[str, Any]) -> str:
    """The call, as one would type it; of what may be large, or may have a repr of its own, the class."""
    words = [_shown(arg) for arg in args] + [f"{name}={_shown(arg)}" for name, arg in kwds.items()]
    return f"{_name(function)}({', '.join(words)})"


def _shown(arg: Any) -> str:
    if type(arg) not in (int, float, complex, bool, str, bytes, type(None)):
        return f"<{type(arg).__name__}>"
    text = repr(arg[: SHOWN + 1] if isinstance(arg, (str, bytes)) else arg)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
