"""Runs tests of one class, and tells the judge what happens, a line of JSON for each event.

``python -m conformance.runner FD HANG [CLASS TEST ...]``; without a class it lists the tests.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import time
import traceback
import unittest
from typing import Any

from conformance import suite


class Teller(unittest.TestResult):
    """Tells the judge of each test as it begins and ends.

    Args:
        fd: Where to write.
        hang: Seconds after which a test's stacks are dumped to standard error, to show where it hangs.
    """

    def __init__(self, fd: int, hang: float) -> None:
        super().__init__()
        self._fd, self._hang, self._owner = fd, hang, os.getpid()
        self._outcome = ("pass", "")

    def tell(self, **event: Any) -> None:
        """Write one event; a forked child stays silent."""
        if os.getpid() == self._owner:
            os.write(self._fd, json.dumps(event).encode() + b"\n")

    def startTest(self, test: Any) -> None:
        """Tell of it."""
        super().startTest(test)
        self._outcome, self._begun = ("pass", ""), time.monotonic()
        self.tell(event="begin", test=test._testMethodName)
        faulthandler.dump_traceback_later(self._hang, file=2)

    def stopTest(self, test: Any) -> None:
        """Tell of it."""
        faulthandler.cancel_dump_traceback_later()
        super().stopTest(test)
        status, why = self._outcome
        seconds = round(time.monotonic() - self._begun, 3)
        self.tell(event="end", test=test._testMethodName, status=status, why=why, seconds=seconds)

    def addError(self, test: Any, err: Any) -> None:
        """Keep the first thing that went wrong; what a class's fixture raised counts for all of its tests."""
        traceback.print_exception(*err)
        kind, exc, tb = err
        where = [frame.lineno for frame in traceback.extract_tb(tb) if frame.filename == suite.__file__]
        why = " ".join("".join(traceback.format_exception_only(kind, exc)).split())[:300]
        why += f" (line {where[-1]})" if where else ""
        status = "fail" if issubclass(kind, AssertionError) else "error"
        if not hasattr(test, "_testMethodName"):
            self.tell(event="fixture", status=status, why=why)
        elif self._outcome[0] in ("pass", "skip"):
            self._outcome = (status, why)

    addFailure = addError

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
        """Count a failing part as the test."""
        if err is not None:
            self.addError(test, err)

    def addSkip(self, test: Any, reason: str) -> None:
        """Keep the reason."""
        if self._outcome[0] == "pass":
            self._outcome = ("skip", reason)

    def addExpectedFailure(self, test: Any, err: Any) -> None:
        """Expected, so it passes."""

    def addUnexpectedSuccess(self, test: Any) -> None:
        """Not what the suite says."""
        self._outcome = ("fail", "unexpected success")


def main(fd: int, hang: float, kind: str = "", *tests: str) -> None:
    """Run, or list."""
    teller = Teller(fd, hang)
    if not kind:
        teller.tell(event="tests", tests=suite.tests())
        return
    suite.begin()
    case = suite.CLASSES[kind]
    unittest.TestSuite(case(test) for test in tests).run(teller)
    teller.tell(event="done")


if __name__ == "__main__":
    os.set_inheritable(int(sys.argv[1]), False)
    main(int(sys.argv[1]), float(sys.argv[2]), *sys.argv[3:])
