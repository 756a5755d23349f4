"""``python -m worker.supervised FD``: a supervisor as an interpreter of its own, in place of one that was killed."""

from __future__ import annotations

import socket
import sys

from lab.settings import Settings
from worker.supervisor import Supervisor

if __name__ == "__main__":
    Supervisor(Settings.from_env(), socket.socket(fileno=int(sys.argv[1]))).run()
