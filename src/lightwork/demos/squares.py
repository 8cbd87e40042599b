"""Squares of 1 to 10 with pools of 2, 4 and 8 workers, and the time that each takes.

Look at: the first table, where workers only cost; and the second, where each square is slow enough
to be worth it. ``lightwork bench module:function --range 1:11 --workers 2,4,8`` does the same for
any function.
"""

from __future__ import annotations

import time

from lightwork import Pool, sweep

__all__ = ["main", "slow_square", "square"]


def square(n: int) -> int:
    """Nothing to wait for: a tenth of a microsecond."""
    return n * n


def slow_square(n: int) -> int:
    """As if the number had to be fetched from somewhere first."""
    time.sleep(0.02)
    return n * n


def main() -> None:
    """Print the squares, and two tables."""
    with Pool(max_workers=4) as pool:
        print("squares:", *pool.map(square, range(1, 11)))
    for function in (square, slow_square):
        print()
        print(sweep(function, range(1, 11), workers=(2, 4, 8), kinds=("processes",), repeats=3))


if __name__ == "__main__":
    main()
