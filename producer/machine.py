"""What a measurement ran on, without which its numbers mean nothing."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass

from lab.concepts._shared import cores, has_gil


@dataclass(frozen=True)
class Machine:
    """The interpreter and the machine under it.

    Attributes:
        python: Implementation and version.
        gil: Whether threads of this interpreter take turns.
        cores: Cores that this process may use.
        cores_total: Cores of the machine.
        system: Kernel and architecture.
        load: Processes that wanted to run, mean of the last minute, when the measurement began.
    """

    python: str
    gil: bool
    cores: int
    cores_total: int
    system: str
    load: float

    @classmethod
    def here(cls) -> Machine:
        """The machine that runs this."""
        return cls(
            python=f"{platform.python_implementation()} {platform.python_version()}",
            gil=has_gil(),
            cores=cores(),
            cores_total=os.cpu_count() or 1,
            system=f"{platform.system()} {platform.release()} {platform.machine()}",
            load=load(),
        )


def load() -> float:
    """Load average of the last minute."""
    return round(os.getloadavg()[0], 2)
