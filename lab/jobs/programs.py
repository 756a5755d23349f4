"""Programs that outlive the terminal: what was asked for, what they print, how they end.

A detached program is a job with one task. The task's process on a host is the parent of the program's root
(``worker.jobs.program``), reads what that prints and writes it here, where any terminal follows it from the beginning.

On Redis, kept and renewed like the job's other keys (``lab.jobs.records``): ``crosshost:job:ID:program`` (hash: ``asked``,
sealed: what is to be run; ``attempt``, the number of the run whose word counts; ``printed``, the number of the next piece of
output; ``first``, that of the oldest piece that is kept; ``bytes`` of those that are; ``dropped``, bytes of those that went;
``end``, sealed: how it ended) and ``crosshost:job:ID:output`` (list of sealed pieces, each for its number).
"""

from __future__ import annotations

import json
import signal
import struct
from dataclasses import asdict, dataclass, field

from lab.errors import LabError, ProgramTooLarge, WrongKey
from lab.jobs.records import JOBS, Records, job_key

NAME = "program"
"""What the record of such a job calls it; no other job has this name."""
TASK = "jobs.program.run"
FOREVER = 10 * 365 * 86_400
"""Seconds that the task may take: a program runs for as long as it likes."""

STDOUT, STDERR = "stdout", "stderr"
INPUT = 16 << 20
"""Bytes of JSON that a function may be given."""
RESULT = 16 << 20
"""Bytes of JSON that a function may return."""
OUTPUT = 8 << 20
"""Bytes of output, sealed, that are kept of one program: the latest."""
PIECE = 1 << 16
"""Bytes of one piece of output."""
_COST = 64
"""What a piece takes in Redis besides its bytes. Excluded: a list of a million empty ones."""
_TOGETHER = 32
"""Pieces that are read in one round trip."""

# Excluded: a command that is killed between the two, and a key without an expiry.
_PUT = "redis.call('HSET', KEYS[1], 'asked', ARGV[1]) return redis.call('PEXPIRE', KEYS[1], ARGV[2])"

_BEGIN = """
local before = tonumber(redis.call('HGET', KEYS[1], 'attempt') or '0')
if tonumber(ARGV[1]) > before then redis.call('HSET', KEYS[1], 'attempt', ARGV[1]) end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
local size = redis.call('HSTRLEN', KEYS[1], 'asked')
return {size <= tonumber(ARGV[2]) and redis.call('HGET', KEYS[1], 'asked') or size,
        redis.call('HGET', KEYS[1], 'printed') or '0', redis.call('HGET', KEYS[1], 'end')}
"""

# Excluded, as this is one step: output of a run that another has taken the place of, a piece that lies there twice as its
# reply was lost, and a reader that meets the list without the number of its first piece.
_APPEND = """
if redis.call('HGET', KEYS[1], 'attempt') ~= ARGV[1] then return 0 end
if tonumber(ARGV[2]) < tonumber(redis.call('HGET', KEYS[1], 'printed') or '0') then return 1 end
redis.call('RPUSH', KEYS[2], ARGV[3])
redis.call('HSET', KEYS[1], 'printed', ARGV[2] + 1)
local bytes = redis.call('HINCRBY', KEYS[1], 'bytes', #ARGV[3] + ARGV[5])
while bytes > tonumber(ARGV[4]) and redis.call('LLEN', KEYS[2]) > 1 do
  local old = redis.call('LPOP', KEYS[2])
  bytes = redis.call('HINCRBY', KEYS[1], 'bytes', -(#old + ARGV[5]))
  redis.call('HINCRBY', KEYS[1], 'first', 1)
  redis.call('HINCRBY', KEYS[1], 'dropped', #old)
end
redis.call('PEXPIRE', KEYS[1], ARGV[6]) redis.call('PEXPIRE', KEYS[2], ARGV[6])
return 1
"""

_READ = """
local first = tonumber(redis.call('HGET', KEYS[1], 'first') or '0')
local from = math.max(first, tonumber(ARGV[1]))
local dropped = redis.call('HGET', KEYS[1], 'dropped') or '0'
return {from, dropped, redis.call('LRANGE', KEYS[2], from - first, from - first + ARGV[2] - 1)}
"""

_END = """
if redis.call('HGET', KEYS[1], 'attempt') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'end', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
"""


class ProgramFailed(LabError):
    """A detached program has ended, and not well."""


class ProgramLost(LabError):
    """The host that ran a detached program has died or was stopped, and it was not to be started again."""


@dataclass(frozen=True)
class Asked:
    """What is to be run.

    Attributes:
        typed: The script, module or function as it was typed.
        path: Absolute path of the script, where it was submitted; ``<stdin>``, or empty for a module.
        module: Name of the module, or empty.
        function: Name of the function in it, if it is one that is asked for.
        input: JSON of what the function is given; None if it is called without.
        argv: ``sys.argv``.
        folder: The directory in which it was submitted.
        python: Version of Python there, as functions and modules may need it.
        restart: Whether it may be started again when its host dies.
    """

    typed: str
    path: str = ""
    module: str = ""
    function: str = ""
    input: str | None = None
    argv: list[str] = field(default_factory=list)
    folder: str = ""
    python: list[int] = field(default_factory=list)
    restart: bool = False


@dataclass(frozen=True)
class End:
    """How a program has ended.

    Attributes:
        exit_code: Its exit code; negative for the signal that ended it, SIGKILL if its host died.
        host: The host that ran it.
        result: JSON of what its function returned, or None.
        error: The exception that ended it, in a line, or what else went wrong.
        traceback: Where that was raised.
    """

    exit_code: int
    host: str = ""
    result: str | None = None
    error: str = ""
    traceback: str = ""

    @property
    def well(self) -> bool:
        """Whether it did what it was to do."""
        return self.exit_code == 0 and not self.error

    @property
    def described(self) -> str:
        """The same in words."""
        if self.exit_code < 0:
            return self.error or f"it was ended by {signal.Signals(-self.exit_code).name}"
        return f"{self.error} (exit code {self.exit_code})" if self.error else f"exit code {self.exit_code}"


