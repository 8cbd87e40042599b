"""A Value: one number for all, such as the best result that anyone has found so far.

Look at: to read it takes no lock. A change that depends on what it was is made under its lock, or a
worse result could overwrite a better one.
"""

from __future__ import annotations

from lightwork import Pool, share

__all__ = ["length", "main", "search"]

STARTS = range(1, 4001)


def length(number: int) -> int:
    """Steps from `number` to 1: halve what is even, else three times it, and one (Collatz)."""
    steps = 0
    while number != 1:
        number = number // 2 if number % 2 == 0 else 3 * number + 1
        steps += 1
    return steps


def search(numbers: range, best: share.Value) -> int:
    """Raise `best` to the longest way in this part; return how often it was raised."""
    raised = 0
    for number in numbers:
        steps = length(number)
        if steps > best.value:  # without the lock: most are no better, and that is all
            with best.get_lock():
                if steps > best.value:
                    best.value = steps
                    raised += 1
    return raised


def main() -> None:
    """Search in four parts, and as a whole."""
    parts = [STARTS[at::4] for at in range(4)]
    expected = max(map(length, STARTS))
    for kind in ("threads", "processes"):
        best = share.Value("q", 0)
        with Pool(kind, 2) as pool:
            raised = sum(pool.map(search, parts, [best] * 4))
        right = best.value == expected
        print(f"{kind}: the best is {best.value}, {'right' if right else 'WRONG'},", end=" ")
        print(f"and was raised {raised} times")


if __name__ == "__main__":
    main()
