"""The map of the rooms, as the tree has it: ``python -m tests.kit.layout`` writes it into ``docs/layout.md``."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests import ROOT, test_arrows

PAGE = ROOT / "docs" / "layout.md"
BEGIN, END = "<!-- the map: python -m tests.kit.layout -->\n", "<!-- end of the map -->\n"
FREE = ("benchmarks", "faults", "tests.kit")
"""Rooms that nothing but tests imports, and that may import all."""


def rooms() -> Iterator[str]:
    """Every room: what it is for, what it may import, and each of its modules in a line."""
    for room in [*test_arrows.ARROWS, *FREE]:
        folder = test_arrows.FOLDERS.get(room, ROOT / room.replace(".", "/"))
        yield f"### {room}\n\n{said(folder / '__init__.py')}\n\n{arrows(room)}\n\n| module | |\n|---|---|"
        for path in sorted(folder.rglob("*.py")):
            if path.name != "__init__.py" and room_of(path) == room:
                yield f"| [`{path.relative_to(folder)}`](../{path.relative_to(ROOT)}) | {said(path)} |"
            elif path.name == "__init__.py" and path.parent != folder and room_of(path) == room:
                yield f"| [`{path.parent.relative_to(folder)}/`](../{path.relative_to(ROOT)}) | {said(path)} |"
        yield ""


def arrows(room: str) -> str:
    """What a room may import of the others."""
    if room in FREE:
        return "May import everything; imported by tests alone."
    return (
        f"May import: {', '.join(f'`{other}`' for other in sorted(test_arrows.ARROWS[room])) or 'none of the others'}."
    )


def room_of(path: Path) -> str:
    """The room that a file lies in: that of the nearest folder."""
    every = {**test_arrows.FOLDERS, **{room: ROOT / room.replace(".", "/") for room in FREE}}
    return max(
        (room for room, folder in every.items() if path.is_relative_to(folder)), key=lambda r: len(every[r].parts)
    )


def said(path: Path) -> str:
    """The first line of a module's docstring, as a cell of a table."""
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    return text.partition("\n")[0].replace("``", "`").replace("|", "\\|")


def page() -> str:
    """The page, its map as the tree is now."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    return before + BEGIN + "\n".join(rooms()) + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(page())
