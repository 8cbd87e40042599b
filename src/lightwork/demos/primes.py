"""The primes below two million, searched in ranges by worker processes.

Look at: the ranges are uneven work (the later, the longer), and many; the pool hands each worker
the next one when it is free, so that all end together.
"""

from __future__ import annotations

import math
import time
from itertools import pairwise

from lightwork import Pool

__all__ = ["count_primes", "main"]

BELOW = 2_000_000
STEP = 25_000


def count_primes(start: int, stop: int) -> int:
    """How many primes there are from `start` up to, not including, `stop`."""
    small = range(3, math.isqrt(stop) + 1, 2)
    divisors = [n for n in small if all(n % d for d in range(3, math.isqrt(n) + 1, 2))]
    composite = bytearray(stop - start)
    for d in (2, *divisors):
        first = max(d * d, (start + d - 1) // d * d)
        for n in range(first, stop, d):
            composite[n - start] = 1
    return composite.count(0) - sum(start <= n < stop for n in (0, 1))


def main() -> None:
    """Count them one range after the other, then on all cores."""
    edges = list(range(0, BELOW + 1, STEP))
    starts, stops = zip(*pairwise(edges))
    begin = time.perf_counter()
    alone = sum(map(count_primes, starts, stops))
    middle = time.perf_counter()
    with Pool("processes") as pool:
        found = sum(pool.map(count_primes, starts, stops))
        workers = pool.max_workers
    seconds = time.perf_counter() - middle
    print(f"{found:,} primes below {BELOW:,}")
    print(f"in place {middle - begin:.2f} s, {workers} processes {seconds:.2f} s")
    if found != alone:
        raise SystemExit("the counts differ")


if __name__ == "__main__":
    main()
