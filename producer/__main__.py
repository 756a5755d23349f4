"""``python -m producer``, and the console script ``producer``.

Nothing is imported before ``main`` runs: a child that ``spawn`` starts imports the main module again, and the time for
that would count as the price of a process.
"""


def main() -> None:
    """Run the command line."""
    from producer.cli import main as cli

    cli(prog_name="producer")


if __name__ == "__main__":
    main()
