"""The concepts there are, in a line each."""

from __future__ import annotations

from producer import output


def ideas() -> dict[str, str]:
    """The first line of each concept's docstring, by name, in the order of the course."""
    from lab.concepts import CONCEPTS, load

    return {name: (load(name).__doc__ or "").strip().partition("\n")[0] for name in CONCEPTS}


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
