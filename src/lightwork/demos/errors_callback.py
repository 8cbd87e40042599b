"""Errors told to callbacks: of one future, or of a whole map.

Look at: ``add_done_callback`` runs when the call has ended, however it did; and with a function as
``on_error`` each failure becomes a value in its place, and the map goes on.
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

from lightwork import Failure, Pool, share

__all__ = ["main"]


def inverse(n: int) -> float:
    """Raises ZeroDivisionError for 0."""
    return 1 / n


def substitute(failure: Failure) -> float:
    """What stands in the place of a result that could not be had."""
    print(f"item {failure.index}: {failure.exception}")
    return float("inf")


def main() -> None:
    """One future, then a map."""
    told = share.Event()

    def report(future: Future[Any]) -> None:
        print("callback:", future.exception() or future.result())
        told.set()

    with Pool("processes", 2) as pool:
        pool.submit(inverse, 0).add_done_callback(report)
        told.wait()
        print(list(pool.map(inverse, [1, 0, 4], on_error=substitute)))


if __name__ == "__main__":
    main()
