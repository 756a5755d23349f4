"""An estimator for the tests of joblib: it says on which host it is fitted."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from sklearn.svm import SVC


class Slow(SVC):  # type: ignore[misc]
    """An SVC that takes its time where it is fitted on a host, and leaves a file that names the host."""

    def __init__(self, directory: str = "", C: float = 1.0, gamma: float = 0.1) -> None:
        super().__init__(C=C, gamma=gamma)
        self.directory = directory

    def fit(self, features: Any, labels: Any) -> Any:
        """Fit."""
        host = os.environ.get("CROSSHOST_HOST", "")
        if self.directory and host:
            (Path(self.directory) / f"{host}@{time.monotonic_ns()}").touch()
            time.sleep(0.3)
        return super().fit(features, labels)
