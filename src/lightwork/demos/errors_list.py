"""A shared list of errors: every worker adds its own; or the pool collects them.

Look at: both ways end with the same errors. ``share.List`` is locked for each ``append``, so that
no error is lost; it is the same list for threads and for processes. With the second way, each
error still knows its item.
"""

from __future__ import annotations

from lightwork import Pool, share

__all__ = ["careful_root", "main", "root"]


def root(n: float) -> float:
    """Raises ValueError for a negative number."""
    if n < 0:
        raise ValueError(f"no root of {n}")
    return float(n**0.5)


def careful_root(n: float, errors: share.List) -> float | None:
    """As `root`; errors go to the list."""
    try:
        return root(n)
    except ValueError as error:
        errors.append(error)
        return None


def main() -> None:
    """Collect them twice."""
    numbers = [4, -1, 9, -16]
    for kind in ("threads", "processes"):
        errors = share.List()
        with Pool(kind, 2) as pool:
            print(f"{kind}: roots", *pool.map(careful_root, numbers, [errors] * len(numbers)))
            print("    by hand:    ", *sorted(map(repr, errors)))
            try:
                list(pool.map(root, numbers, on_error="group"))
            except ExceptionGroup as group:
                print("    by the pool:", *sorted(map(repr, group.exceptions)))


if __name__ == "__main__":
    main()
