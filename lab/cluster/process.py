"""Process: the stdlib's ``BaseProcess`` with a ``_Popen`` whose child runs on another host.

``multiprocessing.process.BaseProcess`` does names, daemon flags, join, exit codes, ``active_children`` and the child's
bootstrap by itself, and asks its class for one thing: something that launches a child and can poll, wait for and signal
it. Compare ``multiprocessing.popen_spawn_posix.Popen``.
"""

from __future__ import annotations

import io
import json
import os
import secrets
import signal
import struct
import sys
import threading
import time
from contextlib import suppress
from multiprocessing import context, process, reduction, spawn, util
from typing import Any

from lab.cluster import program, wire
from lab.cluster import run as runs
from lab.cluster.engine import PROCESS_QUEUE, PROCESS_TASK
from lab.cluster.run import Run
from lab.cluster.script import Script
from lab.errors import BrokerUnreachable, CannotLoad, LabError, NotEnoughSlots, NoWorkers, WrongKey

MAX_AGE = 600_000
"""Milliseconds after which a payload is refused: what bounds the time in which a stolen copy could be replayed."""

QUEUE = Script(
    """
redis.call('HSET', KEYS[3], 'payload', ARGV[3], 'parent', ARGV[4])
create(KEYS[3])
create(ARGV[4])
return now()
""",
    fenced=True,
    numbered=False,
)

WITHDRAW = Script("""
local waits = redis.call('HEXISTS', KEYS[3], 'payload') == 1 and redis.call('HEXISTS', KEYS[3], 'claim') == 0
if not waits then return alive(ARGV[3]) and 0 or -1 end
redis.call('DEL', KEYS[3])
redis.call('SREM', registry, KEYS[3])
for _, held in ipairs(redis.call('SMEMBERS', KEYS[4])) do hang_up(string.match(held, '^(.+) (.+)$')) end
redis.call('DEL', KEYS[4])
return 1
""")

COMMAND = Script("if alive(ARGV[3]) then push(KEYS[3], ARGV[4]) end return 1")


