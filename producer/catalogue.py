"""The concepts there are, in a line each."""

from __future__ import annotations

from producer import output


def idea(name: str) -> str:
    """The first line of a concept's docstring, or why there is none."""
    from lab.concepts import summary

    try:
        return summary(name)
    except Exception as exc:  # noqa: BLE001 - whoever is writing this concept still wants to see the others
        return f"(cannot be imported: {exc!r})"


def ideas() -> dict[str, str]:
    """The ideas of all concepts by name, in the order of the course."""
    from lab.concepts import CONCEPTS

    return {name: idea(name) for name in CONCEPTS}


def show(as_json: bool) -> None:
    """Write the list to stdout."""
    if as_json:
        output.write_json([{"name": name, "idea": idea} for name, idea in ideas().items()])
        return
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for name, idea in ideas().items():
        table.add_row(name, idea)
    output.write_rich([table, "", "To run one: producer demo NAME [--on PLACE]"])
