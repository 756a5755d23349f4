"""One look a second for all who watch the page, and none while nobody does."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import asdict
from functools import partial
from typing import Any

from lab.errors import LabError
from lab.watching.circles import Circle, certain, lasting, waits_at
from lab.watching.stack import Stack, ask_all
from lab.watching.state import Fleet
from producer import output
from producer.watching.fleet import Watched

EVERY = 1.0
"""Seconds between two looks."""


class Hub:
    """The latest look, and those who wait for the next.

    Args:
        watched: The fleet.
    """

    def __init__(self, watched: Watched) -> None:
        self._watched = watched
        self._fleet: Fleet | None = None
        self._document: dict[str, Any] = {}
        self._looked_at = 0.0
        self._stacks: dict[tuple[str, str], Stack] = {}
        self._asked: set[tuple[str, str]] = set()
        self._readers: set[asyncio.Queue[str]] = set()
        self._looking = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def latest(self) -> dict[str, Any]:
        """A look that is no older than the time between two.

        Raises:
            LabError: Redis does not answer.
        """
        async with self._looking:
            if time.monotonic() - self._looked_at >= EVERY:
                self._document = await asyncio.to_thread(self._look)
                self._looked_at = time.monotonic()
            return self._document

    async def follow(self) -> AsyncIterator[str]:
        """Each look as a line of JSON, as long as the reader reads; one who is slow misses some."""
        reader: asyncio.Queue[str] = asyncio.Queue(1)
        self._readers.add(reader)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        try:
            while True:
                yield await reader.get()
        finally:
            self._readers.discard(reader)

    async def _run(self) -> None:
        while self._readers:
            try:
                said = json.dumps(output.plain(await self.latest()))
            except LabError as exc:
                said = json.dumps({"away": exc.message})
            for reader in self._readers:
                if reader.full():
                    reader.get_nowait()
                reader.put_nowait(said)
            await asyncio.sleep(EVERY)

    def _look(self) -> dict[str, Any]:
        look = self._watched.watcher.look
        before, self._fleet = self._fleet or look(), look()
        circles = lasting(before, self._fleet)
        self._ask(circles)
        return document(self._fleet, self._watched.settings.lease, circles, self._stacks)

    def _ask(self, circles: list[Circle]) -> None:
        """Ask those who wait in a circle where they do, once: they will not move."""
        tickets = {link.tickets for circle in circles for link in circle.links}
        new = [(c.run, link.process) for c in circles for link in c.links if link.tickets not in self._asked]
        if new and self._watched.settings.authkey:
            self._stacks |= ask_all(self._watched.settings, self._watched.store, new)
        self._asked = tickets


def document(fleet: Fleet, lease: float, circles: list[Circle], stacks: dict[tuple[str, str], Stack]) -> dict[str, Any]:
    """What the page shows."""
    place = partial(waits_at, stacks=stacks)
    said = asdict(fleet) | {"lease": lease}
    for run, its in zip(fleet.runs, said["runs"], strict=True):
        for lock, each in zip(run.locks, its["locks"], strict=True):
            each["state"] = lock.state
    said["deadlocks"] = [
        {
            "run": circle.run,
            "certain": certain(circle, stacks),
            "links": [asdict(link) | {"at": str(place(circle, link) or "")} for link in circle.links],
        }
        for circle in circles
    ]
    return said
