"""A notebook: its cells say the same in every place, and an interrupt ends the calls and nothing else.

The kernels are real ones, told cell by cell what to run, as a person's are.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from contextlib import asynccontextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from lab import PLACES
from tests import ROOT
from tests.kit import variables
from tests.kit.processes import alive
from tests.kit.wait import within

notebooks: Any = nbformat  # which has types for half of it
EXAMPLE = ROOT / "examples" / "notebook.ipynb"
TIMEOUT = 60


class Kernel:
    """A kernel, and the notebook that it is told."""

    def __init__(self, folder: Path) -> None:
        self.client: Any = NotebookClient(
            notebooks.v4.new_notebook(),
            timeout=TIMEOUT,
            kernel_name="python3",
            allow_errors=True,
            resources={"metadata": {"path": str(folder)}},
        )

    async def tell(self, source: str, then: Callable[[], Coroutine[Any, Any, None]] | None = None) -> str:
        """What a cell says, its errors as ``Name: message``; ``then`` is run as soon as it begins to say anything."""
        cell = notebooks.v4.new_code_cell(source)
        self.client.nb.cells.append(cell)
        told = asyncio.ensure_future(self.client.async_execute_cell(cell, len(self.client.nb.cells) - 1))
        if then is not None:
            for _ in range(TIMEOUT * 100):
                if cell.outputs or told.done():
                    break
                await asyncio.sleep(0.01)
            await then()
        await told
        return said(cell)

    async def interrupt(self) -> None:
        """As the button does: SIGINT to the kernel, and to all of its process group."""
        await self.client.km.interrupt_kernel()

    async def interrupt_twice(self) -> None:
        """Somebody who cannot wait."""
        await self.interrupt()
        await asyncio.sleep(0.1)
        await self.interrupt()

    @property
    def pid(self) -> int:
        """Its process id."""
        return int(self.client.km.provisioner.pid)


def said(cell: Any) -> str:
    """What a cell has printed, and its errors."""
    parts = [output.get("text") or f"{output.get('ename')}: {output.get('evalue')}\n" for output in cell.outputs]
    return "".join(parts)


@asynccontextmanager
async def kernel(folder: Path, env: dict[str, str], **more: str) -> Any:
    """A kernel that finds the fleet of an environment."""
    one = Kernel(folder)
    env = {**env, "PYTHONPATH": str(ROOT), **more}
    env.pop("PYTEST_CURRENT_TEST", None)  # by which a kernel shows nothing of what children of its host print
    async with one.client.async_setup_kernel(env=env):
        yield one


@pytest.mark.parametrize("place", PLACES)
def test_the_example_says_below_each_cell_what_is_written_there(
    place: str, fleet: dict[str, str], tmp_path: Path
) -> None:
    written = notebooks.read(EXAMPLE, as_version=4)
    assert 18 <= len(written.cells) <= 25
    cells, found = [cell for cell in written.cells if cell.cell_type == "code"], list[list[str]]()

    async def run() -> None:
        async with kernel(tmp_path, fleet, PLACE=place) as one:
            for cell in cells:
                found.append(sorted((await one.tell(cell.source)).splitlines()))  # several at once print in any order

    asyncio.run(run())
    expected = [sorted(said(cell).splitlines()) for cell in cells]
    if place == "processes":
        # Children of this host write to its own output, and the kernel shows that when it comes to it.
        found, expected = [sorted(chain(*found))], [sorted(chain(*expected))]
    assert found == expected


def test_what_a_cells_calls_print_stands_below_it_and_not_below_the_next(fleet: dict[str, str], tmp_path: Path) -> None:
    async def run() -> None:
        async with kernel(tmp_path, fleet) as one:
            await one.tell("import lab; ctx = lab.get_context('cluster'); pool = ctx.Pool(2)")
            await one.tell("def speak(n):\n    print(n, 'x' * 2000)\n    return n")
            for n in range(5):
                found = await one.tell(f"pool.map(speak, range({n * 20}, {n * 20 + 20}), 1)[0]")
                words = [line.split()[0] for line in found.splitlines() if "x" in line]
                assert sorted(map(int, words)) == list(range(n * 20, n * 20 + 20))
                assert await one.tell("print('quiet')") == "quiet\n"

    asyncio.run(run())


BEGIN = """
import lab, os, time
ctx = lab.get_context("cluster")
pool, executor, begun = ctx.Pool(2), lab.get_executor("cluster", 2), ctx.Value("i", 0)
def pid(_):
    return os.getpid()
def slow(_):
    print("begun", flush=True)
    time.sleep(600)
def stubborn(_):
    import signal
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    slow(_)
def endless():
    while True:
        yield 0