@dataclass(frozen=True)
class Begun:
    """What the task has to know before it begins.

    Attributes:
        asked: What is to be run.
        archive: Its source (``lab.program.shipped``).
        printed: The number of its next piece of output.
        end: How an earlier run of it ended, if one did.
    """

    asked: Asked
    archive: bytes
    printed: int
    end: End | None


@dataclass(frozen=True)
class Printed:
    """Some pieces of output.

    Attributes:
        pieces: Each as the stream's name and bytes.
        following: The number to go on with.
        missing: Bytes that were printed before these and are not kept; 0 if nothing is missing.
    """

    pieces: list[tuple[str, bytes]]
    following: int
    missing: int


class Programs:
    """The detached programs of a fleet.

    Args:
        records: Its jobs.
    """

    def __init__(self, records: Records) -> None:
        self._records, self._store, self._keys = records, records.store, records.keys
        self._keep = int(records.settings.keep * 1000)

    @property
    def renew_every(self) -> float:
        """Seconds between two renewals of what is known of a program that runs."""
        return min(60.0, self._keep / 4000)

    def put(self, job_id: str, asked: Asked, archive: bytes) -> None:
        """Keep what is to be run: before the job is recorded, so that no job is known that could not run."""
        key, head = job_key(job_id, "program"), json.dumps(asdict(asked)).encode()
        sealed = self._keys.seal(key, struct.pack(">I", len(head)) + head, archive)
        self._store.call("EVAL", _PUT, 1, key, sealed, self._keep)

    def begin(self, job_id: str, attempt: int, most: int) -> Begun:
        """Note that a run of a program begins, after which no earlier one has a say.

        Args:
            job_id: The job.
            attempt: Which run of it this is, from 1.
            most: Bytes that are read at most.

        Raises:
            ProgramTooLarge: It has more; it was not read.
            WrongKey: It is not there, or no holder of the key has put it there.
        """
        key = job_key(job_id, "program")
        blob, printed, end = self._store.call("EVAL", _BEGIN, 1, key, attempt, most, self._keep)
        if blob == 0:
            raise WrongKey("The source of the program is not in Redis any more.", "Submit it again.")
        if isinstance(blob, int):
            raise ProgramTooLarge(f"The program has {blob} bytes, and at most {most} are read; it was refused unread.")
        payload = self._keys.unseal(key, blob)
        (size,) = struct.unpack_from(">I", payload)
        asked = Asked(**json.loads(bytes(payload[4 : 4 + size])))
        return Begun(asked, bytes(payload[4 + size :]), int(printed), self._end(job_id, end))

    def append(self, job_id: str, attempt: int, number: int, stream: str, data: bytes) -> bool:
        """Keep a piece of output, and no more than the latest ``OUTPUT`` bytes of them; whether this run has still a say."""
        keys = [job_key(job_id, "program"), job_key(job_id, "output")]
        sealed = self._keys.seal(f"{keys[1]} {number}", stream.encode(), data)
        reply = self._store.call("EVAL", _APPEND, 2, *keys, attempt, number, sealed, OUTPUT, _COST, self._keep)
        return bool(reply)

    def read(self, job_id: str, number: int) -> Printed:
        """The output from a piece on, or from the oldest one that is kept; some of it, so go on until there is none.

        Raises:
            WrongKey: No holder of the key has written it.
        """
        keys = [job_key(job_id, "program"), job_key(job_id, "output")]
        start, dropped, blobs = self._store.call("EVAL", _READ, 2, *keys, number, _TOGETHER)
        pieces = []
        for at, blob in enumerate(blobs, start):
            payload = bytes(self._keys.unseal(f"{keys[1]} {at}", blob))
            pieces.append((payload[: len(STDOUT)].decode(), payload[len(STDOUT) :]))
        return Printed(pieces, start + len(blobs), int(dropped) if start > number else 0)

    def beat(self, job_id: str, attempt: int) -> tuple[bool, bool]:
        """Whether a run of a program has still a say, and whether it is to end, as somebody has cancelled it."""
        latest, cancelled = self._store.pipeline(
            [("HGET", job_key(job_id, "program"), "attempt"), ("HGET", job_key(job_id), "cancelled")]
        )
        return latest == str(attempt).encode(), cancelled is not None

    def renew(self, job_id: str, *more: str) -> None:
        """Keep all that is known of a program, for another while."""
        keys = [job_key(job_id, *names) for names in ((), ("tasks",), ("who",), ("program",), ("output",))]
        self._store.pipeline([("PEXPIRE", key, self._keep) for key in [JOBS, *keys, *more]])

    def ended(self, job_id: str, attempt: int, end: End) -> bool:
        """Keep how a run of a program has ended; whether it had still a say."""
        key = job_key(job_id, "program")
        sealed = self._keys.seal(f"{key} end", json.dumps(asdict(end)).encode())
        return bool(self._store.call("EVAL", _END, 1, key, attempt, sealed, self._keep))

    def end(self, job_id: str) -> End | None:
        """How a program has ended; None if it has not, or that was not told.

        Raises:
            WrongKey: No holder of the key has written it.
        """
        return self._end(job_id, self._store.call("HGET", job_key(job_id, "program"), "end"))

    def _end(self, job_id: str, sealed: bytes | None) -> End | None:
        if sealed is None:
            return None
        return End(**json.loads(bytes(self._keys.unseal(f"{job_key(job_id, 'program')} end", sealed))))
