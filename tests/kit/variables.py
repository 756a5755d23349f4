"""The environment variables of the programs that a test starts."""

from __future__ import annotations

import os

from lab.settings import Settings


def unset() -> dict[str, str]:
    """Our own, without any setting of Crosshost."""
    return {name: value for name, value in os.environ.items() if not name.startswith("CROSSHOST_")}


def leading_to(settings: Settings) -> dict[str, str]:
    """Those that point at a running fleet."""
    return {
        **unset(),
        "CROSSHOST_BROKER_URL": settings.broker_url,
        "CROSSHOST_AUTHKEY": settings.authkey.decode(),
        "CROSSHOST_LEASE": str(settings.lease),
    }
