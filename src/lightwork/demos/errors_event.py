"""An error signalled by an event, so that the others stop.

Look at: the searchers are in the middle of their work when one of them fails. It sets the event;
each looks at it between two steps, and leaves in order. Nobody is killed.
"""

from __future__ import annotations

from lightwork import Failure, Pool, share

__all__ = ["main", "search"]

SEARCHERS = 4


def search(number: int, all_here: share.Barrier, failed: share.Event) -> str:
    """Look for something, step by step; number 2 fails at its third step."""
    all_here.wait()
    try:
        for step in range(1_000_000):
            if number == 2 and step == 3:
                raise RuntimeError("the index is corrupt")
            if failed.wait(0.001):  # stands for a step of work
                return f"searcher {number} was told to stop"
    except Exception:
        failed.set()
        raise
    return f"searcher {number} found nothing"


def main() -> None:
    """Start four; one fails."""
    for kind in ("threads", "processes"):
        all_here, failed = share.Barrier(SEARCHERS), share.Event()
        shared = [all_here] * SEARCHERS, [failed] * SEARCHERS
        print(f"{kind}:")
        with Pool(kind, SEARCHERS) as pool:
            for result in pool.map(search, range(SEARCHERS), *shared, on_error="return"):
                print("   ", result.exception if isinstance(result, Failure) else result)


if __name__ == "__main__":
    main()