executor.submit(pid, 0).result()
print(ctx.embedded)
"""


@pytest.mark.parametrize("times", ["once", "twice"])
@pytest.mark.parametrize(
    "waiting",
    [
        "pool.map(slow, range(1000))",
        "pool.apply(stubborn, (1,))",
        "list(pool.imap(slow, endless()))",
        "background = pool.map_async(slow, range(50)); executor.submit(slow, 1).result()",
        "[executor.submit(slow, n) for n in range(50)]; time.sleep(600)",
        "list(executor.map(slow, range(50)))",
    ],
)
def test_an_interrupt_ends_the_calls_and_keeps_the_pool_and_the_fleet(
    waiting: str, times: str, fleet: dict[str, str], tmp_path: Path
) -> None:
    async def run() -> None:
        async with kernel(tmp_path, fleet) as one:
            assert await one.tell(BEGIN) == "False\n"
            found = await one.tell(waiting, one.interrupt if times == "once" else one.interrupt_twice)
            assert "KeyboardInterrupt" in found
            # each worker is free again, so nothing of what was interrupted runs or waits
            found = await one.tell("print(len(pool.map(pid, range(100), 1)), len([*executor.map(pid, range(100))]))")
            assert found.splitlines()[-1] == "100 100"
            assert (
                await one.tell("print(pool._calls.pending, executor._running, len(executor._waiting))") == "{} {} 0\n"
            )
            if "background" in waiting:
                found = await one.tell("background.get(10)")
                assert found.startswith("CallEnded: The call was ended, as the session was interrupted.")

    asyncio.run(run())


def test_a_fleet_that_the_notebook_started_lives_on_after_an_interrupt(tmp_path: Path) -> None:
    async def run() -> None:
        async with kernel(tmp_path, variables.unset()) as one:
            assert await one.tell(BEGIN) == "True\n"
            hosts = await one.tell("print(sorted(host.name for host in ctx.fleet()))")
            assert "KeyboardInterrupt" in await one.tell("pool.map(slow, range(10))", one.interrupt)
            assert await one.tell("print(pool.map(abs, [-1]))") == "[1]\n"
            assert await one.tell("print(sorted(host.name for host in ctx.fleet()))") == hosts

    asyncio.run(run())


def test_what_a_cell_catches_itself_ends_no_other_call(fleet: dict[str, str], tmp_path: Path) -> None:
    async def run() -> None:
        async with kernel(tmp_path, fleet) as one:
            await one.tell(BEGIN)
            await one.tell("later = pool.apply_async(time.sleep, (3,))")
            caught = "print('waits')\ntry:\n    time.sleep(600)\nexcept KeyboardInterrupt:\n    print('caught')"
            assert await one.tell(caught, one.interrupt) == "waits\ncaught\n"
            assert await one.tell("print(later.get(30))") == "None\n"

    asyncio.run(run())


def test_the_processes_of_a_kernel_that_dies_end_within_the_lease(
    cluster: Any, fleet: dict[str, str], tmp_path: Path
) -> None:
    run, store = cluster.connect(), cluster.connect().store
    before = set(store.call("KEYS", "crosshost:*"))

    async def die() -> None:
        async with kernel(tmp_path, fleet) as one:
            await one.tell(BEGIN)
            pids = [int(word) for word in (await one.tell("print(*set(pool.map(pid, range(20), 1)))")).split()]
            await one.tell("waiting = pool.map_async(slow, range(10))")
            os.kill(one.pid, signal.SIGKILL)
            assert within(run.settings.lease * 1.5, lambda: not any(map(alive, pids)))

    asyncio.run(die())

    def pools() -> list[bytes]:
        return [key for key in store.call("KEYS", "crosshost:*:pool:*") if key not in before]

    assert within(run.settings.lease * 12, lambda: not pools())


def test_two_notebooks_on_one_fleet_do_not_meet(fleet: dict[str, str], tmp_path: Path) -> None:
    async def run() -> None:
        async with kernel(tmp_path, fleet) as one, kernel(tmp_path, fleet) as other:
            for each, factor in ((one, 2), (other, 3)):
                await each.tell(BEGIN)
                await each.tell(f"def f(n):\n    print('says {factor}')\n    return n * {factor}")
            waiting = asyncio.ensure_future(other.tell("print(pool.apply(time.sleep, (4,)))"))
            found = await one.tell("pool.map(slow, range(20))", one.interrupt)
            assert "KeyboardInterrupt" in found
            assert await waiting == "None\n"
            for each, factor in ((one, 2), (other, 3)):
                found = await each.tell("print(pool.map(f, range(3)))")
                assert sorted(found.splitlines()) == sorted([*[f"says {factor}"] * 3, str([0, factor, 2 * factor])])

    asyncio.run(run())
