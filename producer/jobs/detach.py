"""Leaving a program of one's own to the fleet: its source is read, checked as far as reading goes, and sent."""

from __future__ import annotations

import ast
import json
import os
import re
import secrets
import shlex
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import replace
from importlib.machinery import PathFinder
from typing import Any

from lab.errors import CannotLoad
from lab.fleet.hosts import JOBS
from lab.jobs.app import LONG
from lab.jobs.programs import FOREVER, INPUT, NAME, TASK, Asked, Programs
from lab.jobs.records import Record
from lab.program import shipped
from lab.program.shipped import Program
from producer import lacking, output
from producer.errors import BadUsage
from producer.jobs import fleet, following
from producer.target import BadTarget, nearest

STDIN = "<stdin>"


def run(script: str, args: list[str], restart: bool) -> None:
    """Send a script, a module (``-m``) or what standard input says (``-``), and write the job's id to stdout.

    Raises:
        CannotLoad: It is no Python, or nothing that can be read; nothing was sent.
        ProgramTooLarge: It is too large, together with the data taken along (``lab.program.along``).
        NoWorkers: There is no fleet that outlives this command.
    """
    here = os.getcwd()
    if script == "-m":
        module = args[0]
        program = shipped.gather(here, module=module)
        files = _files(here, module, "__main__")
        _check_module(program, module, files)
        asked = Asked(f"-m {module}", module=module, argv=args)
    elif script == "-":
        text = sys.stdin.buffer.read()
        _parsed(text, STDIN)
        program = shipped.gather(here, STDIN, text)
        asked = Asked("-", path=STDIN, argv=["-", *args])
    else:
        path = os.path.abspath(script)
        program = _gather(path)
        _parsed(program.files[path], path)
        asked = Asked(script, path=path, argv=[script, *args])
    said = {"script": asked.typed, "args": shlex.join(args[1:] if script == "-m" else args)}
    instead = f"or run it here, for as long as the command lives:\n  producer run {shlex.join([script, *args])}"
    _send(asked, program, restart, said, instead)


def call(typed: str, given: str | None, restart: bool) -> None:
    """Send a function and what it is to be given, and write the job's id to stdout.

    The program is read here, and not run: so it need not be able to run here.

    Args:
        typed: ``SCRIPT.py:FUNCTION`` or ``MODULE:FUNCTION``.
        given: JSON, ``-`` for that on standard input, or None for no argument.
        restart: Whether it may be started again.

    Raises:
        BadTarget: There is no such function.
        BadUsage: What it is to be given is not JSON.
        CannotLoad, NoWorkers: As for ``run``.
    """
    where, _, function = typed.rpartition(":")
    if not where or not function:
        raise BadTarget(f"{typed!r} names no function.", "Type SCRIPT.py:FUNCTION or MODULE:FUNCTION")
    text = _json(typed, given)
    if where.endswith(".py"):
        path, module = os.path.abspath(where), ""
        if not os.path.isfile(path):
            folder = os.path.dirname(path)
            scripts = [name for name in os.listdir(folder) if name.endswith(".py")] if os.path.isdir(folder) else []
            raise BadTarget(f"There is no script {where!r}.", nearest(os.path.basename(path), scripts) or "See: ls")
        program, source = _gather(path), path
    else:
        path, module, here = "", where, os.getcwd()
        program = shipped.gather(here, module=module)
        files = _files(here, module, "__init__")
        _check_module(program, module, files)
        source = next((file for file in files if file in program.files), "")
    if source:
        _check_function(_parsed(program.files[source], source), where, function)
    asked = Asked(typed, path, module, function, text, [where])
    said = {"function": typed, **({"input": text[:200]} if text is not None else {})}
    instead = f"or call it here, with lines of JSON:\n  producer map {shlex.quote(typed)} INPUT.jsonl"
    _send(asked, program, restart, said, instead)


