"""The commands for traces and reports."""

from __future__ import annotations

import sys

import click

from producer import names

given = click.argument("path", metavar="TRACE")


@click.group()
def trace() -> None:
    """Check a trace, or write it for another viewer."""


@trace.command()
@given
def check(path: str) -> None:
    """Look for what contradicts itself: holds of a lock that overlap, a message that nobody sent ...

    Names the first such thing, and a deadlock that the trace ends in. Exit code 1 if there is one.
    """
    from lab.trace import file
    from producer import output
    from producer.trace.check import violations

    found = file.read(path)
    wrong = list(violations(found))
    if wrong:
        more = f"\n(and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        output.write(f"{wrong[0]}{more}\n")
        sys.exit(1)
    output.write(f"{len(found.events):,} events of {len(found.runs)} runs: nothing contradicts itself\n")


@trace.command()
@given
@click.option("--format", type=click.Choice(["perfetto"]), default="perfetto", show_default=True)
@click.option(
    "-o", "--output", "target", metavar="FILE", default="-", callback=names.check_folder, help="Default: stdout."
)
def export(path: str, format: str, target: str) -> None:
    """Write a trace as trace-event JSON, for https://ui.perfetto.dev and other viewers."""
    import json

    from lab.trace import file
    from producer import output
    from producer.trace import perfetto

    exported = {"perfetto": perfetto.exported}[format]
    text = json.dumps(exported(file.read(path)), default=str) + "\n"
    if target == "-":
        output.write(text)
        return
    with open(target, "w", encoding="utf-8") as out:
        out.write(text)


@click.command()
@given
@click.option("-o", "--output", "target", metavar="FILE.html", callback=names.check_folder, help="Default: TRACE.html.")
def report(path: str, target: str | None) -> None:
    """Make a report of a trace: one page, to be opened without a network."""
    from lab.trace import file
    from producer import output
    from producer.html import page

    target = target or f"{path.removesuffix('.jsonl')}.html"
    page.write(target, file.read(path))
    output.write(f"{target}\n")


TRACE_COMMANDS = (trace, report)
