"""A Queue: one hands work over, several take it, and their results go the same way.

Look at: ``close``. The readers take what is left, and their loops end by themselves: nobody has to
count "stop" entries. The queue of numbers holds ten at most, so its writer cannot run ahead.
"""

from __future__ import annotations

from lightwork import Pool, share

__all__ = ["main", "square"]

NUMBERS = range(500)


def square(numbers: share.Queue, results: share.Queue) -> int:
    """Square what comes, until no more comes; return how many came here."""
    taken = 0
    for number in numbers:
        results.put((number, number * number))
        taken += 1
    return taken


def main() -> None:
    """One writer, three readers."""
    for kind in ("threads", "processes"):
        numbers, results = share.Queue(maxsize=10), share.Queue()
        with Pool(kind, 3) as pool:
            readers = [pool.submit(square, numbers, results) for _ in range(3)]
            for number in NUMBERS:
                numbers.put(number)
            numbers.close()
            taken = sum(reader.result() for reader in readers)
        results.close()
        right = sorted(results) == [(number, number * number) for number in NUMBERS]
        print(f"{kind}: {taken} of {len(NUMBERS)} taken,", "each once" if right else "WRONG")


if __name__ == "__main__":
    main()