def _send(asked: Asked, program: Program, restart: bool, said: dict[str, Any], instead: str) -> None:
    asked = replace(asked, folder=os.getcwd(), python=list(sys.version_info[:2]), restart=restart)
    archive = program.pack()
    app = fleet.connect(without=instead)
    main = program.files[STDIN] if asked.path == STDIN else asked.module or asked.path
    lacking.warn(program.root, main, app.records.store, JOBS)
    stem = re.sub(r"[^0-9A-Za-z_-]+", "-", os.path.basename(_short(asked))).strip("-")[:40] or NAME
    record = Record(
        f"{stem}-{secrets.token_hex(4)}", NAME, said | ({"restart": True} if restart else {}), time.time(), [], True
    )
    record.tasks.append(record.id)
    Programs(app.records).put(record.id, asked, archive)
    app.records.add(record)
    with fleet.reached(app):
        app.signature(TASK, task_id=record.id, queue=LONG, soft_time_limit=FOREVER, time_limit=FOREVER).apply_async()
    app.records.sent(record.id)
    output.write(f"{record.id}\n")
    if not fleet.hosts(app):
        print(following.NOBODY, file=sys.stderr)
    print(f"To follow it: producer watch {record.id}", file=sys.stderr)


def _short(asked: Asked) -> str:
    """What the job is called after."""
    if asked.function:
        return asked.function
    return asked.module or ("stdin" if asked.path == STDIN else asked.path.removesuffix(".py"))


def _gather(path: str) -> Program:
    program = shipped.gather(os.path.dirname(os.path.realpath(path)), path)
    if path not in program.files:
        raise CannotLoad(f"Cannot read {path!r}.", "Type the path of a Python file that you may read.")
    return program


def _parsed(data: bytes, path: str) -> ast.Module:
    try:
        compile(data, path, "exec", dont_inherit=True)
        return ast.parse(data, path)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as exc:
        told = "".join(traceback.format_exception_only(exc)).rstrip()
        raise CannotLoad(f"{path} cannot be run, and nothing was sent.", told) from None


def _files(root: str, module: str, of_package: str) -> list[str]:
    """Where a module of the program's own may be."""
    base = os.path.join(root, *module.split("."))
    return [f"{base}.py", os.path.join(base, f"{of_package}.py")]


def _check_module(program: Program, module: str, files: list[str]) -> None:
    """Refuse a module that is neither the program's own nor installed, as far as that shows without importing anything."""
    if any(file in program.files for file in files):
        return
    top = module.partition(".")[0]
    own = any(os.path.relpath(file, program.root).split(os.sep)[0] in (top, f"{top}.py") for file in program.files)
    try:
        found = top in sys.builtin_module_names or PathFinder.find_spec(top) is not None
    except (ImportError, ValueError):
        found = False
    if own or not found:  # an installed one is the hosts' to find
        raise BadTarget(
            f"There is no module {module!r} that can be run.",
            "It is looked for from this folder on, and where Python looks.",
        )


def _check_function(tree: ast.Module, where: str, function: str) -> None:
    """Refuse a name that the module does not define, as far as its source shows."""
    first = function.partition(".")[0]
    names: dict[str, ast.stmt] = {}
    for statement in _at_top(tree.body):
        names |= dict.fromkeys(_defined(statement), statement)
    if isinstance(names.get(function), ast.AsyncFunctionDef):
        raise BadTarget(
            f"{where}:{function} is an async function, which a host would only create, not run.",
            "Wrap it: def main(value): return asyncio.run(...)",
        )
    if first in names or "*" in names or "__getattr__" in names:
        return
    known = [name for name, at in names.items() if isinstance(at, (ast.FunctionDef, ast.ClassDef))]
    raise BadTarget(
        f"There is no function {function!r} in {where}.",
        nearest(first, known) or f"Its functions: {', '.join(known) or 'none'}",
    )


def _at_top(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run when a module is imported, whatever they depend on."""
    for statement in body:
        yield statement
        if not isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            for part in ast.iter_child_nodes(statement):
                inner = [part] if isinstance(part, ast.stmt) else getattr(part, "body", [])
                yield from _at_top(inner if isinstance(inner, list) else [])


def _defined(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        yield statement.name
    elif isinstance(statement, (ast.Import, ast.ImportFrom)):
        yield from (alias.asname or alias.name.partition(".")[0] for alias in statement.names)
    else:
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield node.id


def _json(typed: str, given: str | None) -> str | None:
    text = sys.stdin.read() if given == "-" else given
    if text is None:
        return None
    try:
        json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise BadUsage(
            f"What {typed} is to be given is not JSON: {exc}.",
            f"Text is JSON in quotes, which the shell must leave alone: producer submit {typed} '\"text\"'\n"
            "A number, a list or - for JSON on standard input will do as well.",
        ) from None
    if len(text) > INPUT:
        raise BadUsage(
            f"The input has {len(text)} bytes, and at most {INPUT} travel.", "Send a path that hosts can read."
        )
    return text
