"""What somebody who can write to Redis, and has no key, tells the hosts of a fleet: none ends, nothing runs, all is kept."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.cluster.context import ClusterContext
from lab.fleet.engine import DEAD_KEY, PREFIX, PROCESS_QUEUE, PROCESS_TASK
from onloan import deadletters
from tests.kit.lies import SIGNATURE, TABLE, call, embed, lies, refused
from tests.kit.server import Server
from tests.kit.wait import until

QUEUE = PREFIX + PROCESS_QUEUE


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path, hosts=2, slots=2) as server:
        yield server


def about_a_process(message: dict[str, Any]) -> str:
    """The same lie in a message that starts a process."""
    headers = message["headers"]
    if isinstance(headers, dict) and headers.get("task") == "work":
        headers = {**headers, "task": PROCESS_TASK}
    return json.dumps({**message, "headers": headers})


def test_no_lie_ends_a_host(fleet: Server) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print("seed", seed)
    links = [
        call(body=embed(**{name: [{**SIGNATURE, "options": {"queue": "elsewhere"}}]}))
        for name in ("callbacks", "chain")
    ]
    told = [about_a_process(message) for message in (*TABLE.values(), *links, *lies(seed, 200))]
    for message in told:
        fleet.client.lpush(QUEUE, message)
    until(
        lambda: not any(fleet.client.exists(QUEUE + kind) for kind in ("", ":leases", ":held")),
        "all are dealt with",
        60,
    )
    assert [host.poll() for host in fleet.workers] == [None, None]
    letters = Counter(letter.message for letter in deadletters.read(fleet.client.execute_command, DEAD_KEY))
    must = refused(told, links=False)
    assert sum(must.values()) > len(TABLE) + len(links)
    assert not must - letters
    assert not fleet.client.exists(PREFIX + "elsewhere")
    with ClusterContext(fleet.settings).Pool(2) as pool:
        assert pool.map(abs, [-1, -2]) == [1, 2]
