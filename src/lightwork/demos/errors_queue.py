"""Errors reported over a queue, to one who deals with them while the work goes on.

Look at: the order of events. The reporter hears of each error when it happens, not at the end, and
a last entry tells it that no more will come.
"""

from __future__ import annotations

import queue

from lightwork import Pool

__all__ = ["main"]

Report = tuple[int, BaseException]


def check(number: int, reports: queue.SimpleQueue[Report | None]) -> bool:
    """Whether 100 can be divided by `number`; what goes wrong is reported."""
    try:
        return 100 % number == 0
    except ZeroDivisionError as error:
        reports.put((number, error))
        return False


def listen(reports: queue.SimpleQueue[Report | None]) -> list[str]:
    """Collect reports until None comes."""
    heard = []
    while (report := reports.get()) is not None:
        heard.append(f"{report[0]}: {report[1]}")
    return heard


def main() -> None:
    """One listens, the others work."""
    reports: queue.SimpleQueue[Report | None] = queue.SimpleQueue()
    with Pool("threads", 3) as pool:
        listener = pool.submit(listen, reports)
        numbers = range(-5, 6)
        good = list(pool.map(check, numbers, [reports] * len(numbers)))
        reports.put(None)
        print("divide 100:", *[number for number, ok in zip(numbers, good) if ok])
        print("reported:", *listener.result())


if __name__ == "__main__":
    main()