class Popen:
    """A child on some host of the fleet.

    Attributes:
        pid: Process id on its host, known once the constructor returns.
        host: Name of that host.
        returncode: Exit code, ``-SIGKILL`` if its host went silent; None while it runs.
        host_lost: Whether it ended because its host did, or its slot.
        sentinel: Descriptor of a local pipe that becomes readable when the child has ended.
        load_error: Why its host could not load it, once that is known.

    Raises:
        NotEnoughSlots: No slot took the child within ``Settings.start_timeout`` seconds.
        NoWorkers: There is no host.
        WrongKey: The host that took it holds another authkey.
    """

    method = "cluster"

    def __init__(self, process_obj: process.BaseProcess) -> None:
        from lab.cluster.context import default_context

        util._flush_std_streams()  # type: ignore[attr-defined]
        self._run = default_context().connect()
        self.process_id = secrets.token_hex(5)
        self.pid: int | None = None
        self.host = ""
        self.returncode: int | None = None
        self.load_error: CannotLoad | None = None
        self.host_lost = False
        self._changed = threading.Condition()
        self._launch(process_obj)

    def duplicate_for_child(self, fd: int) -> int:
        """Refused: a descriptor means nothing on another host."""
        raise OSError(f"file descriptor {fd} cannot be sent to another host")

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        """The exit code, None while the child runs."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait for the end; the exit code, None if it has not come in time."""
        with self._changed:
            self._changed.wait_for(lambda: self.returncode is not None, timeout)
        return self.returncode

    def interrupt(self) -> None:
        """Have the child's host send it SIGINT, as ``Process.interrupt()`` asks since Python 3.14."""
        self._signal(signal.SIGINT)

    def terminate(self) -> None:
        """Have the child's host send it SIGTERM."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Have the child's host send it SIGKILL."""
        self._signal(signal.SIGKILL)

    def close(self) -> None:
        """Forget the child, which has ended."""
        self._run.forget(self.process_id)
        self._finalizer()

    def _signal(self, signum: int) -> None:
        if self.returncode is not None:
            return
        key = self._run.key("commands", self.process_id)
        with suppress(BrokerUnreachable):  # then the listener gives the child up, and its host kills it
            self._run.eval(COMMAND, [key], self.process_id, self._run.seal(key, str(int(signum)).encode()))

    def _launch(self, process_obj: process.BaseProcess) -> None:
        run, key = self._run, self._run.key("process", self.process_id)
        payload = pack(self, process_obj)
        self.sentinel, write_end = os.pipe()
        self._open_end = [write_end]
        self._finalizer = util.Finalize(self, _close_fds, (self.sentinel, self._open_end))
        run.listen(self.process_id, self._on_mail)
        try:
            run.eval(QUEUE, [key], run.seal(key, payload), run.mailbox)
            self._send_message()
            self._wait_for_start(key)
        except BaseException:
            run.forget(self.process_id)
            self._finalizer()
            raise

    def _send_message(self, again: bool = False) -> None:
        from kombu.exceptions import OperationalError
        from redis import RedisError

        from lab.cluster.context import default_context

        for last in (False, False, True):
            try:
                default_context().app.send_task(
                    PROCESS_TASK, [self._run.id, self.process_id, again], queue=PROCESS_QUEUE, ignore_result=True
                )
            except (OperationalError, RedisError, OSError) as exc:
                if last:
                    raise BrokerUnreachable(f"The message that starts a process could not be sent: {exc}") from exc
                self._run.store.call("PING")  # waits until Redis is back, if it went away
            else:
                return  # if an earlier message has arrived as well, a slot refuses the second: a process is claimed once

    def _wait_for_start(self, key: str) -> None:
        timeout, outage, begun = self._run.settings.start_timeout, self._run.store.outage, time.monotonic()
        while not self._started(timeout):
            if outage.on or outage.over_at > begun:
                # The time in which Redis was away is not the fleet's; and if it came back without its last moments, as
                # "appendfsync everysec" allows, the message may be gone.
                self._run.store.call("PING")
                begun = time.monotonic()
                self._send_message(again=True)
                continue
            # Excluded: a slot taking the payload just as we give up. Whoever removes it first, wins.
            taken = self._run.eval(WITHDRAW, [key, self._run.key("ends", self.process_id)], self.process_id)
            if taken == 1:
                raise self._no_slot()
            timeout = self._run.settings.lease
            if taken == -1 and not self._started(timeout):
                raise self._no_answer()

    def _started(self, timeout: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self.pid is not None, timeout)

    def _no_answer(self) -> LabError:
        return WrongKey(
            "A host took the process and refused it, or answered with a signature that does not verify.",
            "Give both sides the same CROSSHOST_AUTHKEY or CROSSHOST_AUTHKEY_FILE. See: producer workers",
        )

    def _no_slot(self) -> LabError:
        from lab.cluster.fleet import list_hosts

        hosts = list_hosts(self._run.store)
        wait = self._run.settings.start_timeout
        if not hosts:
            return NoWorkers(
                f"No worker host is alive on {self._run.store.address}.",
                "Start one with the same settings:\n  worker --slots 4",
            )
        slots, busy = sum(h.slots for h in hosts), sum(h.busy for h in hosts)
        more = slots // len(hosts) + 4
        return NotEnoughSlots(
            f"No slot became free in {wait:g} s: {busy} of {slots} slots on {len(hosts)} hosts are busy.",
            f"Each process takes a slot for as long as it lives. Give the fleet more:\n"
            f"  producer fleet --slots {more}, CROSSHOST_SLOTS={more} for one that comes with a command, or another worker",
        )

    def _on_mail(self, mail: dict[str, Any]) -> None:
        with self._changed:
            if mail["event"] == "started":
                self.pid, self.host = mail["pid"], mail["host"]
            elif mail["event"] == "unloadable":
                self.load_error = CannotLoad.on(mail["host"], mail["error"], mail["lacks"])
            elif mail["event"] == "exit":
                self.pid = -1 if self.pid is None else self.pid
                self.host_lost = mail.get("host_lost", False)
                self.returncode = mail["exitcode"]
                _close_fds(None, self._open_end)
            self._changed.notify_all()


