"""Which function a pickled call is of, read from the pickle without loading it: to load one can run code."""

from __future__ import annotations

import pickletools

MOST_BYTES = 4096
"""A call begins with its function; what follows is its arguments."""

_MACHINERY = ("multiprocessing.", "lab.cluster", "concurrent.futures", "functools", "lab.spans")

_BY_VALUE = "lab.byvalue"
"""What makes a function of its parts; the name of the function is the first of those."""


def function_of(pickled: bytes | memoryview) -> str:
    """The first function or class that a pickle names and that is no machinery of pools; empty if there is none."""
    strings: list[str] = []
    memo: list[str | None] = []
    named = False
    try:
        for opcode, argument, _ in pickletools.genops(bytes(pickled[:MOST_BYTES])):
            if "UNICODE" in opcode.name:
                if named:
                    return str(argument)
                strings.append(str(argument))
            elif opcode.name == "MEMOIZE":
                memo.append(strings[-1] if strings else None)
            elif opcode.name in ("BINGET", "LONG_BINGET") and (known := memo[int(argument or 0)]) is not None:
                strings.append(known)
            elif opcode.name == "STACK_GLOBAL":
                module, name = strings[-2:]
                named = module == _BY_VALUE
                if not named and not f"{module}.".startswith(_MACHINERY):
                    return name if module in ("__main__", "__mp_main__") else f"{module}.{name}"
    except (ValueError, IndexError, UnicodeDecodeError):  # it was cut off in the middle, or is none
        return ""
    return ""
