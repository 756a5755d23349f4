"""Redis for one who only reads: no scripts, no ordered lanes, and so a user suffices who may do nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis

from lab.errors import BrokerUnreachable
from lab.store.outage import unreachable
from lab.store.store import GRACE, Store


class NotAllowed(BrokerUnreachable):
    """This user of Redis may not do that."""


class Reader:
    """A connection to Redis; it is made again when it breaks.

    Args:
        url: As in ``Store``.

    Raises (both methods):
        BrokerUnreachable: Redis does not answer, or refuses.
    """

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(
            url, protocol=2, socket_timeout=GRACE, socket_connect_timeout=2.0, driver_info=None
        )
        self._client.response_callbacks.clear()  # replies as they are, as everywhere here
        self._address = Store(url).address

    def call(self, *command: Any) -> Any:
        """Run one command; its reply."""
        return self.pipeline([command])[0]

    def pipeline(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Run commands in one round trip; their replies, the first error raised."""
        pipeline = self._client.pipeline(transaction=False)
        execute: Any = pipeline.execute_command
        for command in commands:
            execute(*command)
        try:
            replies: list[Any] = pipeline.execute(raise_on_error=False)
        except (redis.RedisError, OSError) as exc:
            raise unreachable(self._address, exc) from exc
        for reply in replies:
            if isinstance(reply, redis.exceptions.NoPermissionError):
                raise NotAllowed(f"Redis refuses the command: {reply}.", "Look at the user's ACL: deploy/acl/page")
            if isinstance(reply, Exception):
                raise reply
        return replies
