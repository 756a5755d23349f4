"""A Celery transport over Redis that loses nothing: kombu's own, with another way to take, keep and acknowledge.

An app uses it by ``onloan.configure(app)``; why, and its limits: onloan's README. What happens in Redis: ``onloan.leases``.

Differs from kombu.transport.redis: what a worker takes is recorded in the script that takes it; ``visibility_timeout`` is
a lease that the worker renews, so it is seconds, and a task may be as long as it likes; a message that cannot be run
becomes a dead letter. Reply queues (consumed without acknowledgement), publishing and remote control are kombu's.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from queue import Empty
from time import monotonic
from typing import Any

import redis
from celery import signals
from kombu.exceptions import ContentDisallowed, DecodeError
from kombu.log import get_logger
from kombu.transport import TRANSPORT_ALIASES, virtual
from kombu.transport import redis as stock
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads

from onloan import check, leases
from onloan.check import Refused
from onloan.deadletters import letter
from onloan.leases import Ledger, Loan
from onloan.logs import plain

log = get_logger("onloan.transport")

ALIAS = "onloan"
TRANSPORT_ALIASES[ALIAS] = f"{__name__}:Transport"

SWEEP = 1.0
"""Seconds at most between two looks for lapsed leases, of a worker that takes messages."""

NO_MEMORY = redis.exceptions.OutOfMemoryError
"""Redis has reached its maxmemory and refuses what may need more; not what a worker takes, keeps and acknowledges."""

FULL = 0.25
"""Seconds that a worker waits, when Redis has no memory left, before it looks again."""

SLICE, IDLE_SLICE = 0.05, 0.2
"""Seconds that a worker with several queues waits at one of them; and when nothing has come for ``AWAKE`` seconds."""
AWAKE = 5.0

CLOSING = 5.0
"""Seconds that closing a channel waits until Redis knows what became of its messages."""

_StockQoS: Any = stock.QoS  # kombu has no types
_StockChannel: Any = stock.Channel
_StockTransport: Any = stock.Transport
_VirtualQoS: Any = virtual.QoS
_VirtualMessage: Any = virtual.Message


class QoS(_StockQoS):  # type: ignore[misc]
    """What a channel has delivered and is not done with; the ledger knows what Redis is to hear of it."""

    def append(self, message: Any, delivery_tag: str) -> None:
        """Count a delivered message; it is on record already, by the script that took it."""
        _VirtualQoS.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """Done: settle the loan; bury it if Celery acknowledges because it cannot read the message."""
        if not _lent(delivery_tag):
            return
        error = sys.exc_info()[1]
        if isinstance(error, (DecodeError, ContentDisallowed)):
            self._bury(delivery_tag, _named(error))
        else:
            self.channel.ledger.settle(delivery_tag)
        _VirtualQoS.ack(self, delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Have another worker run it, or bury it."""
        if not _lent(delivery_tag):
            return
        if requeue:
            self.channel.ledger.give_back(delivery_tag, loss=True)
        else:
            self._bury(delivery_tag, self._why(delivery_tag))
        _VirtualQoS.ack(self, delivery_tag)

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """The channel closes. A worker that stops gives its messages back; one that lost its connection keeps what runs."""
        self._on_collect.cancel()
        self._flush()
        tags = list(self._delivered)
        self._delivered.clear()
        self._delivered.restored = True
        if _connection_lost():
            self.channel.ledger.abandon(tags, leases.running())
            return
        for tag in tags:
            self.channel.ledger.give_back(tag, loss=False)
        if not self.channel.ledger.flush(CLOSING):
            log.warning("%d messages: Redis could not be told what became of them; their leases will lapse", len(tags))

    def restore_visible(self, *_args: Any, **_options: Any) -> None:
        """Nothing to do: whoever takes a message takes over what has lapsed."""

    def _bury(self, tag: str, reason: str) -> None:
        message = self._delivered.get(tag)
        self.channel.ledger.bury(tag, _letter(tag, reason, message.headers if message is not None else None))

    def _why(self, tag: str) -> str:
        # Celery rejects from within the handler of the exception that says why, where it knows it.
        message, error = self._delivered.get(tag), sys.exc_info()[1]
        if error is None:
            return "rejected by its task"
        if not isinstance(error, (KeyError, TypeError)):
            return _named(error)
        task = message.headers.get("task") if message is not None and isinstance(message.headers, dict) else None
        return f"no such task: {task}" if task else "not a task: it names none"


