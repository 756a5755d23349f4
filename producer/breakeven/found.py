"""What ``producer breakeven`` has measured, for its report."""

from __future__ import annotations

from dataclasses import dataclass, field

from producer.breakeven.model import Costs, Work
from producer.breakeven.trial import Trial
from producer.machine import Machine


@dataclass
class Found:
    """Everything measured.

    Attributes:
        machine: What this process ran on.
        cores: Cores that the workers of a place may use, on all its machines together.
        machines: How many machines that are.
        costs: By place.
        works: What the functions take in this process.
        trials: The functions in the places.
    """

    machine: Machine
    cores: dict[str, int] = field(default_factory=dict)
    machines: dict[str, int] = field(default_factory=dict)
    costs: dict[str, Costs] = field(default_factory=dict)
    works: dict[str, Work] = field(default_factory=dict)
    trials: dict[str, list[Trial]] = field(default_factory=dict)
