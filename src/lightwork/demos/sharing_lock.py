"""A Lock: one at a time reads a balance and writes it back, be they threads or processes.

Look at: what is there at the end. With the lock it is what was paid in. Without it, two may have
read the same balance, and the first one's payment is gone.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext

from lightwork import Pool, share

__all__ = ["deposit", "main"]

WORKERS = 4
TIMES = 250


def deposit(guard: AbstractContextManager[object], balance: share.Value) -> None:
    """Pay in 1, many times."""
    for _ in range(TIMES):
        with guard:
            seen = balance.value
            time.sleep(0)  # here somebody else may come
            balance.value = seen + 1


def final(kind: str, guard: AbstractContextManager[object]) -> int:
    """The balance after all have paid in."""
    balance = share.Value("q")
    with Pool(kind, WORKERS) as pool:
        list(pool.map(deposit, [guard] * WORKERS, [balance] * WORKERS))
    return int(balance.value)


def main() -> None:
    """With the lock, then without it."""
    paid = WORKERS * TIMES
    for kind in ("threads", "processes"):
        found = final(kind, share.Lock("balance"))
        print(f"{kind}: {found} of {paid},", "nothing was lost" if found == paid else "LOST")
        print(f"    without the lock {final(kind, nullcontext())} of {paid}")


if __name__ == "__main__":
    main()
