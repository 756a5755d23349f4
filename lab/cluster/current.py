"""The context of this process: there is one, as there is one run.

``lab.cluster.context`` is above the nouns of this package, which it makes. What a noun needs of it without being given it
(``Process``, whose class the stdlib asks for a child; a pool or a manager that is made without a context), it finds here.
"""

from __future__ import annotations

from typing import Any

_context: Any = None


def enter(context: Any) -> None:
    """Make this the context of this process; ``lab.cluster.context`` does when it is imported."""
    global _context
    _context = context


def context() -> Any:
    """The ``ClusterContext`` of this process."""
    assert _context is not None, "lab.cluster.context makes it, and was not imported"
    return _context
