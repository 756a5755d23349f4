"""A function by the name under which every process can find it: ``package.module:function`` or ``script.py:function``.

What travels to a worker is the name, not the function. So a lambda at module level will do, and a process that cannot
find the name says so by itself.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import operator
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from lab.program import source


@dataclass(frozen=True)
class Target:
    """Where a function is; called, it calls the function.

    Attributes:
        module: Name of a module, or absolute path of a script (ends in ``.py``).
        name: The function's name in it; ``Class.method`` will do.
    """

    module: str
    name: str

    def load(self) -> Callable[..., Any]:
        """The function in this process; whatever importing its module raises."""
        return _load(self)

    def __call__(self, *args: Any) -> Any:
        """Call the function."""
        return self.load()(*args)

    def __str__(self) -> str:
        return f"{self.module}:{self.name}"

    def fingerprint(self) -> str:
        """Digest of the source file that defines the function's module; empty where there is none to read (builtins)."""
        path = getattr(load_module(self.module), "__file__", None)
        if not path or not os.path.isfile(path):
            return ""
        return hashlib.blake2b(Path(path).read_bytes(), digest_size=16).hexdigest()


def load_module(module: str) -> ModuleType:
    """Import a module by its name, or a script by its path, once a process.

    A script is not the main module here: its ``if __name__ == "__main__":`` part does not run. Its folder is searched for
    what it imports, as when Python runs it.
    """
    if not module.endswith(".py"):
        return importlib.import_module(module)
    name = f"_script_{Path(module).stem}"
    if name in sys.modules and getattr(sys.modules[name], "__file__", None) == module:
        return sys.modules[name]
    if (folder := str(Path(module).parent)) not in sys.path:
        sys.path.insert(0, folder)
    own = source.installed()  # on a host, which has no such file but got its source from the program
    loader = own.loader(name, module) if own and module in own.files else None
    spec = importlib.util.spec_from_file_location(name, module, loader=loader)
    if spec is None or spec.loader is None:
        raise ImportError(f"{module} is not a Python script")
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[name] = loaded  # before it runs: what it defines is looked up there by pickle and by dataclasses
    try:
        spec.loader.exec_module(loaded)
    except BaseException:
        del sys.modules[name]
        raise
    return loaded


@cache
def _load(target: Target) -> Callable[..., Any]:
    function: Callable[..., Any] = operator.attrgetter(target.name)(load_module(target.module))
    return function
