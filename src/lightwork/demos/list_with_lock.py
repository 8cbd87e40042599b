"""One thread adds numbers to a list while another removes them; a lock guards it.

Look at: the end. The sum of what was removed and of what is left is the sum of what was added, so
no number was lost or taken twice. Nobody asks again and again: who has nothing to do waits on a
condition, and is woken.
"""

from __future__ import annotations

from lightwork import Pool, share

__all__ = ["main"]

NUMBERS = range(1, 10_001)
MOST = 100  # in the list at a time


def add(numbers: list[int], changed: share.Condition) -> int:
    """Append every number; return their sum."""
    for number in NUMBERS:
        with changed:
            changed.wait_for(lambda: len(numbers) < MOST)
            numbers.append(number)
            changed.notify()
    return sum(NUMBERS)


def remove(numbers: list[int], changed: share.Condition) -> int:
    """Take all but the last five numbers; return the sum of what was taken."""
    total = 0
    for _ in range(len(NUMBERS) - 5):
        with changed:
            changed.wait_for(lambda: numbers)
            total += numbers.pop(0)
            changed.notify()
    return total


def main() -> None:
    """Run both, and compare."""
    numbers: list[int] = []
    lock = share.Lock("numbers")
    changed = share.Condition(lock)  # `with changed` holds the lock; waiting lets go of it
    with Pool("threads", 2) as pool:
        adder = pool.submit(add, numbers, changed)
        remover = pool.submit(remove, numbers, changed)
        added, removed = adder.result(), remover.result()
    print(f"added   {added:,}")
    print(f"removed {removed:,}")
    print(f"left    {sum(numbers):,} in {numbers}")
    print("nothing was lost" if removed + sum(numbers) == added else "LOST")


if __name__ == "__main__":
    main()
