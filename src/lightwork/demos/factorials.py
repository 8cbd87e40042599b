"""The factorials of 1 to 10, computed by a pool of threads, printed in order.

Look at: four threads compute them side by side, whoever is done first; ``map`` hands them out in
the order of the numbers.
"""

from __future__ import annotations

import math

from lightwork import Pool

__all__ = ["main"]


def main() -> None:
    """Print the ten lines."""
    numbers = range(1, 11)
    with Pool("threads", 4) as pool:
        for number, factorial in zip(numbers, pool.map(math.factorial, numbers), strict=True):
            print(f"Factorial of {number} is {factorial}")


if __name__ == "__main__":
    main()
