"""A Semaphore: at most so many at a time, such as connections to a server that allows two.

Look at: six workers, and the greatest number of them that was ever connected. A permit comes back
at the end of the ``with`` block, also after an error, and also when a worker process is killed.
"""

from __future__ import annotations

import time

from lightwork import Pool, share

__all__ = ["fetch", "main"]

ALLOWED = 2
WORKERS = 6
PAGES = 24


def fetch(page: int, permits: share.Semaphore, inside: share.Value) -> int:
    """Fetch a page; return how many were connected, this one included."""
    with permits:
        connected = int(inside.add(1))
        time.sleep(0.002)  # stands for the server
        inside.add(-1)
    return connected


def main() -> None:
    """Fetch them all."""
    for kind in ("threads", "processes"):
        permits, inside = share.Semaphore(ALLOWED), share.Value("q")
        with Pool(kind, WORKERS) as pool:
            seen = list(pool.map(fetch, range(PAGES), [permits] * PAGES, [inside] * PAGES))
        print(f"{kind}: {len(seen)} pages, {WORKERS} workers, at most {max(seen)} connected")
        if max(seen) > ALLOWED or inside.value != 0:
            raise SystemExit("MORE than were allowed")


if __name__ == "__main__":
    main()
