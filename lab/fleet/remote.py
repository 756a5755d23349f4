"""Celery's remote control, of which a fleet obeys little, and that only from holders of its key.

Whoever may publish could otherwise have every worker stop taking messages, forget its tasks or shut down. So the commands
that the lab sends are signed with the fleet's key, over all that they say; a worker does what it is told if the signature
holds, is fresh and new to it, and the command is one of ``COMMANDS``. Everything else is ignored, and said so in the log
once a kind. A monitor has no key: it may ask for events, which lapse (``worker.events``), and gets no answer.
"""

from __future__ import annotations

import hmac
import json
import secrets
import time
from collections import OrderedDict
from functools import partial
from typing import Any

from celery import Celery
from celery.app.control import Control
from celery.utils.log import get_logger
from kombu import pidbox

from lab.keyring import Keyring

log = get_logger(__name__)

COMMANDS = frozenset({"ping", "revoke", "enable_events", "sync"})
UNSIGNED = frozenset({"enable_events"})
FRESH = 300.0
"""Seconds, by the hosts' clocks, that a command is good for."""

KNOWN = 10_000
"""Commands of which a worker remembers that it has had them; more in the time of ``FRESH``, and the newest are refused."""

_Node: Any = pidbox.Node  # kombu has no types
_Mailbox: Any = pidbox.Mailbox
_FIELDS = ("method", "arguments", "destination", "pattern", "matcher", "ticket", "reply_to")


class Node(_Node):  # type: ignore[misc]
    """A worker's end of the mailbox."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._had: OrderedDict[str, float] = OrderedDict()
        self._told: set[str] = set()

    def handle_message(self, body: Any, message: Any = None) -> Any:
        """Do what a message asks for, if it may."""
        method = body.get("method") if isinstance(body, dict) else None
        if not isinstance(method, str) or method not in COMMANDS:
            return self._ignore("a command that no fleet obeys", method)
        if self._genuine(body):
            return super().handle_message({name: body[name] for name in _FIELDS if name in body}, message)
        if method not in UNSIGNED:
            return self._ignore("a command without a valid signature", method)
        destination = body.get("destination")
        if not destination or (isinstance(destination, list) and self.hostname in destination):
            self.dispatch(method)  # without its arguments, and without an answer to whoever it names
        return None

    def _genuine(self, body: dict[str, Any]) -> bool:
        """Whether a holder of the key has sent it, just now, for the first time; takes the signature out."""
        arguments = body.get("arguments")
        signed = arguments.pop("signed", None) if isinstance(arguments, dict) else None
        if self.mailbox.ring is None or not isinstance(signed, dict):
            return False
        texts, sent = [signed.get(name) for name in ("key", "ticket", "signature")], signed.get("sent")
        if not all(isinstance(text, str) for text in texts) or not isinstance(sent, (int, float)):
            return False
        key, ticket, given = map(str, texts)
        authkey = self.mailbox.ring.get(_id(key))
        if authkey is None:
            return False
        right = signature(authkey, body, ticket, sent)
        now = time.time()
        if not hmac.compare_digest(given.encode(errors="replace"), right.encode()) or not abs(now - sent) < FRESH:
            return False
        while self._had and next(iter(self._had.values())) < now - 2 * FRESH:
            self._had.popitem(last=False)
        if ticket in self._had or len(self._had) >= KNOWN:
            return False
        self._had[ticket] = now
        return True

    def _ignore(self, why: str, method: Any) -> None:
        if why not in self._told:
            self._told.add(why)
            log.warning("remote control ignored, and not said again: %s: %.100r", why, method)


class Mailbox(_Mailbox):  # type: ignore[misc]
    """Signs what it sends, if there is a key."""

    node_cls = Node

    def __init__(self, *args: Any, ring: Keyring | None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ring = ring

    def _publish(self, type: str, arguments: Any, destination: Any = None, reply_ticket: Any = None,
                 pattern: Any = None, matcher: Any = None, **options: Any) -> None:  # fmt: skip
        if self.ring is not None:
            said = {"method": type, "arguments": arguments, "destination": destination,
                    "pattern": pattern, "matcher": matcher}  # fmt: skip
            if reply_ticket:
                said |= {"ticket": reply_ticket,
                         "reply_to": {"exchange": self.reply_exchange.name, "routing_key": self.oid}}  # fmt: skip
            ticket, sent = secrets.token_hex(16), time.time()
            key = self.ring.first
            given = signature(self.ring.get(key) or b"", said, ticket, sent)
            signed = {"key": key.hex(), "ticket": ticket, "sent": sent, "signature": given}
            arguments = {**arguments, "signed": signed}
        super()._publish(
            type,
            arguments,
            destination=destination,
            reply_ticket=reply_ticket,
            pattern=pattern,
            matcher=matcher,
            **options,
        )


def _id(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""


def signature(authkey: bytes, body: dict[str, Any], ticket: str, sent: float) -> str:
    """The signature of a command, in hex: over all that it says, without the signature itself."""
    said = json.dumps([[body.get(name) for name in _FIELDS], ticket, sent], sort_keys=True)
    return hmac.digest(authkey, b"crosshost-2 remote control" + said.encode(), "sha256").hex()


class SignedControl(Control):
    """Celery's remote control, with signatures."""

    def __init__(self, ring: Keyring | None, app: Any = None) -> None:
        vars(self)["Mailbox"] = partial(Mailbox, ring=ring)
        super().__init__(app)


def install(app: Celery, ring: Keyring | None) -> None:
    """Have an app sign the commands that it sends, and its workers obey no others."""
    vars(app)["control_cls"] = partial(SignedControl, ring)
