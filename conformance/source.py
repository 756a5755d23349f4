"""Where CPython's suite is, and which place it judges."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

from lab.errors import LabError

NAME = "test._test_multiprocessing"

PLACE = "CONFORMANCE_PLACE"
"""The variable by which a process of this host knows the place; one on the cluster knows it from its run."""


class NoSuite(LabError):
    """This interpreter comes without CPython's tests."""


def present() -> bool:
    """Whether this interpreter has the suite."""
    try:
        return spec() is not None
    except NoSuite:
        return False


def spec() -> Any:
    """The module's spec.

    Raises:
        NoSuite: Not in this interpreter.
    """
    try:
        found = importlib.util.find_spec(NAME)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise NoSuite(
            f"{sys.executable} (Python {sys.version.split()[0]}) has no module {NAME}, so there is nothing to judge by.",
            "Some distributions leave CPython's tests out: Debian has them in libpython3-testsuite, the slim container images"
            " not at all. Take an interpreter that has them:\n  make clean && make PYTHON=/path/to/python3.13 conformance",
        )
    return found