def _close_fds(read_end: int | None, write_end: list[int]) -> None:
    # the write end is closed by the exit or by the finalizer, whichever is first, and never twice
    for fd in ([read_end] if read_end is not None else []) + [write_end.pop() for _ in write_end[:]]:
        os.close(fd)


class Process(process.BaseProcess):
    """A process on some host of the fleet.

    On Redis: ``process:ID`` holds the signed pickle until a slot takes it; events come back on ``mail:PARENT``.

    Differs from multiprocessing: ``start()`` waits for a free slot and raises NotEnoughSlots if there is none in time.
    ``pid`` is a process id on the child's host. A child whose program died is killed, not orphaned. A Lock or
    RLock whose holder was killed or failed is free again.
    """

    _start_method = None

    @property
    def host(self) -> str | None:
        """Name of the host that runs it, None before the start."""
        popen: Popen | None = getattr(self, "_popen", None)
        return popen.host if popen else None

    @staticmethod
    def _Popen(process_obj: process.BaseProcess) -> Popen:
        return Popen(process_obj)

    @staticmethod
    def _after_fork() -> None:
        process.BaseProcess._after_fork()  # type: ignore[attr-defined]
        if run := runs.current():
            # last of all: what this child posted must have taken effect before its exit is reported
            util.Finalize(None, run.close, exitpriority=-100)


def pack(popen: Popen, process_obj: process.BaseProcess) -> bytes:
    """What the child needs: a JSON head about where it comes from, then the pickled process object.

    Raises:
        Whatever pickling raises, as under spawn.
    """
    config, buffer = process_obj._config, io.BytesIO()  # type: ignore[attr-defined]
    # the stdlib's key would be readable in Redis; it goes into the head, concealed
    process_obj._config = {name: value for name, value in config.items() if name != "authkey"}  # type: ignore[attr-defined]
    context.set_spawning_popen(popen)  # type: ignore[arg-type]
    try:
        reduction.dump(process_obj, buffer)
    finally:
        context.set_spawning_popen(None)
        process_obj._config = config  # type: ignore[attr-defined]
    preparation = _preparation(popen, process_obj.name)
    preparation["authkey"] = wire.conceal(popen._run.settings.authkey, popen.process_id, bytes(config["authkey"])).hex()
    head = json.dumps(preparation).encode()
    return struct.pack(">I", len(head)) + head + buffer.getbuffer()


def unpack_head(payload: memoryview) -> tuple[dict[str, Any], memoryview]:
    """The JSON head of a packed process, and the pickle that follows it."""
    (size,) = struct.unpack_from(">I", payload)
    return json.loads(bytes(payload[4 : 4 + size])), payload[4 + size :]


def revealed_authkey(run: Run, head: dict[str, Any]) -> bytes:
    """The stdlib authkey of the process that this run is entered as: its parent's, or what the program set for it."""
    return wire.reveal(run.settings.authkey, run.me, bytes.fromhex(head["authkey"]))


def _preparation(popen: Popen, name: str) -> dict[str, Any]:
    data = spawn.get_preparation_data(name)
    kept = (
        "name",
        "sys_path",
        "sys_argv",
        "dir",
        "orig_dir",
        "init_main_from_name",
        "init_main_from_path",
        "log_level",
        "log_to_stderr",
    )
    return {
        "issued": popen._run.server_ms(),
        "python": list(sys.version_info[:2]),
        "mailbox": popen._run.mailbox,
        "program": program.publish(popen._run),
        "prepare": {key: data[key] for key in kept if key in data},
    }