class Message(_VirtualMessage):  # type: ignore[misc]
    """A message whose body is checked when it is decoded, and decompressed with a limit."""

    def __init__(self, payload: Any, channel: Any = None, **kwargs: Any) -> None:
        self._lent = isinstance(payload, _Lent)
        headers = payload.get("headers") or {}
        if method := self._lent and headers.get("compression"):
            payload = {**payload, "headers": {name: headers[name] for name in headers if name != "compression"}}
        super().__init__(payload, channel=channel, **kwargs)
        if method:
            self.body: Any = check.inflate(self.body, method, channel.max_message_bytes)

    def _decode(self) -> Any:
        value = super()._decode()
        if self._lent:
            brackets = (
                self.body.count(b"[") + self.body.count(b"{") if isinstance(self.body, bytes) else check.DEPTH + 1
            )
            check.depth(value, brackets)
            check.body(value, self.headers, self.channel.allow_links)
        return value


class Channel(_StockChannel):  # type: ignore[misc]
    """kombu's channel, taking messages on loan.

    Attributes (transport options):
        visibility_timeout: The lease, seconds; renewed four times as often.
        max_deliveries: A message that was lost as often (its worker died, went silent, or gave it back) is buried.
        max_message_bytes: A larger one is buried and never brought to a worker.
        dead_key: The list of dead letters.
        allow_links: Whether a message may name what is called after it (Celery's canvas); else one that does is buried.
        priority_steps: One by default, as each is a list of its own to look into.
    """

    QoS = QoS
    Message = Message
    visibility_timeout: float = 6.0
    max_deliveries = 10
    max_message_bytes = 16 << 20
    dead_key = "dead"
    allow_links = True
    priority_steps = (0,)
    from_transport_options = (
        *_StockChannel.from_transport_options, "max_deliveries", "max_message_bytes", "dead_key", "allow_links",
    )  # fmt: skip

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._unacknowledged: set[str] = set()  # queues whose consumers want no acknowledgement
        self._asked: list[tuple[str, str]] | None = (
            None  # where the command under way takes from; None: it takes nothing
        )
        self._full = False  # the last look was refused, as Redis has no memory left
        self._look_next = False  # the last command found nothing: wait
        self._turn = 0
        self._sweep_at = self._lent_at = 0.0
        self._script_known = False
        self._ledger: Ledger | None = None
        super().__init__(*args, **kwargs)

    @property
    def ledger(self) -> Ledger:
        """What this process has on loan from this broker."""
        if self._ledger is None:
            client = self.connection.client
            key = (client.as_uri(include_password=True), self.global_keyprefix, self.dead_key)
            self._ledger = leases.ledger(key, self._new_ledger)
        return self._ledger

    def _new_ledger(self) -> Ledger:
        parameters = self._connparams()
        patience = self.visibility_timeout / 3
        for name in ("socket_timeout", "socket_connect_timeout"):
            if name in parameters:
                parameters[name] = min(patience, parameters[name] or patience)
        pool = redis.ConnectionPool(**parameters)
        return Ledger(pool, self.global_keyprefix, self.visibility_timeout, self.dead_key)

    def basic_consume(self, queue: str, no_ack: bool = False, *args: Any, **kwargs: Any) -> Any:
        """Consume from a queue."""
        (self._unacknowledged.add if no_ack else self._unacknowledged.discard)(queue)
        return super().basic_consume(queue, no_ack, *args, **kwargs)

    def basic_get(self, queue: str, no_ack: bool = False, **kwargs: Any) -> Any:
        """Take one message, or None."""
        message = super().basic_get(queue, no_ack, **kwargs)
        if message is not None and no_ack:
            self.ledger.settle(message.delivery_tag)
        return message

    def close(self) -> None:
        """Close; what a command under way has taken is given back."""
        if self._in_poll and self._lends() and self._asked is None:
            self._in_poll.disconnect()  # it waits and takes nothing, so there is nothing to wait for
        super().close()

    def _put_right(self, do: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a method of kombu's; once more if a key was of another type, which then is out of the way.

        Excluded: a worker that ends, as all others do after it, and a queue that nobody can send to.
        """
        try:
            return do(*args, **kwargs)
        except redis.exceptions.ResponseError as exc:
            if not leases.is_wrong_type(exc):
                raise
            self._set_aside(arg for arg in args if isinstance(arg, str))
        try:
            return do(*args, **kwargs)
        except redis.exceptions.ResponseError as exc:
            raise redis.exceptions.ConnectionError(f"Redis refuses it: {exc}") from exc

    def _set_aside(self, names: Iterable[str] = ()) -> None:
        """Look at the keys of all queues and exchanges that are known here, and of those that are named."""
        names = {*names, *self.active_queues, *self.state.exchanges}
        types = {key: "list" for _, key in self._lists(sorted(names))}
        types |= {
            pattern % (name,): "set"
            for name in names
            for pattern in (self.keyprefix_queue, self.keyprefix_binding_permanent)
        }
        types[self.keyprefix_binding_deadlines] = "zset"
        with suppress(redis.RedisError, OSError):  # what was asked for is asked for again, and comes here again
            self.ledger.set_aside({self.global_keyprefix + key: kind for key, kind in types.items()})

    def _put(self, queue: str, message: Any, **kwargs: Any) -> None:
        self._put_right(super()._put, queue, message, **kwargs)

    def _size(self, queue: str) -> int:
        return int(self._put_right(super()._size, queue))

    def _queue_bind(self, *args: Any) -> None:
        self._put_right(super()._queue_bind, *args)

    def get_table(self, exchange: str) -> Any:
        """The queues that are bound to an exchange."""
        return self._put_right(super().get_table, exchange)

    def maybe_refresh_binding_expiry(self) -> None:
        """Keep the bindings of queues that expire."""
        self._put_right(super().maybe_refresh_binding_expiry)

    def _lends(self) -> bool:
        return not self._unacknowledged.issuperset(self.active_queues)

    def _lists(self, queues: list[str]) -> list[tuple[str, str]]:
        return [(queue, self._q_for_pri(queue, step)) for step in self.priority_steps for queue in queues]

    def _get(self, queue: str) -> Any:
        while loan := self.ledger.take(self._lists([queue]), self.max_message_bytes):
            try:
                return self._message(loan)
            except Exception as exc:  # noqa: BLE001 - whatever is wrong with it: it costs this message and no other
                self._refuse(loan, exc)
        raise Empty

    # kombu's poller sends whatever _brpop_start sends, and calls _brpop_read when there is an answer

    def _brpop_start(self, timeout: float | None = None) -> None:
        if not self._lends():
            super()._brpop_start(timeout)
            return
        queues = self._queue_cycle.consume(len(self.active_queues))
        if not queues:
            return
        connection = self._in_poll = self.client.connection
        self._brpop_sent_at = monotonic()
        lists = self._lists(queues)
        if self._look_next:
            # Waits without taking: from the right end back to the right end. It can wait at one list only, so with several
            # of them it waits at each in turn, a moment.
            self._asked, self._turn = None, self._turn + 1
            key = self.global_keyprefix + lists[self._turn % len(lists)][1]
            # Excluded: an idle worker that waits here for half a lease or longer, so that each look for lapsed leases takes
            # its silence for an outage, and believes none of them.
            if self._full:  # which refuses BLMOVE; there is nothing to take by this
                self._full = False
                connection.send_command("BLPOP", f"{key}.none", FULL)
                return
            seconds = SLICE if monotonic() - self._lent_at < AWAKE else IDLE_SLICE
            if len(lists) == 1:
                seconds = min(self.brpop_timeout, self.visibility_timeout / 4)
            connection.send_command("BLMOVE", key, key, "RIGHT", "RIGHT", seconds)
            return
        self._asked = lists
        if sweep := monotonic() >= self._sweep_at:
            self._sweep_at = monotonic() + min(SWEEP, self.visibility_timeout / 4)
        known = self._script_known
        connection.send_command(*self.ledger.take_command(lists, sweep, self.max_message_bytes, known))

    def _brpop_read(self, **options: Any) -> Any:
        if not self._lends():
            return super()._brpop_read(**options)
        asked, sent_at = self._asked, self._brpop_sent_at
        self._asked, self._look_next = None, False
        try:
            reply = self._in_poll.read_response()
            self._script_known = self._script_known or asked is not None
        except redis.exceptions.NoScriptError:
            self._script_known = False
            raise Empty from None
        except redis.exceptions.ResponseError as exc:  # no memory, read only: stock ends the worker; this tries again
            if asked is None and isinstance(exc, NO_MEMORY):
                self._full = True
                raise Empty from None
            self.client.connection.disconnect()
            if leases.is_wrong_type(exc):
                self._set_aside()
            raise redis.exceptions.ConnectionError(f"Redis refuses to lend messages: {exc}") from exc
        except self.connection_errors:
            self.client.connection.disconnect()
            raise
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()
        if asked is None or reply is None:
            self._look_next = asked is not None
            raise Empty
        loan, self._lent_at = self.ledger.taken(reply, asked), monotonic()
        if loan.delivery > 1:
            self._sweep_at = 0.0  # there may be more that its worker left
        # Excluded: running what another took over while the answer lay unread, in a worker that was frozen or had no slot.
        if self._closing or monotonic() - sent_at > self.visibility_timeout / 2:
            self.ledger.give_back(loan.tag, loss=False)
            raise Empty
        self._queue_cycle.rotate(loan.queue)
        self._hand_over(loan)
        return True

    def _receive_one(self, c: Any) -> Any:
        try:
            return super()._receive_one(c)
        except RecursionError:
            log.error("broadcast ignored: it lies too deep")
            raise Empty from None

    def _deliver_fanout_message(self, message: Any, exchange: str) -> bool:
        # A broadcast is on loan to nobody; whoever may publish could send anything, with the tag of somebody's loan on it.
        try:
            check.broadcast(message)
            message["properties"]["delivery_tag"] = ""
            return bool(super()._deliver_fanout_message(message, exchange))
        except (OSError, redis.RedisError):
            raise
        except Exception as exc:  # noqa: BLE001 - stock: the worker ends
            log.error("broadcast ignored: %s", plain(_named(exc)))
            return False

    def _hand_over(self, loan: Loan) -> None:
        try:
            self.connection._deliver(self._message(loan), loan.queue)
        except (OSError, redis.RedisError):
            raise  # not the message's fault: the connection is opened again, and the lease brings the message back
        except Exception as exc:  # noqa: BLE001 - stock: the worker ends, and each one that is given the message after it
            self._refuse(loan, exc)
        else:
            if loan.queue in self._unacknowledged:
                self.ledger.settle(loan.tag)

    def _message(self, loan: Loan) -> Any:
        """The message as kombu wants it, under our tag.

        Raises:
            Exception: It is no message; anything, as anybody may have written it.
        """
        if loan.losses >= self.max_deliveries:
            raise Refused(
                f"given up after {loan.delivery - 1} deliveries, of which {loan.losses} ended badly: "
                f"its worker died, was silent for {self.visibility_timeout:g} s, or gave it back"
            )
        if isinstance(loan.raw, int):
            raise Refused(f"{loan.raw:,} bytes, more than the {self.max_message_bytes:,} that a worker takes")
        message = loads(bytes_to_str(loan.raw))
        check.depth(message, loan.raw.count(b"[") + loan.raw.count(b"{"))
        check.envelope(message)
        properties = message["properties"]
        properties["delivery_tag"] = loan.tag  # the producer's own is no use: a copy of the message has the same
        properties["delivery_info"] = {**(properties.get("delivery_info") or {}), "redelivered": loan.delivery > 1}
        return _Lent(message)

    def _refuse(self, loan: Loan, exc: Exception) -> None:
        reason = _named(exc)
        log.error("message refused, see the dead letters: %s", plain(reason))
        self.ledger.bury(loan.tag, _letter(loan.tag, reason, _headers(loan.raw), loan.delivery))
        if loan.tag in self.qos._delivered:
            _VirtualQoS.ack(self.qos, loan.tag)


class _Lent(dict[str, Any]):
    """A message on loan, as opposed to one that was broadcast."""


class Transport(_StockTransport):  # type: ignore[misc]
    """The transport: ``broker_transport = "onloan.transport:Transport"``."""

    Channel = Channel

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # Stock: a worker that is just connecting ends.
        self.connection_errors: tuple[Any, ...] = (*self.connection_errors, NO_MEMORY)


def _connection_lost() -> bool:
    """Whether a channel that closes now does so because its connection is gone: its worker has not been told to stop."""
    state = sys.modules.get("celery.worker.state")
    return state is not None and all(
        flag is None or flag is False for flag in (state.should_stop, state.should_terminate)
    )


def _lent(tag: Any) -> bool:
    """Whether a delivery tag is a ledger's: what was broadcast has none."""
    return type(tag) is str and "@" in tag


def _named(error: BaseException) -> str:
    return str(error) if isinstance(error, Refused) else f"{type(error).__name__}: {error}"


def _headers(raw: Any) -> Any:
    try:
        return loads(bytes_to_str(raw))["headers"]
    except Exception:  # noqa: BLE001 - then it has none
        return None


def _letter(tag: str, reason: str, headers: Any, delivery: int = 0) -> str:
    said = headers if isinstance(headers, dict) else {}
    deliveries = delivery or int(tag.rpartition("@")[0].rsplit(".", 2)[1])
    return letter(reason, tag.rpartition("@")[2], said.get("task"), said.get("id"), deliveries)


@signals.task_revoked.connect
def _expired(sender: Any = None, request: Any = None, expired: bool = False, **_: Any) -> None:
    # Celery acknowledges what expired like what ran. This comes before that acknowledgement is sent.
    tag = (getattr(request, "properties", None) or {}).get("delivery_tag", "")
    if expired and "@" in tag:
        leases.note(tag, letter(f"expired at {request.expires}", tag.rpartition("@")[2], sender.name, request.id,
                                int(tag.rpartition("@")[0].rsplit(".", 2)[1])))  # fmt: skip
