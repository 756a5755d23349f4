"""The import arrows: worker -> lab <- producer, monitor -> lab, and no other."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN = {
    "lab": {"worker", "producer", "conformance", "monitor"},
    "worker": {"producer", "conformance", "monitor"},
    "producer": {"worker", "conformance", "monitor"},
    "conformance": {"worker", "producer"},
    "monitor": {"worker", "producer"},
}
MODULES = sorted(path for package in FORBIDDEN for path in (ROOT / package).rglob("*.py"))


def imported(source: str) -> Iterator[tuple[int, str]]:
    """Line and top-level name of every absolute import, in functions and under TYPE_CHECKING too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.partition(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.lineno, (node.module or "").partition(".")[0]
        elif isinstance(node, ast.Call) and _called(node) in ("import_module", "__import__"):
            names = [arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)]
            yield from ((node.lineno, str(name).partition(".")[0]) for name in names)


def _called(node: ast.Call) -> str:
    return getattr(node.func, "attr", "") or getattr(node.func, "id", "")


@pytest.mark.parametrize("package", FORBIDDEN)
def test_a_package_imports_only_along_the_arrows(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in (ROOT / package).rglob("*.py")
        for line, name in imported(path.read_text())
        if name in FORBIDDEN[package]
    ]
    assert not wrong


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


@pytest.mark.parametrize(
    "source",
    [
        "import worker.app",
        "from worker import app",
        "def f():\n    from worker.app import g",
        "if TYPE_CHECKING:\n    import worker as w",
        "importlib.import_module('worker.app')",
    ],
)
def test_no_form_of_import_goes_unseen(source: str) -> None:
    assert "worker" in [name for _, name in imported(source)]
