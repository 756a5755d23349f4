"""The import arrows: worker -> lab <- producer, monitor -> lab, between the rooms of lab as below; and no circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests import ROOT

ARROWS = {
    # a room, and the rooms that it may import; the root of a package is a room of its own, what it says is free to all
    "lab": {"lab.cluster", "lab.concepts", "lab.explored", "lab.interpreters"},
    "lab.concepts": {"lab", "lab.store"},
    "lab.cluster": {"lab", "lab.store", "lab.fleet", "lab.program"},
    "lab.store": {"lab"},
    "lab.fleet": {"lab", "lab.store", "onloan"},
    "lab.program": {"lab", "lab.store"},
    "lab.explored": {"lab"},
    "lab.interpreters": {"lab"},
    "lab.mapping": {"lab", "lab.program"},
    "lab.trace": {"lab", "lab.store", "lab.fleet", "lab.program"},
    "lab.jobs": {"lab", "lab.store", "lab.fleet"},
    "lab.watching": {"lab", "lab.store", "lab.fleet"},
    "onloan": set(),
    "worker": {"lab", "lab.cluster", "lab.store", "lab.fleet", "lab.program", "lab.jobs", "onloan"},
    "producer": {
        "lab", "lab.concepts", "lab.cluster", "lab.store", "lab.fleet", "lab.program", "lab.mapping", "lab.jobs", "lab.trace",
        "lab.explored", "lab.watching", "onloan",
    },
    "conformance": {"lab", "lab.cluster", "lab.fleet"},
    "monitor": {"lab", "lab.store", "lab.fleet", "onloan"},
}  # fmt: skip
FOLDERS = {room: ROOT / ("onloan/src/onloan" if room == "onloan" else room.replace(".", "/")) for room in ARROWS}


def modules() -> dict[str, Path]:
    """Every module of the rooms, by its dotted name."""
    found = {}
    for top in ("lab", "onloan", "worker", "producer", "conformance", "monitor"):
        folder = FOLDERS[top]
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder.parent).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def room_of(module: str) -> str:
    """The room that a module lies in: the longest one that begins its name."""
    return max((room for room in ARROWS if module == room or module.startswith(f"{room}.")), key=len)


def imported(source: str) -> Iterator[tuple[int, str]]:
    """Line and name of every absolute import, in functions and under TYPE_CHECKING too; of what is in a module, its name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield node.lineno, inner if inner in MODULES else str(node.module)
        elif isinstance(node, ast.Call) and _called(node) in ("import_module", "__import__"):
            yield from ((node.lineno, str(arg.value)) for arg in node.args[:1] if isinstance(arg, ast.Constant))


def _called(node: ast.Call) -> str:
    return getattr(node.func, "attr", "") or getattr(node.func, "id", "")


@pytest.mark.parametrize("room", ARROWS)
def test_a_room_imports_only_along_the_arrows(room: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for module, path in MODULES.items()
        if room_of(module) == room
        for line, name in imported(path.read_text())
        if name.partition(".")[0] in ("tests", "benchmarks", "faults")
        or (name.partition(".")[0] in ARROWS and room_of(name) not in ARROWS[room] | {room})
    ]
    assert not wrong


def test_no_import_closes_a_circle() -> None:
    graph = {module: {name for _, name in imported(path.read_text())} - {module} for module, path in MODULES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as exc:
        pytest.fail(" -> ".join(reversed(exc.args[1])))


def test_a_circle_is_found() -> None:
    with pytest.raises(CycleError):
        TopologicalSorter({"a": {"b"}, "b": {"c"}, "c": {"a"}}).prepare()


@pytest.mark.parametrize("path", MODULES.values(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


@pytest.mark.parametrize(
    "source",
    [
        "import worker.app",
        "from worker import app",
        "def f():\n    from worker.app import g",
        "if TYPE_CHECKING:\n    import worker.app as w",
        "importlib.import_module('worker.app')",
    ],
)
def test_no_form_of_import_goes_unseen(source: str) -> None:
    assert "worker.app" in [name for _, name in imported(source)]
