"""Count the primes below a number: equal chunks, and a sum.

A chunk is sieved in blocks that fit into a processor's cache (a segmented sieve of Eratosthenes: Bays and Hudson, "The
segmented sieve of Eratosthenes and primes in arithmetic progressions to 10^12", BIT 17, 1977). Strides of a bytearray are
cleared in C, so no library is needed. The check is pi(10^k), OEIS A006880.
"""

from __future__ import annotations

from itertools import pairwise
from math import isqrt
from typing import Any

from lab.jobs.job import Arguments, Chunk, Job, Number, bounded

HIGHEST = 10**8
BLOCK = 1 << 17
KNOWN = {10**k: count for k, count in enumerate((0, 4, 25, 168, 1229, 9592, 78498, 664579, 5761455))}


def split(limit: int, chunks: int) -> list[Chunk]:
    """Ranges ``[low, high)`` that cover the numbers below ``limit``."""
    edges = [limit * i // chunks for i in range(chunks + 1)]
    return list(pairwise(edges))


def count(low: int, high: int) -> int:
    """How many primes p have ``low <= p < high``.

    Raises:
        BadArgument: The range does not lie within 0 and 10^8.
    """
    bounded("high", high, 0, HIGHEST)
    bounded("low", low, 0, high)
    primes = _odd_primes(isqrt(high))
    found = 1 if low <= 2 < high else 0
    for start in range(max(low, 3) | 1, high, 2 * BLOCK):
        odd = bytearray(b"\1") * len(range(start, min(start + 2 * BLOCK, high), 2))
        _strike_out(odd, start, primes)
        found += odd.count(1)
    return found


def total(parts: list[int]) -> int:
    """The sum of the chunks' counts."""
    return sum(parts)


def _strike_out(odd: bytearray, start: int, primes: list[int]) -> None:
    """Clear what is composite; place i stands for ``start + 2 * i``."""
    stop = start + 2 * len(odd)
    for prime in primes:
        if prime * prime >= stop:
            return
        multiple = max(prime * prime, -(-start // prime) * prime)
        first = (multiple + (prime if multiple % 2 == 0 else 0) - start) // 2
        odd[first::prime] = bytes(len(range(first, len(odd), prime)))


def _odd_primes(highest: int) -> list[int]:
    odd = bytearray(b"\1") * len(range(3, highest + 1, 2))
    for i in range(len(odd)):
        prime = 2 * i + 3
        if prime * prime > highest:
            break
        if odd[i]:
            first = (prime * prime - 3) // 2
            odd[first::prime] = bytes(len(range(first, len(odd), prime)))
    return [2 * i + 3 for i, is_prime in enumerate(odd) if is_prime]


def show(arguments: Arguments, result: Any) -> list[str]:
    """The count, and the known value where there is one."""
    limit = arguments["limit"]
    lines = [f"{result:,} primes below {limit:,}"]
    if limit in KNOWN:
        lines.append("as is known" if result == KNOWN[limit] else f"WRONG: it is known to be {KNOWN[limit]:,}")
    return lines


JOB = Job(
    summary="Count the primes below a number.",
    parameters=(
        Number("limit", 10_000_000, 1, HIGHEST, "Count the primes below it."),
        Number("chunks", 16, 1, 1_000, "Ranges to cut it into."),
    ),
    split=split,
    work=count,
    merge=total,
    show=show,
)
