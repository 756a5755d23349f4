"""What the main module must be, so that another process can become like its parent: a file, and guarded.

``spawn`` and the cluster start a child by running the main module's file again, under the name ``__mp_main__``. A file that
starts processes whenever it is run would start them in each of those too; ``multiprocessing`` finds that out in the child,
by an error that the parent never sees, and its pool then starts such children for ever. Here it is found out before the
first is started, where it can be known from the source, and told once.
"""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from multiprocessing import process, spawn
from typing import Any

from lab.errors import CannotLoad

_TELLS = frozenset({"__name__", "parent_process", "current_process", "environ", "getenv", "getpid", "getppid"})
"""Names by which a program can tell its child from itself."""

_PURE = frozenset({"len", "int", "float", "str", "bool", "isinstance", "hasattr", "any", "all", "min", "max"})


_GUARDS = ("__name__ == '__main__'", "'__main__' == __name__")


class Unguarded(CannotLoad):
    """The main module starts processes while it is imported."""


def check() -> None:
    """Refuse to start a process that would start processes itself as soon as it runs the main module again.

    Raises:
        Unguarded: It would, as the source shows; or this is such a process.
    """
    found = _module_line()
    if found is None:
        return
    path, line = found
    if getattr(process.current_process(), "_inheriting", False) or (
        process.parent_process() is None and _runs_again(path, line)
    ):
        raise Unguarded(
            f"{path}, line {line} starts a process and is not under a main guard: each process runs this file again,"
            " up to this line, and would start another one.",
            'Put that line, and what follows it, under a guard:\n  if __name__ == "__main__":\n      ...',
        )


told = False
"""Whether somebody was told on stderr that the main module is not guarded."""


def tell(error: Unguarded) -> None:
    """Say so, once."""
    global told
    if not told:
        told = True
        print(f"crosshost: {error}", file=sys.stderr)


def install() -> None:
    """Have the standard library ask ``check`` where it looks for the same mistake, which is in the child."""
    module: Any = spawn
    standard = module._check_not_importing_main
    if getattr(standard, "__module__", "") == __name__:
        return

    def check_both() -> None:
        check()
        standard()

    module._check_not_importing_main = check_both


def _module_line() -> tuple[str, int] | None:
    """The main module's file, and the line of it that led here; None if none did, or a child would not run it again."""
    main: Any = sys.modules.get("__main__")
    path = getattr(main, "__file__", None)
    if not path or _is_run_once(main):
        return None
    line, frame = None, sys._getframe(1)
    while frame is not None:
        if frame.f_globals is vars(main) and frame.f_code.co_name == "<module>":
            line = frame.f_lineno
        frame = frame.f_back  # type: ignore[assignment]
    return None if line is None else (path, line)


@cache
def _runs_again(path: str, line: int) -> bool:
    """Whether a line runs whenever its file does; False where the source leaves that open."""
    if not _is_file(path):
        return False  # which nobody can run again: what it defines travels by value
    if (tree := parsed(path)) is None:
        return False
    inner = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))]
    if any(_may_tell(test) for node in inner for test in _tests(node)):
        return False
    return any(line in lines for lines in _always(tree.body))


def keeps(name: str) -> bool:
    """Whether no child finds what the main module has by a name: bound under its guard alone, or of a ``__main__.py``."""
    main: Any = sys.modules.get("__main__")
    path = getattr(main, "__file__", None)
    return path is not None and main.__name__ == "__main__" and (_is_run_once(main) or name in _guarded_only(path))


def _is_run_once(main: Any) -> bool:
    """Whether no child runs the main module again, as it needs no guard: that of a package, a folder, an archive."""
    spec = getattr(main, "__spec__", None)
    return spec is not None and spec.name.rpartition(".")[2] == "__main__"


@cache
def _guarded_only(path: str) -> frozenset[str]:
    tree = parsed(path)
    if tree is None:
        return frozenset()
    under = [line for node in tree.body if isinstance(node, ast.If) and _guards(node) for line in node.body]
    return frozenset(set(_bound(under)) - set(_bound(imported_lines(tree))))


def imported_lines(tree: ast.Module) -> Iterator[ast.stmt]:
    """The statements of the main module that run where it is only imported, too: all but those under its guard."""
    for node in tree.body:
        yield from node.orelse if isinstance(node, ast.If) and _guards(node) else [node]


