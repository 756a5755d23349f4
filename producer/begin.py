"""``python -m producer.begin``: the interpreter that becomes a script (``producer.script``).

Nothing is imported before ``main`` runs, and Ctrl-C meanwhile ends this process as it ends any that has not begun: without
the traceback of an import that is none of the script's.
"""


def main() -> None:
    """Run what the command line says."""
    import signal

    heard = signal.getsignal(signal.SIGINT)
    if heard is signal.default_int_handler:  # else it is ignored: a shell's background job
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    import json
    import sys

    from producer import script

    trace, report, along_with, *args = sys.argv[1:]
    signal.signal(signal.SIGINT, heard)
    script.main(*args, trace=trace, report=report, **json.loads(along_with))


if __name__ == "__main__":
    main()
