"""Modules of a program that have the name of a library which the fleet needs: ``redis.py`` beside the script, or the script.

The library is imported first, by its parts too, so that nothing of ours finds the namesake in its place. Then the program
finds its own, unless the library is one that is asked for by its name all the time: that the program gets, as everywhere.
So it is with the standard library, of which a first course's folder has many a namesake: ``queue.py``, ``email.py``.
"""

from __future__ import annotations

import importlib
import sys
from contextlib import suppress

from lab.program.source import Own

FOR_EVER = ("celery", "kombu", "amqp", "vine", "billiard", "redis", "hiredis")
FOR_A_MOMENT = (
    *("cryptography", "cffi", "cloudpickle", "packaging", "six", "dateutil", "tzlocal", "greenlet", "psutil", "click"),
    *("statistics", "difflib", "pprint", "shelve", "opentelemetry", "typing_extensions"),
)
PARTS = (
    *("lab.cluster.context", "lab.cluster.futures", "celery.app.base", "kombu.transport.redis", "onloan.transport"),
    *("cryptography.hazmat.primitives.ciphers.aead", "cryptography.hazmat.primitives.kdf.hkdf"),
)


def make_way(own: Own) -> None:
    """Let the program and the libraries that the fleet needs both have what they mean by a name."""
    namesakes = [name for name in {*FOR_EVER, *FOR_A_MOMENT, *sys.stdlib_module_names} if own.has_module(name)]
    if not namesakes:
        return
    for name in (*FOR_EVER, *FOR_A_MOMENT, *PARTS):
        with suppress(ImportError):  # it is not installed, then nobody needs it
            importlib.import_module(name)
    for top in namesakes:
        if top in FOR_A_MOMENT:
            sys.modules.pop(top, None)  # its parts stay, for who asks for one of them only when it is used


def forget(top: str) -> None:
    """Have a top-level module, with its parts, imported anew by whoever asks for it next."""
    for name in [name for name in sys.modules if name.partition(".")[0] == top]:
        del sys.modules[name]
