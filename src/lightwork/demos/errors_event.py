"""An error signalled by an event, so that the others stop.

Look at: the searchers are in the middle of their work when one of them fails. It sets the event;
each looks at it between two steps, and leaves in order. Nobody is killed.
"""

from __future__ import annotations

import threading

from lightwork import Failure, Pool

__all__ = ["main"]

failed = threading.Event()
ready = threading.Barrier(4)


def search(number: int) -> str:
    """Look for something, step by step; number 2 fails at its third step."""
    ready.wait()
    for step in range(1_000_000):
        if failed.is_set():
            return f"searcher {number} was told to stop"
        if number == 2 and step == 3:
            failed.set()
            raise RuntimeError("the index is corrupt")
        failed.wait(0.001)  # stands for a step of work
    return f"searcher {number} found nothing"


def main() -> None:
    """Start four; one fails."""
    failed.clear()
    with Pool("threads", 4) as pool:
        for result in pool.map(search, range(4), on_error="return"):
            print(result.exception if isinstance(result, Failure) else result)


if __name__ == "__main__":
    main()
