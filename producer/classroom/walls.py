"""A program behind walls: it sees no other process, no network, and of the file system what it needs, to read.

``python -m producer.classroom.walls PLAN`` builds them, and runs the program behind them. Linux only. They are what
containers are made of: namespaces (``unshare(2)``), a root of its own that has what the plan names, read-only
(``mount_setattr(2)``, Linux 5.12), no capabilities, and limits of resources. It takes no other program, and no root where the
system lets everybody make user namespaces.

The first process within is the init: when that ends, or is killed, the kernel ends every other one at once, however many
there are and however they have tried to get away.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

NEW = 0x00020000 | 0x20000000 | 0x08000000 | 0x04000000 | 0x40000000
"""Namespaces of mounts, process ids, System V and POSIX queues, host names, and the network."""
NEW_USERS = 0x10000000
BIND, RECURSIVE, PRIVATE = 4096, 16384, 1 << 18
NOSUID, NODEV = 2, 4
READ_ONLY = 1
AT_RECURSIVE = 0x8000
AT_FDCWD = -100
MOUNT_SETATTR = 442
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 24, 38
NOBODY = 65534
OWN_IDS = 2_000_000_000
"""From here on nobody has an account; so root's limit of processes counts those of one program."""
WORK = "/work"
"""The folder in which the program runs."""
SEEN = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/etc/alternatives")
"""What any program needs of a system, as far as it is there."""
WRITABLE = {WORK: 0o777, "/tmp": 0o1777, "/dev/shm": 0o1777}  # noqa: S108 - of the program's own
"""Where the program may write, and the modes: folders in memory, which go with it."""
DEVICES = tuple(f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom"))
FAILED = 121
"""Exit code if the walls could not be built; a program may end with it as well."""


@dataclass(frozen=True)
class Plan:
    """What is walled off, and how.

    Attributes:
        root: An empty folder, over which the root of the program is mounted; nobody else sees it.
        seen: What the program may read, besides what any program needs.
        hidden: Folders of which it sees nothing, wherever they lie.
        command: The program; its standard input, output and errors are this one's.
        env: Its environment.
        fds: Descriptors that it keeps.
        complaints: A descriptor for why the walls could not be built; the program has it not, so that it cannot say so.
        memory: Bytes of address space of each of its processes.
        processes: How many processes and threads there may be.
        written: Bytes of any one file; and those of each folder in which it may write, times four.
    """

    root: str
    seen: list[str]
    hidden: list[str]
    command: list[str]
    env: dict[str, str]
    fds: list[int]
    complaints: int
    memory: int
    processes: int
    written: int

    def to_json(self) -> str:
        """As the argument of this module."""
        return json.dumps(asdict(self))


class _Attributes(ctypes.Structure):
    """``struct mount_attr``."""

    _fields_ = [(name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")]


def _call(name: str, *args: object) -> None:
    """A function of the C library.

    Raises:
        OSError: It failed; the message names it.
    """
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*args) < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def _mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    _call(
        "mount", source.encode(), target.encode(), kind.encode() or None, ctypes.c_ulong(flags), data.encode() or None
    )


def _set(target: str, flags: int = 0, cleared: int = 0, everything: bool = False) -> None:
    """Set and clear flags of what is mounted there, and below it as well."""
    attributes = _Attributes(flags, cleared)
    how, size = AT_RECURSIVE if everything else 0, ctypes.c_size_t(ctypes.sizeof(attributes))
    _call("syscall", MOUNT_SETATTR, AT_FDCWD, target.encode(), how, ctypes.byref(attributes), size)


def _alone() -> bool:
    """Leave the namespaces of the others; whether that was done as root."""
    uid, gid = os.getuid(), os.getgid()
    if uid == 0:
        try:
            _call("unshare", NEW)
        except PermissionError:
            pass  # root in a container, who has not root's capabilities; perhaps everybody may make user namespaces
        else:
            return True
    _call("unshare", NEW_USERS | NEW)
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        Path(f"/proc/self/{name}").write_text(text)
    return False


def _build(plan: Plan) -> None:
    """The file system as the program sees it."""
    root = plan.root
    _mount("none", "/", flags=RECURSIVE | PRIVATE)  # what is mounted from here on nobody else sees
    _mount("tmpfs", root, "tmpfs", NOSUID | NODEV, "size=1m,mode=755")
    for folder, mode in WRITABLE.items():
        os.makedirs(root + folder)
        _mount("tmpfs", root + folder, "tmpfs", NOSUID | NODEV, f"size={4 * plan.written},mode={mode:o}")
    os.makedirs(f"{root}/proc")
    bound: list[str] = []
    for path in sorted({*SEEN, *plan.seen, *DEVICES}, key=len):
        _show(root, path, bound)
    for path in plan.hidden:
        if os.path.isdir(root + path):
            _mount("tmpfs", root + path, "tmpfs", NOSUID | NODEV, "size=4k,mode=555")
    _set(root, READ_ONLY | NOSUID, everything=True)
    for folder in WRITABLE:  # but not what is shown below it
        _set(root + folder, cleared=READ_ONLY)
    _mount("proc", f"{root}/proc", "proc", NOSUID | NODEV)
    os.chroot(root)
    os.chdir(WORK)


def _show(root: str, path: str, bound: list[str]) -> None:
    """Let the program see a file or a folder, unless it sees it already."""
    if not os.path.exists(path) or any(path == each or path.startswith(f"{each}/") for each in bound):
        return
    os.makedirs(os.path.dirname(root + path), exist_ok=True)
    if os.path.islink(path) and os.path.dirname(path) == "/":  # /lib is one of these, on most systems
        os.symlink(os.readlink(path), root + path)
        return
    if os.path.isdir(path):
        os.makedirs(root + path, exist_ok=True)
    else:
        Path(root + path).touch()
    _mount(path, root + path, flags=BIND | RECURSIVE)
    bound.append(path)


def _limit(plan: Plan) -> None:
    """What the program may use up."""
    import resource

    for what, most in (
        (resource.RLIMIT_AS, plan.memory),
        (resource.RLIMIT_NPROC, plan.processes),
        (resource.RLIMIT_FSIZE, plan.written),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))


def _drop(as_root: bool, own: int) -> None:
    """Give up what root may do, for good.

    The kernel limits the processes of everybody but root: so root becomes somebody else, whose processes are these alone.
    """
    for capability in range(int(Path("/proc/sys/kernel/cap_last_cap").read_text()) + 1):
        _call("prctl", PR_CAPBSET_DROP, capability, 0, 0, 0)
    if as_root:
        os.setgroups([])
        os.setresgid(own, own, own)
        os.setresuid(own, own, own)
    _call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _own_id() -> int:
    """A user id for root to become: one of its own where all ids are mapped, else nobody's."""
    mapped = int(Path("/proc/self/uid_map").read_text().split()[2])
    return OWN_IDS + os.getpid() if mapped > OWN_IDS + (1 << 22) else NOBODY


def _become(plan: Plan, as_root: bool, own: int) -> NoReturn:
    _limit(plan)
    _drop(as_root, own)
    for fd in plan.fds:
        os.set_inheritable(fd, True)
    os.execve(plan.command[0], plan.command, plan.env)  # noqa: S606 - no shell


def _wait(pid: int) -> NoReturn:
    """Wait for a child, and end as it has; whoever else ends meanwhile is an orphan."""
    while True:
        ended, status = os.wait()
        if ended == pid:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)


def _in_a_child(plan: Plan, as_root: bool, own: int) -> NoReturn:
    """The init, and its one child, the program."""
    _call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    _build(plan)
    if (pid := os.fork()) == 0:
        _become(plan, as_root, own)
    _wait(pid)


def main(plan: Plan) -> NoReturn:
    """Build the walls, and run the program behind them; ends as it does, or with ``FAILED`` if they cannot be built."""
    os.set_inheritable(plan.complaints, False)
    _call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    try:
        own = _own_id()
        as_root = _alone()
        if (pid := os.fork()) == 0:
            _in_a_child(plan, as_root, own)
        _wait(pid)
    except OSError as exc:
        # be it of the child or of its child: each of them ends as its child does
        os.write(plan.complaints, f"{exc.strerror}\n".encode())
        os._exit(FAILED)


if __name__ == "__main__":
    main(Plan(**json.loads(sys.argv[1])))
