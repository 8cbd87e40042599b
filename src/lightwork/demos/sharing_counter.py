"""A Counter: all add to one number, without a lock, while somebody watches it.

Look at: no lock, and yet nothing is lost; each thread adds in a place of its own, and to read is to
sum up. The watcher sees it grow, and never shrink.
"""

from __future__ import annotations

from concurrent.futures import wait

from lightwork import Pool, share

__all__ = ["count", "main"]

WORKERS = 4
TIMES = 20_000


def count(done: share.Counter) -> None:
    """Add 1, many times."""
    for _ in range(TIMES):
        done.add()


def main() -> None:
    """Let four add, and watch."""
    for kind in ("threads", "processes"):
        done = share.Counter()
        seen = [done.value]
        with Pool(kind, WORKERS) as pool:
            tasks = [pool.submit(count, done) for _ in range(WORKERS)]
            while wait(tasks, timeout=0.001).not_done:
                seen.append(done.value)
        for task in tasks:
            task.result()
        grew = seen == sorted(seen)
        total = f"{done.value:,} of {WORKERS * TIMES:,}"
        print(f"{kind}: {total}, and it only grew: {grew}")


if __name__ == "__main__":
    main()
