"""One thread adds numbers to a list while another removes them; a lock guards it.

Look at: the end. The sum of what was removed and of what is left is the sum of what was added, so
no number was lost or taken twice. Nobody asks again and again: who has nothing to do waits on a
condition, and is woken.
"""

from __future__ import annotations

import threading

from lightwork import Pool

__all__ = ["main"]

NUMBERS = range(1, 10_001)
MOST = 100  # in the list at a time

numbers: list[int] = []
lock = threading.Lock()
changed = threading.Condition(lock)  # waiting lets go of the lock, and takes it again


def add() -> int:
    """Append every number; return their sum."""
    for number in NUMBERS:
        with changed:
            changed.wait_for(lambda: len(numbers) < MOST)
            numbers.append(number)
            changed.notify()
    return sum(NUMBERS)


def remove() -> int:
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
    numbers.clear()
    with Pool("threads", 2) as pool:
        added, removed = pool.submit(add), pool.submit(remove)
        print(f"added   {added.result():,}")
        print(f"removed {removed.result():,}")
    print(f"left    {sum(numbers):,} in {numbers}")
    print("nothing was lost" if removed.result() + sum(numbers) == added.result() else "LOST")


if __name__ == "__main__":
    main()
