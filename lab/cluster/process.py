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
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import context, process, spawn, util
from typing import Any

from lab import byvalue, mainmodule
from lab.cluster import current, environ
from lab.errors import BrokerUnreachable, CannotLoad, KeyLost, LabError, NotEnoughSlots, NoWorkers, WrongKey
from lab.fleet.engine import PROCESS_QUEUE, PROCESS_TASK
from lab.program import shipped as program
from lab.store import run as runs
from lab.store.script import Script

LOOK = 1.0
"""Seconds between two looks, of who starts a process, whether Redis was away meanwhile."""

ASK_AGAIN = 2.0
"""Seconds after which the message is sent once more: the host that has it on loan may just have been killed."""

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
    grows=True,
)

WITHDRAW = Script("""
local waits = redis.call('HEXISTS', KEYS[3], 'payload') == 1 and redis.call('HEXISTS', KEYS[3], 'claim') == 0
if not waits then return alive(ARGV[3]) and 0 or -1 end
redis.call('DEL', KEYS[3])
bury(ARGV[3], '', '', true)  -- for the ends of pipes that it was to have
return 1
""")

COMMAND = Script("""
local inbox = alive(ARGV[3]) and redis.call('HGET', KEYS[3], 'inbox')
if inbox then push(inbox, ARGV[3] .. ' ' .. ARGV[4]) end
return 1
""")


