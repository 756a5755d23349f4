"""A plugin for pytest, with which joblib's own tests find the backend ``crosshost`` among the others."""

from __future__ import annotations

import lab

lab.joblib.register()
