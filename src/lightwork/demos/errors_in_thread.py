"""An error inside a thread: handled where it happens.

Look at: the function answers for each item, so nobody else has to know that some were bad; and at
the other two lines: left alone, an error does not vanish either, it comes out with the result.
"""

from __future__ import annotations

from lightwork import Pool

__all__ = ["main"]


def parse(text: str) -> int | None:
    """The number in `text`, or None: this error is nobody else's business."""
    try:
        return int(text)
    except ValueError:
        return None


def main() -> None:
    """Parse some, with and without care."""
    with Pool("threads", 2) as pool:
        print("handled inside:", list(pool.map(parse, ["1", "two", "3"])))
        try:
            print(list(pool.map(int, ["1", "two", "3"])))
        except ValueError as error:
            print("left alone:", error)


if __name__ == "__main__":
    main()
