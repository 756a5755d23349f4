"""``MODULE:FUNCTION`` or ``SCRIPT.py:FUNCTION`` from a command line; for what is not there, the nearest name is told."""

from __future__ import annotations

import inspect
import os
import pkgutil
import sys
import traceback
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType

from lab.errors import ExitCode, LabError
from lab.program import source
from lab.program.target import Target, load_module


class BadTarget(LabError, ValueError):
    """What was typed names no function that can be called."""

    exit_code = ExitCode.USAGE


def resolve(text: str) -> Target:
    """Find a function, so that every worker can find it by the same name.

    The working directory is searched for modules first, as by ``python -m``.

    Args:
        text: ``package.module:function``, or ``path/script.py:function``.

    Returns:
        The function's name, which is callable, pickles, and has been imported here.

    Raises:
        BadTarget: There is no such module, script or function, or it cannot be imported or called.
    """
    where, colon, name = text.rpartition(":")
    if not colon or not where or not name:
        raise BadTarget(f"{text!r} names no function.", "Type MODULE:FUNCTION or SCRIPT.py:FUNCTION, such as math:sqrt")
    if (here := os.getcwd()) not in sys.path:
        sys.path.insert(0, here)
    module = _script(where) if where.endswith(".py") else where
    target = Target(module, name)
    _check(target, _imported(module, where), where)
    return target


def send_along(target: Target) -> None:
    """Have the hosts of a cluster get the source of a function's module from this program, unless it is installed.

    The module counts as the program's main one: what lies beside it and is imported goes along (``lab.program.shipped``).
    """
    file = getattr(load_module(target.module), "__file__", None)
    if not file:
        return  # built in, or a namespace
    root = Path(os.path.abspath(file)).parent
    if not target.module.endswith(".py"):
        levels = target.module.count(".") + (Path(file).name == "__init__.py")
        root = Path(os.path.abspath(file)).parents[levels]
    if source.is_own(os.path.abspath(file), str(root)):
        source.Own(str(root)).install()


def _script(path: str) -> str:
    if not os.path.isfile(path):
        folder = Path(path).absolute().parent
        scripts = [entry.name for entry in folder.glob("*.py")] if folder.is_dir() else []
        raise BadTarget(f"There is no script {path!r}.", nearest(Path(path).name, scripts) or f"See: ls '{folder}'")
    return os.path.abspath(path)


def _imported(module: str, typed: str) -> ModuleType:
    try:
        return load_module(module)
    except ModuleNotFoundError as exc:
        if exc.name and (module == exc.name or module.startswith(f"{exc.name}.")):
            raise BadTarget(f"There is no module {exc.name!r}.", _near_module(exc.name)) from None
        raise _broken(typed, exc) from exc
    except Exception as exc:
        raise _broken(typed, exc) from exc
    except SystemExit as exc:
        raise BadTarget(
            f"Importing {typed} ended the program (SystemExit: {exc.code}).",
            'Put what it runs under: if __name__ == "__main__":',
        ) from None


def _broken(typed: str, exc: Exception) -> BadTarget:
    frames = exc.__traceback__
    while frames and (
        "importlib" in frames.tb_frame.f_code.co_filename or _is_ours(frames.tb_frame.f_code.co_filename)
    ):
        frames = frames.tb_next
    told = "".join(traceback.format_exception(type(exc), exc, frames)).rstrip()
    return BadTarget(f"{typed} cannot be imported: {type(exc).__name__}: {exc}", told)


def _is_ours(filename: str) -> bool:
    return filename in (__file__, load_module.__code__.co_filename)


def _check(target: Target, module: ModuleType, typed: str) -> None:
    try:
        function = target.load()
    except AttributeError:
        names = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise BadTarget(
            f"There is no function {target.name!r} in {typed}.",
            nearest(target.name, names) or f"Its functions: {', '.join(names) or 'none'}",
        ) from None
    if not callable(function):
        raise BadTarget(f"{typed}:{target.name} is no function: {function!r:.100}", "Name a function of one argument.")
    if inspect.iscoroutinefunction(function):
        raise BadTarget(
            f"{typed}:{target.name} is an async function, which a worker would only create, not run.",
            "Wrap it: def each(item): return asyncio.run(...)",
        )


def _near_module(name: str) -> str:
    parent, _, last = name.rpartition(".")
    path = getattr(sys.modules.get(parent), "__path__", None) if parent else None
    known = [info.name for info in pkgutil.iter_modules(path)]
    prefix = f"{parent}." if parent else ""
    return nearest(last, known, prefix) or "Is it installed here, or in the working directory?"


def nearest(word: str, known: Iterable[str], prefix: str = "") -> str:
    """A question that names the nearest of the known words; empty when none is near."""
    near = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"Did you mean {prefix}{near[0]}?" if near else ""
