"""A data set in pieces: each is filtered, transformed and aggregated by a worker; then combined.

Look at: the pieces are made lazily, and at most eight of them are ahead, so the whole data set is
never in memory (without ``buffersize``, half a second of work is ahead). What comes back is small.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

from lightwork import Pool

__all__ = ["main", "summarise"]

PIECES = 40
ROWS = 5_000
AHEAD = 8
CITIES = ("Bern", "Oslo", "Lima", "Kyiv")

Row = tuple[str, float]


def pieces(made: Counter[str]) -> Iterator[list[Row]]:
    """Split: measurements of temperatures, some of them broken (-999)."""
    chance = random.Random(1)
    for _ in range(PIECES):
        made["pieces"] += 1
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
    made: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    sums = dict.fromkeys(CITIES, 0.0)
    most = 0
    with Pool("processes") as pool:
        results = pool.map(summarise, pieces(made), ordered=False, buffersize=AHEAD)
        for combined, (some, parts) in enumerate(results):
            most = max(most, made["pieces"] - combined)
            counts += some
            for city, part in parts.items():
                sums[city] += part
    for city in CITIES:
        print(f"{city}: {counts[city]:6,} measurements, mean {sums[city] / counts[city]:.1f} F")
    kept = counts.total()
    print(f"{kept:,} of {PIECES * ROWS:,} rows were fit for use")
    print(f"at most {most} of {PIECES} pieces were in memory")


if __name__ == "__main__":
    main()
