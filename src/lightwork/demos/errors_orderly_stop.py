"""An orderly stop after an error: nothing new starts, what runs may end, what is done is kept.

Look at: the numbers. What had finished is there, what had not started is cancelled, and behind the
``with`` block no worker is left. Ctrl-C and SIGTERM inside the block stop it in the same order.
"""

from __future__ import annotations

import threading

from lightwork import Pool

__all__ = ["main"]

stop = threading.Event()


def handle(number: int) -> int:
    """Number 5 finds that the disk is full; from then on, each takes until the stop."""
    if number == 5:
        raise OSError("the disk is full")
    if number > 5:
        stop.wait()
    return number


def main() -> None:
    """Submit many, stop at the first error."""
    stop.clear()
    with Pool("threads", 2) as pool:
        futures = [pool.submit(handle, number) for number in range(100)]
        for future in futures:
            if error := future.exception():
                print("stopping:", error)
                stop.set()
                pool.shutdown(cancel_futures=True)
                break
    done = [future for future in futures if not future.cancelled() and not future.exception()]
    cancelled = sum(future.cancelled() for future in futures)
    print("kept:", *[future.result() for future in done[:5]])
    print("all accounted for:", len(done) + cancelled + 1 == len(futures))
    print("threads left:", sum("lightwork" in one.name for one in threading.enumerate()))


if __name__ == "__main__":
    main()
