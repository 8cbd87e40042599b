"""Pi by throwing darts, on all cores, with random numbers that do not depend on the cores.

Look at: ``seed=``. Each call draws from a stream of its own, spawned by its index, so the estimate
is the same to the last digit with two processes, and in place.
"""

from __future__ import annotations

from lightwork import Pool, current_task

__all__ = ["hits", "main"]

DARTS = 100_000
ROUNDS = 20


def hits(darts: int) -> int:
    """How many darts hit the quarter circle."""
    draw = current_task().rng.random
    return sum(draw() ** 2 + draw() ** 2 < 1 for _ in range(darts))


def estimate(kind: str) -> float:
    """Pi, from all rounds."""
    with Pool(kind) as pool:
        return 4 * sum(pool.map(hits, [DARTS] * ROUNDS, seed=2024)) / (DARTS * ROUNDS)


def main() -> None:
    """Estimate it twice."""
    parallel, alone = estimate("processes"), estimate("serial")
    print(f"pi is about {parallel:.4f}, from {DARTS * ROUNDS:,} darts")
    print("in place the same" if parallel == alone else f"in place {alone}: DIFFERENT")


if __name__ == "__main__":
    main()