def _bound(code: Iterable[ast.AST]) -> Iterator[str]:
    """The names that code binds where it stands."""
    for node in code:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.alias):
            yield (node.asname or node.name).partition(".")[0]
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        else:
            yield from _bound(ast.iter_child_nodes(node))


@cache
def parsed(path: str) -> ast.Module | None:
    """The main module, parsed; None where that cannot be."""
    try:
        return ast.parse(_source(path))
    except (OSError, SyntaxError, ValueError, RecursionError):
        return None


def _source(path: str) -> bytes:
    """What the main module's file says: here, or where the program was sent from."""
    loader: Any = getattr(sys.modules.get("__main__"), "__loader__", None)
    if hasattr(loader, "get_data"):
        return bytes(loader.get_data(path))
    with open(path, "rb") as file:
        return file.read()


def _always(body: Iterable[ast.stmt]) -> Iterator[range]:
    """The lines that run whenever their file does, up to the first statement that may end it for a child."""
    for node in body:
        last = node.end_lineno or node.lineno
        if isinstance(node, (ast.With, ast.For, ast.While, ast.If, ast.Try)):
            if not _may_be_left_out(node):
                yield range(node.lineno, node.body[0].lineno)
                yield from _always(node.body)
        elif isinstance(node, (ast.Match, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            pass
        elif not _may_tell(node) and not any(map(_depends, _conditions(node))):
            yield range(node.lineno, last + 1)
        if not _is_guard(node) and any(map(_may_tell, _tests(node))):
            return


def _may_be_left_out(node: ast.With | ast.For | ast.While | ast.If | ast.Try) -> bool:
    if isinstance(node, (ast.While, ast.If)):
        return _depends(node.test)
    if isinstance(node, ast.Try):
        return bool(node.handlers)  # one of which may be for this very error
    return any(map(_may_tell, [node.iter] if isinstance(node, ast.For) else node.items))


def _conditions(node: ast.stmt) -> Iterator[ast.expr]:
    """The expressions in a statement that decide whether the rest of it is evaluated."""
    for part in ast.walk(node):
        if isinstance(part, ast.IfExp):
            yield part.test
        elif isinstance(part, ast.BoolOp):
            yield from part.values[:-1]


def _is_guard(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and not node.orelse and _guards(node)


def _guards(node: ast.If) -> bool:
    return ast.unparse(node.test) in _GUARDS


def _tests(node: ast.AST) -> Iterator[ast.expr]:
    """The expressions in a part of a program that decide what it does, and those that compare."""
    for part in ast.walk(node):
        if isinstance(part, (ast.If, ast.While, ast.IfExp, ast.Assert)):
            yield part.test
        elif isinstance(part, ast.Match):
            yield part.subject
        elif isinstance(part, (ast.Compare, ast.BoolOp)):
            yield part


def _may_tell(code: ast.AST) -> bool:
    """Whether an expression, or what a statement does, may be another one in a child than in its parent."""
    names = {getattr(part, "id", "") or getattr(part, "attr", "") for part in ast.walk(code)}
    return bool(names & _TELLS)


def _depends(test: ast.expr) -> bool:
    """Whether it takes more than this file to know what an expression is in a child."""
    calls = [part.func for part in ast.walk(test) if isinstance(part, ast.Call)]
    return _may_tell(test) or any(getattr(called, "id", "") not in _PURE for called in calls)


def is_session() -> bool:
    """Whether nobody can run this program's main module again: ``-c``, standard input, a prompt, a notebook.

    Excluded: ``python -i FILE``, whose children would find what the file defines, and nothing that was typed after it.
    """
    return hasattr(sys, "ps1") or not has_file()


def has_file() -> bool:
    """Whether this program is a file, which hosts can be sent; not so with ``-c``, on standard input, in a notebook."""
    main: Any = sys.modules.get("__main__")
    path = getattr(main, "__file__", None)
    if getattr(main, "__spec__", None) is not None or path is None:
        return path is not None
    return _is_file(path)


@cache
def _is_file(path: str) -> bool:
    return os.path.isfile(path) or not (path.startswith("<") or os.path.exists(path))  # it may be gone by now
