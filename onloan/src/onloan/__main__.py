"""What no worker will run, and why: ``python -m onloan redis://localhost``."""

from __future__ import annotations

import argparse
import sys

import redis
from celery.exceptions import ImproperlyConfigured

from onloan import deadletters, transport
from onloan.settings import address


def main(arguments: list[str] | None = None) -> int:
    """Show the dead letters of a broker; 0, or 2 if it cannot be asked."""
    parser = argparse.ArgumentParser(prog="python -m onloan", description="Show the messages that no worker will run.")
    parser.add_argument("broker", help="its URL: redis://, rediss:// or unix://")
    parser.add_argument("--json", action="store_true", help="with the messages, the first 64 KiB of each")
    parser.add_argument("--clear", action="store_true", help="forget those that were shown")
    parser.add_argument(
        "--key", default=transport.Channel.dead_key, help="the list, with the app's prefix (%(default)s)"
    )
    given = parser.parse_args(arguments)
    try:
        with connect(given.broker) as client:
            found = deadletters.read(client.execute_command, given.key)
            sys.stdout.write(deadletters.as_json(found) + "\n" if given.json else deadletters.as_text(found))
            sys.stdout.flush()  # Excluded: forgetting what a closed pipe did not take
            if given.clear:
                deadletters.clear(client.execute_command, given.key, len(found))
    except (ImproperlyConfigured, redis.RedisError, OSError) as exc:
        print(f"{parser.prog}: {exc}", file=sys.stderr)
        return 2
    return 0


def connect(url: str) -> redis.Redis:
    """A client for a broker's URL as ``configure`` takes it, its certificate verified likewise."""
    host, secured = address(url)
    socket = f"{transport.ALIAS}+socket://"
    plain = f"unix://{host.removeprefix(socket)}" if host.startswith(socket) else host
    return redis.Redis.from_url(plain, socket_timeout=5, socket_connect_timeout=2, **secured)


if __name__ == "__main__":
    sys.exit(main())