class Popen:
    """A child on some host of the fleet.

    Attributes:
        pid: Process id on its host, known once the constructor returns.
        host: Name of that host.
        returncode: Exit code, ``-SIGKILL`` if its host went silent; None while it runs.
        host_lost: Whether it ended because its host did, or what supervised it there.
        sentinel: Descriptor of a local pipe that becomes readable when the child has ended.
        load_error: Why its host could not load it, once that is known.

    Raises:
        NotEnoughSlots: No host had room for the child within ``Settings.start_timeout`` seconds, or the one that took it lets
            a program have no more (CROSSHOST_RUN_PROCESSES).
        NoWorkers: There is no host.
        WrongKey: The host that took it holds another authkey.
    """

    method = "cluster"

    def __init__(self, process_obj: Process) -> None:
        util._flush_std_streams()  # type: ignore[attr-defined]
        if process_obj.runs_main:
            mainmodule.check()
        self._tells_why = getattr(process_obj, "tells_why", True)
        self._run = current.context().connect()
        self.process_id = secrets.token_hex(5)
        self.pid: int | None = None
        self.host = ""
        self.returncode: int | None = None
        self.load_error: CannotLoad | None = None
        self._full: NotEnoughSlots | None = None
        self.host_lost = self._printed = False
        self._on_end: Callable[[], object] | None = None
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

    def ask_printed(self) -> None:
        """Ask its host to say when what the child has printed until now was sent on."""
        self._printed = False
        self._tell(b"printed")

    def wait_printed(self, deadline: float) -> bool:
        """Wait for the host's word, until a time of the monotonic clock; whether it came, or the child has ended."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self._printed or self.returncode is not None, max(0.0, deadline - time.monotonic())
            )

    def on_end(self, call: Callable[[], object]) -> None:
        """Have something called when the child has ended, in the thread that hears of it; now if it has."""
        with self._changed:
            if self.returncode is None:
                self._on_end = call
                return
        call()

    def close(self) -> None:
        """Forget the child, which has ended."""
        self._run.forget(self.process_id)
        self._finalizer()

    def _signal(self, signum: int) -> None:
        self._tell(str(int(signum)).encode())

    def _tell(self, command: bytes) -> None:
        if self.returncode is not None:
            return
        sealed = self._run.seal(self._run.key("commands", self.process_id), command)
        with suppress(BrokerUnreachable):  # then the listener gives the child up, and its host kills it
            keys = [self._run.key("process", self.process_id)]
            try:
                self._run.eval(COMMAND, keys, self.process_id, sealed)
            except KeyLost:  # it is put right by now
                self._run.eval(COMMAND, keys, self.process_id, sealed)

    def _launch(self, process_obj: Process) -> None:
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

        for last in (False, False, True):
            try:
                current.context().app.send_task(
                    PROCESS_TASK, [self._run.id, self.process_id, again], queue=PROCESS_QUEUE, ignore_result=True
                )
            except (OperationalError, RedisError, OSError) as exc:
                if last:
                    raise BrokerUnreachable(f"The message that starts a process could not be sent: {exc}") from exc
                self._run.store.call("PING")  # waits until Redis is back, if it went away
            else:
                return  # if an earlier message has arrived as well, a host refuses the second: a process is claimed once

    def _wait_for_start(self, key: str) -> None:
        patience, outage = self._run.settings.start_timeout, self._run.store.outage
        begun = time.monotonic()
        deadline, taken_at, asked = begun + patience, 0.0, 1
        while not self._started(min(LOOK, max(0.0, deadline - time.monotonic()))):
            if outage.on or outage.over_at > begun:
                # The time in which Redis was away is not the fleet's; and the message may be gone, if Redis came back without
                # its last moments, as "appendfsync everysec" allows, or on loan to a host that died meanwhile.
                self._run.store.call("PING")
                begun = time.monotonic()
                deadline = begun + patience
                self._send_message(again=True)
                continue
            if asked == 1 and time.monotonic() > begun + ASK_AGAIN:
                asked = 2
                self._send_message(again=True)
            if time.monotonic() < deadline:
                continue
            # Excluded: a host taking the payload just as we give up. Whoever removes it first, wins.
            taken = self._run.eval(WITHDRAW, [key], self.process_id)
            if taken == 1:
                raise self._no_room()
            deadline = time.monotonic() + self._run.settings.lease
            if taken == -1 and not self._started(self._run.settings.lease):
                raise self._no_answer()
            taken_at = taken_at or time.monotonic()
            if taken == 0 and time.monotonic() > taken_at + patience:  # it lives, and its host has said so
                self._signal(signal.SIGKILL)
                raise KeyLost.gone(self._run.mailbox, f"that process {self.process_id} has started")
        if self._full is not None:
            raise self._full

    def _started(self, timeout: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self.pid is not None or self._full is not None, timeout)

    def _no_answer(self) -> LabError:
        return WrongKey(
            "A host took the process and refused it, or answered with what does not open.",
            "Give both sides the same CROSSHOST_AUTHKEY or CROSSHOST_AUTHKEY_FILE. See: producer workers",
        )

    def _no_room(self) -> LabError:
        from lab.fleet.hosts import list_hosts

        hosts = list_hosts(self._run.store)
        wait = self._run.settings.start_timeout
        if not hosts:
            return NoWorkers(
                f"No worker host is alive on {self._run.store.address}.",
                "Start one with the same settings:\n  worker --slots 4",
            )
        busy, lacks = sum(h.busy for h in hosts), sorted({h.lacks for h in hosts if h.lacks})
        if not lacks:
            return NotEnoughSlots(
                f"None of {len(hosts)} hosts took the process in {wait:g} s, though they have room; {busy} run there.",
                "Are their machines overloaded? See: producer workers. To wait longer: CROSSHOST_START_TIMEOUT=60",
            )
        limit = next((lack for lack in lacks if lack.startswith("CROSSHOST_")), "")
        hint = (
            f"A limit was set there: {limit}. Raise it, or start another worker."
            if limit
            else (
                f"Give them more of it, start fewer processes at once, or start another worker on another machine:\n"
                f"  worker --slots {hosts[0].slots}"
            )
        )
        return NotEnoughSlots(
            f"No host had room for the process within {wait:g} s: {busy} processes on {len(hosts)} hosts, "
            f"which lack {' and '.join(lacks)}.",
            hint,
        )

    def _on_mail(self, mail: dict[str, Any]) -> None:
        with self._changed:
            if mail["event"] == "started":
                self.pid, self.host = mail["pid"], mail["host"]
            elif mail["event"] == "unloadable":
                if unguarded := mail.get("unguarded"):
                    self.load_error = mainmodule.Unguarded(*unguarded)
                    if self._tells_why:
                        mainmodule.tell(self.load_error)
                else:
                    self.load_error = CannotLoad.on(mail["host"], mail["error"], mail["lacks"])
            elif mail["event"] == "printed":
                self._printed = True
            elif mail["event"] == "full":
                self._full = NotEnoughSlots(mail["message"], mail["hint"])
            elif mail["event"] == "exit":
                self.pid = -1 if self.pid is None else self.pid
                self.host_lost = mail.get("host_lost", False)
                self.returncode = mail["exitcode"]
                _close_fds(None, self._open_end)
            self._changed.notify_all()
            on_end = self._on_end if self.returncode is not None else None
        if on_end is not None:
            on_end()


def _close_fds(read_end: int | None, write_end: list[int]) -> None:
    # the write end is closed by the exit or by the finalizer, whichever is first, and never twice
    for fd in ([read_end] if read_end is not None else []) + [write_end.pop() for _ in write_end[:]]:
        os.close(fd)


class Process(process.BaseProcess):
    """A process on some host of the fleet.

    On Redis: ``process:ID`` holds the sealed pickle until a host takes it; events come back on ``mail:PARENT``.

    Differs from multiprocessing: a process takes a slot of the fleet if one is free, and else a host takes more processes
    than it has slots; if none has the memory for it, ``start()`` waits, and raises NotEnoughSlots in time. ``pid`` is a
    process id on the child's host. A child whose program died is killed, not orphaned. A Lock or RLock whose holder was
    killed or failed is free again. A process that is stopped (SIGSTOP) for longer than its lease is taken for dead.
    """

    _start_method = None
    tells_why = True  # why it could not be loaded, on stderr; else somebody will ask
    runs_main = True  # the main module, before its target, as under spawn

    @property
    def host(self) -> str | None:
        """Name of the host that runs it, None before the start."""
        popen: Popen | None = getattr(self, "_popen", None)
        return popen.host if popen else None

    @staticmethod
    def _Popen(process_obj: process.BaseProcess) -> Popen:
        assert isinstance(process_obj, Process)
        return Popen(process_obj)

    @staticmethod
    def _after_fork() -> None:
        process.BaseProcess._after_fork()  # type: ignore[attr-defined]
        if run := runs.current():
            # last of all: what this child posted must have taken effect before its exit is reported
            util.Finalize(None, run.close, exitpriority=-100)


def pack(popen: Popen, process_obj: Process) -> bytes:
    """What the child needs: a JSON head about where it comes from, then the pickled process object.

    Raises:
        Whatever pickling raises, as under spawn.
    """
    config, buffer = process_obj._config, io.BytesIO()  # type: ignore[attr-defined]
    # the stdlib refuses to pickle its key where it might be read; it goes into the head
    process_obj._config = {name: value for name, value in config.items() if name != "authkey"}  # type: ignore[attr-defined]
    context.set_spawning_popen(popen)  # type: ignore[arg-type]
    try:
        byvalue.Pickler(buffer).dump(process_obj)
    finally:
        context.set_spawning_popen(None)
        process_obj._config = config  # type: ignore[attr-defined]
    preparation = _preparation(popen, process_obj)
    preparation["authkey"] = bytes(config["authkey"]).hex()
    head = json.dumps(preparation).encode()
    return struct.pack(">I", len(head)) + head + buffer.getbuffer()


def unpack_head(payload: memoryview) -> tuple[dict[str, Any], memoryview]:
    """The JSON head of a packed process, and the pickle that follows it."""
    (size,) = struct.unpack_from(">I", payload)
    return json.loads(bytes(payload[4 : 4 + size])), payload[4 + size :]


def authkey_of(head: dict[str, Any]) -> bytes:
    """The stdlib authkey of a packed process: its parent's, or what the program set for it."""
    return bytes.fromhex(head["authkey"])


def _preparation(popen: Popen, process_obj: Process) -> dict[str, Any]:
    data = spawn.get_preparation_data(process_obj.name)
    if mainmodule.is_session() or not process_obj.runs_main:
        data = {key: value for key, value in data.items() if not key.startswith("init_main_")}
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
        "runs_main": process_obj.runs_main,
        "environ": environ.changes(),
        "prepare": {key: data[key] for key in kept if key in data},
    }
