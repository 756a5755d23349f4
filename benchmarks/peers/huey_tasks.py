"""Huey's tasks, in its own environment."""

from __future__ import annotations

from huey import RedisHuey  # type: ignore[import-not-found]

from benchmarks.peers import peers, works

huey = RedisHuey("peers", url=peers.url(), blocking=True, store_none=True)
noop, spin, nap = (huey.task()(function) for function in (works.noop, works.spin, works.nap))
