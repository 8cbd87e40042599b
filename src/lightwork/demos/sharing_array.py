"""An Array: NumPy memory that all workers see, and that is never copied.

Look at: what travels to a worker is a slice of the array; it is a view of the same memory, so what
is written there is here. No two workers write to the same rows, so no lock is needed.
"""

from __future__ import annotations

from lightwork import Pool, share

__all__ = ["fill", "main"]

SIZE = 400
STRIPE = 50


def fill(rows: share.Array, first: int) -> None:
    """A multiplication table, from row `first` on."""
    for at in range(len(rows)):
        rows[at] = [(first + at) * column for column in range(SIZE)]


def main() -> None:
    """Fill in stripes, and check all of it."""
    firsts = range(0, SIZE, STRIPE)
    for kind in ("threads", "processes"):
        table = share.Array((SIZE, SIZE), "i8")
        with Pool(kind, 2) as pool:
            list(pool.map(fill, [table[at : at + STRIPE] for at in firsts], firsts))
        right = all(table[n, m] == n * m for n in range(SIZE) for m in range(SIZE))
        print(f"{kind}: {table.nbytes:,} bytes filled,", "all right" if right else "WRONG")


if __name__ == "__main__":
    main()
