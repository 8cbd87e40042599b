"""A Dict: all workers count words in one table.

Look at: ``update_with`` changes an entry while nobody else can; ``table[word] += 1`` would be two
steps. The table is the same as that of ``collections.Counter`` over the whole text.
"""

from __future__ import annotations

from collections import Counter

from lightwork import Pool, share

__all__ = ["count", "main"]

TEXT = """the cat saw the dog and the dog saw the bird
the bird saw the worm and the worm saw the bird
and the dog saw the cat saw the bird"""


def plus_one(number: int) -> int:
    """What becomes of an entry."""
    return number + 1


def count(line: str, table: share.Dict) -> None:
    """Enter the words of a line."""
    for word in line.split():
        table.update_with(word, plus_one, 0)


def main() -> None:
    """Count line by line, and as a whole."""
    lines = TEXT.splitlines() * 10
    expected = Counter(word for line in lines for word in line.split())
    for kind in ("threads", "processes"):
        table = share.Dict()
        with Pool(kind, 3) as pool:
            list(pool.map(count, lines, [table] * len(lines)))
        right = table.copy() == expected
        print(f"{kind}: {sum(table.values())} words,", "all counted" if right else "WRONG")
        print("   ", *(f"{word} {number}" for word, number in expected.most_common(3)))


if __name__ == "__main__":
    main()
