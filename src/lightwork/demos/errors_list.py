"""A shared list of errors: every thread adds its own, under a lock; or the pool collects them.

Look at: both ways end with the same errors. The second needs no lock, works for processes as well,
and each error still knows its item.
"""

from __future__ import annotations

import threading

from lightwork import Pool

__all__ = ["main", "root"]

errors: list[str] = []
lock = threading.Lock()


def root(n: float) -> float:
    """Raises ValueError for a negative number."""
    if n < 0:
        raise ValueError(f"no root of {n}")
    return float(n**0.5)


def careful_root(n: float) -> float | None:
    """As `root`; errors go to the list."""
    try:
        return root(n)
    except ValueError as error:
        with lock:
            errors.append(str(error))
        return None


def main() -> None:
    """Collect them twice."""
    errors.clear()
    numbers = [4, -1, 9, -16]
    with Pool("threads", 2) as pool:
        print("roots:", list(pool.map(careful_root, numbers)))
        print("by hand:", sorted(errors))
        try:
            list(pool.map(root, numbers, on_error="group"))
        except ExceptionGroup as group:
            print("by the pool:", sorted(map(str, group.exceptions)))


if __name__ == "__main__":
    main()
