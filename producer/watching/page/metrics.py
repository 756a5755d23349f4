"""The fleet's numbers in Prometheus's text format (version 0.0.4). What is gone is not in it.

Counters and histograms are what hosts and pools count in Redis, so they go on where they were when the page is started again.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate
from typing import Any

from lab.fleet.counts import BOUNDS, CALLS, CHUNKS, ERRORS, REDELIVERED, WAITS
from lab.fleet.engine import PROCESS_QUEUE

TYPE = "text/plain; version=0.0.4; charset=utf-8"

Sample = tuple[dict[str, str], float | None]


def text(fleet: dict[str, Any]) -> str:
    """All numbers of a look.

    Args:
        fleet: As the page has it (``hub.document``).
    """
    hosts, runs, now = fleet["hosts"], fleet["runs"], fleet["at"]
    pools = [(run, pool) for run in runs for pool in run["pools"]]
    queues = [(run, queue) for run in runs for queue in run["queues"]]
    locks = [(run, lock) for run in runs for lock in run["locks"]]
    memory = fleet["memory"] or {}
    counts, job_counts, queued = fleet["counts"], fleet["job_counts"], fleet["queued_since"]
    return "".join(
        [
            _metric("slots", "gauge", "Places to compute, by host.", (_host(h, h["slots"]) for h in hosts)),
            _metric("processes", "gauge", "Processes that run, by host.", (_host(h, h["busy"]) for h in hosts)),
            _metric("slots_free", "gauge", "Slots that no process takes, by host.",
                    (_host(h, max(0, h["slots"] - h["busy"])) for h in hosts)),
            _metric("processes_wanted", "gauge", "Processes that no host has taken yet.", [({}, fleet["starting"])]),
            _metric("processes_wanted_age_seconds", "gauge", "For how long the next of them has been seen to wait, at least.",
                    [({}, _seconds(now, queued.get(PROCESS_QUEUE, now)))]),
            _metric("processes_silent", "gauge", "Processes that were not heard for half of a lease, by run.",
                    (_run(r, sum(bool(p["silent"]) for p in r["processes"])) for r in runs)),
            _metric("pool_calls_waiting", "gauge", "Calls that no worker has taken.",
                    (_named(r, p, p["waiting"]) for r, p in pools)),
            _metric("pool_calls_taken", "gauge", "Calls that workers have taken and not answered.",
                    (_named(r, p, sum(p["taken"].values())) for r, p in pools)),
            _metric("pool_calls_handed_out", "gauge", "Calls that were handed out, less those that were given back.",
                    (_named(r, p, p["handed_out"]) for r, p in pools)),
            _metric("pool_redeliveries_total", "counter", "Calls that were put back for another worker, as theirs had died.",
                    (_named(r, p, p["put_back"]) for r, p in pools)),
            _histogram("call_seconds", "For how long calls of pools and executors ran, by host.", counts, CALLS),
            _total("call_errors_total", "Those of them that ended with an error, by host.", counts, ERRORS),
            _total("redeliveries_total", "Starts of processes that another host may have had before, by host.",
                   counts, REDELIVERED),
            _metric("queue_length", "gauge", "Messages in a queue or on their way through a pipe.",
                    (_named(r, q, q["length"]) for r, q in queues)),
            _metric("queue_age_seconds", "gauge", "For how long its first message has been seen to wait, at least.",
                    (_named(r, q, _seconds(now, q["since"])) for r, q in queues)),
            _metric("lock_held_seconds", "gauge", "For how long a lock has been seen to be held by the same, at least.",
                    (_named(r, each, _seconds(now, each["since"])) for r, each in locks)),
            _metric("lock_waiters", "gauge", "Who waits for a lock, a semaphore or a notification.",
                    (_named(r, each, len(each["waiters"])) for r, each in locks)),
            _metric("lock_wait_seconds", "gauge", "For how long the longest waiter has been seen to wait, at least.",
                    (_named(r, each, _longest(now, each["waiters"])) for r, each in locks)),
            _histogram("lock_waited_seconds", "How long those waited for a lock or a semaphore who had to, by host.",
                       counts, WAITS),
            _metric("deadlocks", "gauge", "Circles of processes that wait for each other.", [({}, len(fleet["deadlocks"]))]),
            _metric("job_chunks_waiting", "gauge", "Chunks of jobs that wait, by queue.",
                    (({"queue": name}, length) for name, length in fleet["job_queues"].items())),
            _metric("job_chunks_age_seconds", "gauge", "For how long the next of them was seen to wait, at least, by queue.",
                    (({"queue": name}, _seconds(now, queued.get(name, now))) for name in fleet["job_queues"])),
            _histogram("job_chunk_seconds", "For how long chunks of jobs ran, by host.", job_counts, CHUNKS),
            _total("job_redeliveries_total", "Chunks of jobs that another worker had before, by host.",
                   job_counts, REDELIVERED),
            _metric("jobs", "gauge", "Jobs that are on record.", [({}, fleet["jobs"])]),
            _metric("dead_letters", "gauge", "Messages that no worker will run.", [({}, fleet["dead_letters"])]),
            _metric("redis_memory_bytes", "gauge", "Redis's memory.", [({}, memory.get("used"))]),
            _metric("redis_memory_ceiling_bytes", "gauge", "Its maxmemory; 0 for none.", [({}, memory.get("ceiling"))]),
        ]
    )  # fmt: skip


def _metric(name: str, kind: str, help_: str, samples: Iterable[Sample]) -> str:
    lines = [f"crosshost_{name}{_labels(labels)} {value}\n" for labels, value in samples if value is not None]
    return f"# HELP crosshost_{name} {help_}\n# TYPE crosshost_{name} {kind}\n{''.join(lines)}" if lines else ""


def _total(name: str, help_: str, counts: dict[str, dict[str, list[int]]], what: str) -> str:
    samples = [({"host": host}, its[what][0]) for host, its in counts.items() if what in its]
    return _metric(name, "counter", help_, samples)


def _histogram(name: str, help_: str, counts: dict[str, dict[str, list[int]]], what: str) -> str:
    lines = []
    for host, its in counts.items():
        if what in its:
            *buckets, nanoseconds = its[what]
            upto = zip([*map(str, BOUNDS), "+Inf"], accumulate(buckets), strict=True)
            lines += [
                f"crosshost_{name}_bucket{_labels({'host': host, 'le': bound})} {count}\n" for bound, count in upto
            ]
            lines.append(f"crosshost_{name}_sum{_labels({'host': host})} {nanoseconds / 1e9}\n")
            lines.append(f"crosshost_{name}_count{_labels({'host': host})} {sum(buckets)}\n")
    return f"# HELP crosshost_{name} {help_}\n# TYPE crosshost_{name} histogram\n{''.join(lines)}" if lines else ""


def _labels(labels: dict[str, str]) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}" if labels else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _host(host: dict[str, Any], value: float) -> Sample:
    return {"host": host["name"]}, value


def _run(run: dict[str, Any], value: float) -> Sample:
    return {"run": run["id"]}, value


def _named(run: dict[str, Any], thing: dict[str, Any], value: float | None) -> Sample:
    return {"run": run["id"], "name": thing["name"]}, value


def _seconds(now: int, since: int | None) -> float | None:
    return None if since is None else (now - since) / 1000


def _longest(now: int, waiters: list[dict[str, Any]]) -> float:
    return max(((now - waiter["since"]) / 1000 for waiter in waiters), default=0.0)
