"""A data set in pieces: each is filtered, transformed and aggregated by a worker; then combined.

Look at: the pieces are made lazily, and only a window of them is ahead, so the whole data set is
never in memory; what comes back from a worker is small.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

from lightwork import Pool

__all__ = ["main", "summarise"]

PIECES = 40
ROWS = 5_000
CITIES = ("Bern", "Oslo", "Lima", "Kyiv")

Row = tuple[str, float]


def pieces() -> Iterator[list[Row]]:
    """Split: measurements of temperatures, some of them broken (-999)."""
    chance = random.Random(1)
    for _ in range(PIECES):
        yield [
            (chance.choice(CITIES), -999.0 if chance.random() < 0.01 else chance.gauss(12, 8))
            for _ in range(ROWS)
        ]


def summarise(rows: list[Row]) -> tuple[Counter[str], dict[str, float]]:
    """Apply: drop what is broken, to Fahrenheit, then counts and sums by city."""
    counts: Counter[str] = Counter()
    sums: dict[str, float] = dict.fromkeys(CITIES, 0.0)
    for city, celsius in rows:
        if celsius > -100:
            counts[city] += 1
            sums[city] += celsius * 9 / 5 + 32
    return counts, sums


def main() -> None:
    """Combine."""
    counts: Counter[str] = Counter()
    sums = dict.fromkeys(CITIES, 0.0)
    with Pool("processes") as pool:
        for some, parts in pool.map(summarise, pieces(), ordered=False):
            counts += some
            for city, part in parts.items():
                sums[city] += part
    for city in CITIES:
        print(f"{city}: {counts[city]:6,} measurements, mean {sums[city] / counts[city]:.1f} F")
    kept = counts.total()
    print(f"{kept:,} of {PIECES * ROWS:,} rows were fit for use")


if __name__ == "__main__":
    main()
