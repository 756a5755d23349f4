"""The journal: a small file beside the output that says how much of it counts, replaced as a whole each time.

Whatever kills the producer, the journal tells of a moment before: results are written first, the journal after them. What
the output holds beyond that is cut off when the map is resumed, and those items are done again; what the journal tells of
is not. (After a power failure the journal can be ahead of the output, because nothing is forced to the disk. That is
found out where the output is shorter than it says.)
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from lab.errors import ExitCode, LabError
from producer.mapping.ledger import Changed

SUFFIX = ".journal"
VERSION = 1


class CannotResume(LabError, RuntimeError):
    """The files left by an earlier map do not allow this."""

    exit_code = ExitCode.USAGE


class Journal:
    """The journal of one output.

    Args:
        output: Path of the output.
        identity: What must be the same for a resumed map: function, input, options. JSON.
    """

    def __init__(self, output: str, identity: dict[str, Any]) -> None:
        self.path = Path(output + SUFFIX)
        self._identity = {"version": VERSION, **identity}

    def write(self, state: dict[str, Any]) -> None:
        """Replace the journal.

        Raises:
            OSError: It could not be written; the one before is still there.
        """
        new = self.path.with_name(self.path.name + ".new")
        new.write_text(json.dumps({**self._identity, **state}) + "\n")
        os.replace(new, self.path)  # Excluded, as this is one step for the kernel: a journal that is half written.

    def read(self) -> dict[str, Any] | None:
        """The state last written; None where there is no journal.

        Raises:
            CannotResume: It cannot be read.
        """
        try:
            state = json.loads(self.path.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as exc:
            raise CannotResume(
                f"The journal {self.path} cannot be read: {exc}.", "To begin anew: --overwrite"
            ) from None
        return dict(state)

    def check(self, state: dict[str, Any], new_function: bool) -> None:
        """See that a state was written by the same map as this one.

        Args:
            state: What ``read`` returned.
            new_function: Whether the function's source may differ.

        Raises:
            Changed: It was not.
        """
        for name, mine in self._identity.items():
            theirs = state.get(name)
            if theirs == mine or (name == "source" and new_function):
                continue
            raise _changed(name, theirs, mine)


def _changed(name: str, theirs: Any, mine: Any) -> Changed:
    anew = "To begin anew and lose what the output has: --overwrite instead of --resume"
    if name == "source":
        return Changed(
            "The function's source file has changed since this output was begun.",
            f"To keep the results of the old one and go on with the new: --resume --new-function\n{anew}",
        )
    if name == "size":
        return Changed(f"The input has changed since this output was begun: {theirs} bytes then, {mine} now.", anew)
    return Changed(f"This output was begun with {name} {theirs!r}, not {mine!r}.", anew)
