"""One call that has a Celery app's messages on loan."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import kombu
from celery import Celery
from celery.exceptions import ImproperlyConfigured
from kombu.utils.url import maybe_sanitize_url, parse_ssl_cert_reqs

from onloan import logs, shutdown, transport

_PUBLISH = {"max_retries": 60, "interval_start": 0.1, "interval_step": 0.2, "interval_max": 1.0}
"""About a minute; Celery's own default gives up after 0.6 s."""


def configure(
    app: Celery,
    *,
    lease: float = 6.0,
    max_deliveries: int = transport.Channel.max_deliveries,
    max_message_bytes: int = transport.Channel.max_message_bytes,
    dead_key: str = transport.Channel.dead_key,
    key_prefix: str = "",
    allow_links: bool = True,
    grace: float = 5.0,
    ends_at_once: Callable[[Any], bool] | None = None,
    carrier: str = transport.ALIAS,
    **transport_options: Any,
) -> None:
    """Have an app take its messages on loan; what each setting is for: onloan's README.

    It may come before or after the broker's address is known, and a setting that the app makes after it counts. A producer
    may do without it: it sends the same bytes.

    Args:
        app: The app; all that connects through it is meant, its workers first of all.
        lease: Seconds that a silent worker is still taken for alive; after that what it held is run by another.
        max_deliveries: A message that was lost as often is a dead letter.
        max_message_bytes: So is a larger one, also one that grows larger when it is decompressed.
        dead_key: Name of the list of dead letters.
        key_prefix: What all of the broker's keys begin with.
        allow_links: Whether a message may name what is called after it (links, chains, chords: Celery's canvas). A worker
            sends those on with its own rights, so an app that has no use for them does well to refuse them.
        grace: Seconds that the tasks of a worker that is told to stop (SIGTERM) have to end; then they are given to others.
        ends_at_once: Tells of a request (``celery.worker.request.Request``) whether it is ended without that wait.
        carrier: Alias of the transport in ``kombu.transport.TRANSPORT_ALIASES``, for an app with a subclass of its own.
        **transport_options: Others of kombu's Redis transport.

    Raises:
        ImproperlyConfigured: The broker is not Redis; when it connects, if the address is not known yet.
        ValueError: A number that makes no sense.
    """
    for name, value in (("lease", lease), ("max_deliveries", max_deliveries), ("max_message_bytes", max_message_bytes)):
        if not value > 0:
            raise ValueError(f"{name} is {value!r}; it must be more than 0.")
    options = {
        "visibility_timeout": lease,
        "max_deliveries": max_deliveries,
        "max_message_bytes": max_message_bytes,
        "dead_key": dead_key,
        "global_keyprefix": key_prefix,
        "allow_links": allow_links,
        # a peer that is silently gone must not block the loop for longer
        "socket_connect_timeout": 2.0,
        "socket_timeout": 5.0,
        "socket_keepalive": True,
        "health_check_interval": 5,
        "retry_on_timeout": False,  # a push that is sent again may be a second message
        **transport_options,
    }
    known = app.conf.broker_url if vars(app)["configured"] else vars(app)["_preconf"].get("broker_url")
    if known:
        address(known)
    app.conf.update(
        broker_transport=carrier,
        broker_transport_options=options,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        # take a message only for a free slot: none waits behind a long task while other workers are idle
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_cancel_long_running_tasks_on_connection_loss=False,  # what is cancelled is acknowledged, that is, lost
        worker_soft_shutdown_timeout=grace,
        broker_connection_retry=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # an outage has no agreed length
        task_publish_retry=True,
        task_publish_retry_policy=_PUBLISH,
    )

    def connect(url: Any, *args: Any, **given: Any) -> kombu.Connection:
        # every connection of the app's comes by here, whatever the address says and since when it is known
        given["transport_options"] = {**options, **(given.get("transport_options") or {})}
        host, secured = address(url, carrier)
        if secured:
            given["ssl"] = {**secured, **(given["ssl"] if isinstance(given.get("ssl"), dict) else {})}
        return kombu.Connection(host, *args, **{**given, "transport": carrier})

    vars(app.amqp)["Connection"] = connect
    logs.install()
    shutdown.install(app, ends_at_once)


def address(url: Any, carrier: str = transport.ALIAS) -> tuple[str, dict[str, Any]]:
    """A broker's address as kombu takes it for this transport, and how its certificate is verified; empty without TLS.

    kombu takes ``rediss://`` for TLS with any certificate at all. Here it is verified, unless the address itself says
    ``?ssl_cert_reqs=none``.

    Raises:
        ImproperlyConfigured: It is not one Redis.
    """
    if url and (not isinstance(url, str) or ";" in url):
        raise ImproperlyConfigured(f"onloan needs one Redis, not a list of brokers: {_shown(url)}")
    scheme, _, rest = (url or "").partition("://")
    if scheme == "redis":
        return url, {}
    if scheme in ("unix", "redis+socket", f"{transport.ALIAS}+socket"):
        return f"{carrier}+socket://{rest}", {}
    if scheme != "rediss":
        raise ImproperlyConfigured(
            f"onloan needs a Redis as the broker, and broker_url is {_shown(url)}.\n"
            "Set it to redis://HOST:PORT/DB, rediss://HOST:PORT/DB or unix:///PATH/OF/THE/SOCKET"
        )
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    secured: dict[str, Any] = {name: query.pop(name) for name in list(query) if name.startswith("ssl_")}
    required = parse_ssl_cert_reqs(secured.get("ssl_cert_reqs", "CERT_REQUIRED"))
    named = secured.get("ssl_check_hostname", "true").lower() != "false" and required != ssl.CERT_NONE
    secured |= {"ssl_cert_reqs": required, "ssl_check_hostname": named}
    return parts._replace(query=urlencode(query)).geturl(), secured


def _shown(url: Any) -> str:
    """An address without its password, for an error."""
    each = url.split(";") if isinstance(url, str) else [str(one) for one in url or ()]
    return "; ".join(maybe_sanitize_url(one) for one in each) or "empty"
