"""A Barrier: nobody goes on before all have come, as between the two steps of a computation.

Look at: the second step needs what *all* have found in the first one. Each worker waits at the
barrier for the slowest, so none of them can see a maximum that is not final.
"""

from __future__ import annotations

import random

from lightwork import Pool, share

__all__ = ["main", "scale"]

PARTS = 4


def scale(part: list[float], barrier: share.Barrier, maxima: share.List) -> list[float]:
    """The numbers of this part as shares of the greatest of all parts."""
    maxima.append(max(part))
    barrier.wait()
    greatest = max(maxima)
    return [number / greatest for number in part]


def main() -> None:
    """Scale in parts, and as a whole."""
    chance = random.Random(1)
    parts = [[chance.random() for _ in range(1000)] for _ in range(PARTS)]
    greatest = max(map(max, parts))
    alone = [[number / greatest for number in part] for part in parts]
    for kind in ("threads", "processes"):
        barrier, maxima = share.Barrier(PARTS), share.List()
        with Pool(kind, PARTS) as pool:  # a worker for each part, since all of them have to come
            tasks = [pool.submit(scale, part, barrier, maxima) for part in parts]
            scaled = [task.result() for task in tasks]
        print(f"{kind}: as in one piece:", scaled == alone)


if __name__ == "__main__":
    main()
