"""A List: a list of jobs that all workers take from, and add to while they go.

Look at: each method is atomic, so there is no lock here. ``pop_if_any`` looks and takes in one
step: with ``if jobs: jobs.pop()`` somebody else could come in between.
"""

from __future__ import annotations

from lightwork import Pool, share

__all__ = ["main", "work"]

NUMBERS = range(1, 201)


def work(jobs: share.List, done: share.List) -> int:
    """Take jobs until there is none; return how many."""
    count = 0
    while (number := jobs.pop_if_any()) is not None:
        if number > 100 and number % 2 == 0:
            jobs.append(number // 2)  # a job that makes another one
        done.append(number)
        count += 1
    return count


def main() -> None:
    """Work all jobs off, and compare with what there was to do."""
    expected = sorted([*NUMBERS, *(n // 2 for n in NUMBERS if n > 100 and n % 2 == 0)])
    for kind in ("threads", "processes"):
        jobs, done = share.List(NUMBERS), share.List()
        with Pool(kind, 3) as pool:
            taken = sum(pool.map(work, [jobs] * 3, [done] * 3))
        once = sorted(done) == expected
        print(f"{kind}: {taken} jobs done,", "each once" if once else "NOT each once")


if __name__ == "__main__":
    main()
