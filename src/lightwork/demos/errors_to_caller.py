"""An error handed to the caller: as itself, with the traceback of the worker and the item.

Look at: what the error knows. Its type and its attributes are those of the worker's, its notes
name the call, and its cause is the traceback in the other process.
"""

from __future__ import annotations

from lightwork import Failure, Pool

__all__ = ["TooHot", "boil", "main"]


class TooHot(Exception):
    """An error of the program's own, with an attribute."""

    def __init__(self, degrees: int) -> None:
        super().__init__(f"{degrees} degrees")
        self.degrees = degrees


def boil(degrees: int) -> int:
    """Raises TooHot above 100."""
    if degrees > 100:
        raise TooHot(degrees)
    return degrees


def main() -> None:
    """Catch one, then collect all."""
    with Pool("processes", 2) as pool:
        try:
            pool.submit(boil, 120).result()
        except TooHot as error:
            print("caught:", error, "-", error.degrees - 100, "too many")
            print("note:", *error.__notes__)
            print("raised in boil:", "in boil" in str(error.__cause__))

        results = list(pool.map(boil, [90, 110, 95, 130], on_error="return"))
        for result in results:
            if isinstance(result, Failure):
                print(f"item {result.index} ({result.item}): {result.exception}")
            else:
                print("fine:", result)


if __name__ == "__main__":
    main()
