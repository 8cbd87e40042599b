"""What does it cost to measure a call? And does measuring change what is found?

    python benchmarks/probe.py [--rounds 9] [--seconds 1.0] [--quick]

A second's worth of calls is run in one thread, bare and measured (``lightwork.measure.probe``), one
after the other in each round: *until it is clear*, as a pool does, which stops measuring so when it
knows enough; and *all the time*, as it would be for one call that goes on and is never clear. What
is shown is the median of the rounds' ratios, less one. At most 2 % of a run of one second are to be
lost. The results of the calls are compared, too. Exit status 1 if something does not hold.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from lightwork.measure.probe import Heart, Probe

MOST = 0.02

_data = bytes(1 << 20)


def count(n: int) -> int:
    """Some Python, for about as many times 25 us."""
    found = 0
    for at in range(400 * n):
        found += at & 3
    return found


def nap(n: int) -> int:
    """Wait for so many times 25 us."""
    time.sleep(25e-6 * n)
    return n


def digest(n: int) -> str:
    """Compute without the GIL."""
    return hashlib.sha256(_data[: 20_000 * n]).hexdigest()


def bare(fn: Callable[[int], Any], n: int, calls: int) -> list[Any]:
    return [fn(n) for _ in range(calls)]


def measured(fn: Callable[[int], Any], n: int, calls: int, always: bool) -> list[Any]:
    """As the router does it, but in this thread."""
    probe = Probe()
    wanted = [True]
    heart = Heart(lambda: None, lambda: wanted[0])
    heart.probes[probe] = None
    heart.start()
    thread = heart.thread
    found = []
    for _ in range(calls):
        if wanted[0]:
            probe.begin()
            found.append(fn(n))
            probe.end()
            if not always and probe.clear():
                wanted[0] = False
                heart.probes.clear()
        else:
            found.append(fn(n))
    wanted[0] = False
    heart.hurry()
    if thread is not None:
        thread.join()
    return found


def main() -> int:
    """Print the table; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--quick", action="store_true", help="for correctness only")
    wanted = parser.parse_args()
    if wanted.quick:
        wanted.rounds, wanted.seconds = 1, 0.05
    print(f"{'calls that':28}{'calls':>8}{'until clear':>14}{'all the time':>14}")
    good = True
    for name, fn, n in (
        ("compute for 1 ms", count, 40),
        ("compute for 25 us", count, 1),
        ("compute for 100 ms", count, 4000),
        ("wait for 1 ms", nap, 40),
        ("wait for 50 ms", nap, 2000),
        ("compute without the GIL", digest, 40),
    ):
        begin = time.perf_counter()
        bare(fn, n, 3)
        calls = max(3, int(wanted.seconds * 3 / (time.perf_counter() - begin)))
        ratios: dict[bool, list[float]] = {False: [], True: []}
        for turn in range(wanted.rounds):
            times, results = [0.0] * 3, [list[Any]()] * 3
            for at in range(3):
                which = (at + turn) % 3  # each is first as often as the others
                run = (
                    partial(bare, fn, n, calls),
                    partial(measured, fn, n, calls, False),
                    partial(measured, fn, n, calls, True),
                )[which]
                begin = time.perf_counter()
                results[which] = run()
                times[which] = time.perf_counter() - begin
            if results[1] != results[0] or results[2] != results[0]:
                raise AssertionError(f"{name}: measuring changes the results")
            ratios[False].append(times[1] / times[0] - 1.0)
            ratios[True].append(times[2] / times[0] - 1.0)
        once, always = (statistics.median(ratios[which]) for which in (False, True))
        good = good and once <= MOST
        text = "" if once <= MOST else "  MORE THAN 2 %"
        print(f"{name:28}{calls:>8}{once:>13.2%} {always:>13.2%}{text}", flush=True)
    return 0 if good or wanted.quick else 1


if __name__ == "__main__":
    sys.exit(main())
