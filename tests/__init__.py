"""The tests, in the rooms of what they test; a package, so that children can import their targets.

``kit/`` is what they are made of: servers, proxies, containers, ways to wait. Nothing but tests, ``faults`` and
``benchmarks`` imports it.
"""

from pathlib import Path

ROOT = Path(__file__).parents[1]
"""The repository."""
