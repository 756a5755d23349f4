"""What the workers of the pool tests run, and what they raise."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

given: Any = None


class TwoArguments(Exception):
    """Pickles, and does not unpickle: pickle calls it with its one argument."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} and {b}")


class KeywordOnly(Exception):
    def __init__(self, *, why: str) -> None:
        super().__init__(f"because of {why}")


class OnlyThere(Exception):
    """Loads where it was raised, and not in the program: as if that had not the class."""

    def __reduce__(self) -> Any:
        return load_only_there, self.args


def load_only_there(words: str) -> OnlyThere:
    if "CROSSHOST_HOST" not in os.environ:
        raise ModuleNotFoundError("No module named 'only_there'")
    return OnlyThere(words)


class ExitsWhilePickled:
    def __reduce__(self) -> Any:
        sys.exit(4)


class ExitsWhileLoaded:
    def __reduce__(self) -> Any:
        return leave, (5,)


class ExitsWhileLoadedInRoot:
    """Loads on a host, to be sent on from there, and not in the program."""

    def __reduce__(self) -> Any:
        return load_on_hosts, ()


def load_on_hosts() -> ExitsWhileLoadedInRoot:
    if "CROSSHOST_HOST" not in os.environ:
        sys.exit(7)
    return ExitsWhileLoadedInRoot()


class LoadsNowhere:
    def __reduce__(self) -> Any:
        return refuse_to_load, ()


class NoWords:
    """Neither pickles nor has a repr, so that the stdlib's error for the first fails at the second."""

    def __reduce__(self) -> Any:
        raise TypeError("does not pickle")

    def __repr__(self) -> str:
        raise LookupError("no words for it")


class Sized:
    """An input of a map that is known to have ten items, and raises at the second."""

    def __len__(self) -> int:
        return 10

    def __iter__(self) -> Iterator[int]:
        yield 1
        raise LookupError("in the input")


def leave(code: int) -> None:
    sys.exit(code)


def refuse_to_load() -> None:
    raise LookupError("made to fail while loading")


def local_exception() -> Exception:
    class Local(Exception):
        pass

    return Local("words of the local one")


def chained() -> Exception:
    error = ValueError("with a cause")
    error.__cause__ = TwoArguments(1, 2)
    return error


UNLOADABLE: dict[str, Callable[[], Exception]] = {
    "TwoArguments: 1 and 2": lambda: TwoArguments(1, 2),
    "KeywordOnly: because of a keyword": lambda: KeywordOnly(why="a keyword"),
    "Local: words of the local one": local_exception,
    "OnlyThere: words": lambda: OnlyThere("words"),
}

ENDINGS: dict[str, Callable[[], BaseException]] = {
    "SystemExit": lambda: SystemExit(3),
    "SystemExit with words": lambda: SystemExit("words"),
    "KeyboardInterrupt": KeyboardInterrupt,
    "GeneratorExit": GeneratorExit,
    "BaseExceptionGroup": lambda: BaseExceptionGroup("two", [SystemExit(1), ValueError("x")]),
    "BaseException": lambda: BaseException("bare"),
}


def take(*args: Any) -> None:
    """An initializer."""
    global given
    given = args


def raise_unloadable(name: str) -> None:
    raise UNLOADABLE[name]()


def raise_group(name: str) -> None:
    raise ExceptionGroup("some", [ValueError("can be had"), UNLOADABLE[name]()])


def raise_chained() -> None:
    raise chained()


def raise_ending(name: str) -> None:
    """Count, then end the process by an exception."""
    (begun,) = given
    with begun.get_lock():
        begun.value += 1
    raise ENDINGS[name]()


def end_at_3(n: int) -> int:
    if n == 3:
        sys.exit(3)
    return n


def make(name: str) -> Any:
    return globals()[name]()


def slow_len(data: bytes) -> int:
    time.sleep(0.02)
    return len(data)


def square(n: int) -> int:
    return n * n


def meet_given(data: bytes) -> int:
    """Wait until all others have come as well."""
    given[0].wait(30)
    return len(data)


def fail_at_2(n: int) -> int:
    if n == 2:
        raise ValueError("two is refused")
    return n


def nap(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def put_all(queue: Any, kind: str, pause: float) -> None:
    """Put 1, what does not pickle, and 2; then end."""
    queue.put(1)
    queue.put(globals()[kind]() if kind != "generator" else (n for n in range(0)))
    queue.put(2)
    time.sleep(pause)


class Teller:
    """An object that does not pickle, so a manager keeps it where it was made."""

    def __init__(self) -> None:
        self.words: Any = iter(lambda: None, None)

    def raise_unloadable(self, name: str) -> None:
        raise_unloadable(name)

    def leave(self) -> None:
        sys.exit(5)

    def make(self, name: str) -> Any:
        return make(name)


def ask(teller: Any, reply: Any, method: str, *args: Any) -> None:
    """Call a method from another process; tell what came of it."""
    try:
        getattr(teller, method)(*args)
    except BaseException as exc:  # noqa: BLE001 - told
        reply.put((type(exc).__name__, str(exc), str(exc.__cause__)))
