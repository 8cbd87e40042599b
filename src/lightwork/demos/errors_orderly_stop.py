"""An orderly stop after an error: nothing new starts, what runs may end, what is done is kept.

Look at: the numbers. What had finished and what was running is there, what had not started is
cancelled, and behind the ``with`` block no worker is left. Ctrl-C and SIGTERM inside the block stop
it, too.
"""

from __future__ import annotations

from concurrent.futures import FIRST_EXCEPTION, wait

from lightwork import Pool, share

__all__ = ["handle", "main"]


def handle(number: int, running: share.Barrier, go_on: share.Event) -> int:
    """Number 5 finds that the disk is full; who is behind it is in the middle of its work then."""
    if number == 5:
        raise OSError("the disk is full")
    if number > 5:
        running.wait()
        go_on.wait()
    return number


def main() -> None:
    """Submit many, stop at the first error."""
    for kind in ("threads", "processes"):
        running, go_on = share.Barrier(3), share.Event()
        with Pool(kind, 2) as pool:
            futures = [pool.submit(handle, number, running, go_on) for number in range(100)]
            failed = wait(futures, return_when=FIRST_EXCEPTION).done
            print(f"{kind}: stopping:", *[one.exception() for one in failed if one.exception()])
            running.wait()  # by now, both workers have gone on with others
            pool.shutdown(wait=False, cancel_futures=True)
            go_on.set()
        kept = [one.result() for one in futures if not one.cancelled() and not one.exception()]
        print("    kept:", *kept[:5], "and the", len(kept) - 5, "that were running")
        print("    cancelled:", sum(one.cancelled() for one in futures))
        print("    workers left:", pool.statistics().idle + pool.statistics().busy)


if __name__ == "__main__":
    main()
