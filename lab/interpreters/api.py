"""Python's interpreters (PEP 734), found when they are needed: importing this module asks for nothing."""

from __future__ import annotations

import importlib
from typing import Any


def interpreters() -> Any:
    """The module ``concurrent.interpreters``.

    Raises:
        ImportError: This Python has none: they came with 3.14.
    """
    return importlib.import_module("concurrent.interpreters")


def in_main() -> bool:
    """Whether this is the interpreter that the process began with: the only one that may have daemon threads."""
    return bool(interpreters().get_current() == interpreters().get_main())
