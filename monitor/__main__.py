"""Flower for a fleet, for looking: ``python -m monitor`` in the container of the profile ``monitor``.

Flower's own command takes the broker's URL and the page's password as arguments or variables, where ``ps`` and ``docker
inspect`` show them. Here both come from files, by the settings that everything else uses.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path
from types import FrameType

from flower.app import Flower
from flower.options import options
from flower.urls import settings as pages

from lab.errors import BadSettings, LabError
from lab.fleet.engine import make_app
from lab.settings import Settings

USER = "crosshost"
PORT = 5555
PASSWORD_FILE = "CROSSHOST_FLOWER_PASSWORD_FILE"  # noqa: S105 - the name of a variable
FORGET = 60
"""Seconds after which a host that is gone is no longer listed."""


def main() -> None:
    """Serve until SIGTERM or Ctrl-C."""
    try:
        monitor = flower(Settings.from_env(), _password())
    except LabError as exc:
        print(exc, file=sys.stderr)
        sys.exit(int(exc.exit_code))
    signal.signal(signal.SIGTERM, _stop)
    monitor.start_http_server()
    print(f"Flower listens on port {PORT}; user {USER}", flush=True)
    monitor.io_loop.add_callback(monitor.events.on_enable_events)  # not only after its first five seconds
    try:
        monitor.start()
    except (KeyboardInterrupt, SystemExit):
        monitor.stop()


def flower(settings: Settings, password: str) -> Flower:
    """Flower for a broker: behind a password, and without the commands that change something.

    Raises:
        BadSettings: There is no broker.
    """
    if not settings.broker_url:
        raise BadSettings("A monitor needs a broker: CROSSHOST_BROKER_URL is not set.", "Point it at a fleet's Redis.")
    logging.basicConfig(level=logging.WARNING)
    options.address, options.port = "0.0.0.0", PORT  # noqa: S104 - of the container, which publishes it on the loopback
    options.basic_auth = [f"{USER}:{password}"]
    options.read_only = True
    options.purge_offline_workers = FORGET
    options.max_tasks = 10_000
    return Flower(capp=make_app(settings), options=options, **pages)


def _password() -> str:
    path = os.environ.get(PASSWORD_FILE, "")
    try:
        password = Path(path).read_text().strip()
    except OSError as exc:
        raise BadSettings(f"{PASSWORD_FILE} is {path!r}, which is not a readable file ({exc.strerror}).",
                          "Make it: sh deploy/setup") from exc  # fmt: skip
    if not password:
        raise BadSettings(f"{PASSWORD_FILE} names an empty file.", "Make another: rm it, then sh deploy/setup")
    return password


def _stop(_signum: int, _frame: FrameType | None) -> None:
    sys.exit(0)


if __name__ == "__main__":
    main()
