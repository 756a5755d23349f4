r"""What strangers wrote cannot steer the terminal that a worker logs to.

A message's arguments and custom headers may hold anything, and Celery logs them: an escape sequence among them could clear
the screen, or rewrite the line before. Names and ids with such characters are refused (``onloan.check``); in what is
logged, each control character but a line's end and a tab is written as ``\x1b``.
"""

from __future__ import annotations

import logging
import re
from typing import Any

from celery import signals

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_formatter = logging.Formatter()


def plain(text: str) -> str:
    """The text, with control characters (those that turn the direction of writing among them) made visible."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class Neutral(logging.Filter):
    """Makes control characters in a record visible; it lets every record pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record where it needs it, its traceback too; a handler's own colours come later and stay."""
        try:
            text = record.getMessage()
            if record.exc_info and record.exc_info[0] is not None and not record.exc_text:
                record.exc_text = _formatter.formatException(record.exc_info)
        except Exception:  # noqa: BLE001 - the handler reports it, as it does for everybody's
            return True
        if _CONTROL.search(text):
            record.msg, record.args = plain(text), ()
        record.exc_text = record.exc_text and plain(record.exc_text)
        record.stack_info = record.stack_info and plain(record.stack_info)
        return True


_neutral = Neutral("onloan")


def install() -> None:
    """Have all that a worker's loggers write pass through the filter; a project that sets up logging itself adds it."""
    signals.after_setup_logger.connect(_add)
    signals.after_setup_task_logger.connect(_add)


def _add(logger: Any = None, **_: Any) -> None:
    for handler in logger.handlers if logger is not None else ():
        if _neutral not in handler.filters:
            handler.addFilter(_neutral)
