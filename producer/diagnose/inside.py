"""The interpreter that runs a script to be diagnosed: ``python -P -m producer.diagnose.inside FILE PLACE SCRIPT.py``.

As ``producer run`` runs it, and observed (``lab.program.observed``).
"""

from __future__ import annotations

import os
import sys

from lab.program import observed
from producer import script

if __name__ == "__main__":
    observed.observe(sys.argv[1], os.path.abspath(sys.argv[3]))
    script.main(*sys.argv[2:])
