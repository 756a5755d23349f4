"""``python -m producer``, and the console script ``producer``.

Nothing is imported before ``main`` runs: a child that ``spawn`` starts imports the main module again, and the time for
that would count as the price of a process.
"""


def main() -> None:
    """Run the command line."""
    import os
    import signal
    import sys

    try:
        from producer import interrupt
        from producer.cli import main as cli

        interrupt.listen()
    except KeyboardInterrupt:  # nothing has begun yet; what ends a command that has begun, it does itself
        sys.exit(128 + signal.SIGINT)

    if "_PRODUCER_COMPLETE" in os.environ:  # a shell asks, as somebody has pressed Tab
        from producer import completion

        completion.teach(cli)
    cli(prog_name="producer")


if __name__ == "__main__":
    main()
