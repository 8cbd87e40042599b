"""An RLock: who holds it may take it again, so that one guarded method can call another.

Look at: ``transfer`` holds the lock over both of its steps, each of which takes it once more. With
a Lock it would wait for itself. Whoever looks meanwhile sees all of the money, never half a move.
"""

from __future__ import annotations

from lightwork import Pool, share

__all__ = ["Bank", "main"]

TOTAL = 200
TIMES = 100


class Bank:
    """Two accounts. It can be passed to any worker: its parts are shared, the rest is copied."""

    def __init__(self) -> None:
        self.lock = share.RLock("bank")
        self.balances = share.Dict({"Ann": TOTAL, "Bob": 0})

    def add(self, name: str, amount: int) -> None:
        """Change one account."""
        with self.lock:
            self.balances[name] = self.balances[name] + amount

    def transfer(self, source: str, target: str) -> None:
        """Move 1 from one to the other."""
        with self.lock:
            self.add(source, -1)
            self.add(target, +1)

    def total(self) -> int:
        """All the money."""
        with self.lock:
            return sum(self.balances.values())


def move(bank: Bank) -> None:
    """Make transfers."""
    for _ in range(TIMES):
        bank.transfer("Ann", "Bob")


def audit(bank: Bank) -> set[int]:
    """The totals that were seen."""
    return {bank.total() for _ in range(TIMES)}


def main() -> None:
    """One moves money, another counts it."""
    for kind in ("threads", "processes"):
        bank = Bank()
        with Pool(kind, 2) as pool:
            moved, seen = pool.submit(move, bank), pool.submit(audit, bank)
            moved.result()
        print(f"{kind}: {dict(bank.balances.items())}")
        print("    the money was always all there:", seen.result() == {TOTAL})


if __name__ == "__main__":
    main()
