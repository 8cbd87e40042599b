"""Is what ``Pool()`` chooses right? And what does it cost that it has to find out?

    python benchmarks/choose.py [--runs 5] [--quick] [NAME ...]

Each workload (``choices.py``) is run with ``Pool("threads")``, ``Pool("processes")``,
``Pool("serial")`` and ``Pool()``, one after the other in each round, so that whatever else the
machine does meets them all; each time with a new pool, whose making and ending is in the time. A
kind that takes more than three times as long as the best is given up. What must hold:

* the kind that ``Pool()`` chose is the fastest one, or its time is within 15 % of the fastest, in
  95 % of all runs; a run with ``Pool()`` itself counts as one of the kind that it chose;
* where a run lasts a second or more, the time with ``Pool()`` is at most 1.10 times that of the
  best kind, what it takes to find out included.

The time of a kind is that of its fastest round: what others do on the machine only makes a round
slower. The slowest round with ``Pool()`` is shown, too. Where the load told at the end is more than
a few tenths, repeat. Exit status 1 if something does not hold. ``--quick`` runs a twentieth of
everything once, for correctness only.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterable
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from benchmarks.choices import WORKLOADS, Workload
from lightwork import CannotPickle, Pool

KINDS = ("threads", "processes", "serial")
GIVE_UP = 3.0
NEAR = 1.15
MOST = 1.10
LONG = 1.0
RIGHT = 0.95


class GaveUp(Exception):
    """It takes too long to be the best."""


def run(workload: Workload, kind: str, scale: float, limit: float) -> tuple[float, str]:
    """One run: its seconds, and what was chosen. Raises GaveUp, AssertionError."""
    fn, items = workload.make(scale)
    other = workload.beside(scale) if workload.beside is not None else None
    begin = time.perf_counter()
    found = count = 0
    results: Iterable[Any]
    pool = Pool(kind)
    with pool:
        try:
            beside = pool.map(*other) if other is not None else ()
            if workload.how == "submit":
                results = (future.result() for future in [pool.submit(fn, one) for one in items])
            else:
                results = pool.map(fn, items)
            for result in results:
                found += result is not None
                if time.perf_counter() - begin > limit:
                    raise GaveUp
            count = sum(1 for _ in beside)
        except (GaveUp, CannotPickle):
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        decisions = pool.decisions
    seconds = time.perf_counter() - begin
    wanted = len(list(workload.make(scale)[1])), len(list(other[1])) if other is not None else 0
    if (found, count) != wanted:
        raise AssertionError(f"{workload.name}, {kind}: wrong results")
    name = getattr(fn, "__qualname__", "")
    mine = [one for one in decisions if one.function == name]
    return seconds, mine[-1].kind if mine else "threads"  # not decided: a thread measures it


def compare(workload: Workload, runs: int, scale: float) -> dict[str, Any]:
    """All kinds, interleaved."""
    times: dict[str, list[float]] = {kind: [] for kind in (*KINDS, "auto")}
    chosen: list[str] = []
    racing = [kind for kind in KINDS if not (kind == "processes" and workload.local)]
    for at in range(runs):
        best = min((min(times[kind]) for kind in KINDS if times[kind]), default=60.0)
        order = [*racing, "auto"] if at % 2 else ["auto", *racing]
        for kind in order:
            limit = 600.0 if kind == "auto" else GIVE_UP * best
            try:
                seconds, choice = run(workload, kind, scale, limit)
            except (GaveUp, CannotPickle):
                racing.remove(kind)  # fails for "auto", which is to get round it
                continue
            times[kind].append(seconds)
            if kind == "auto":
                chosen.append(choice)
            else:
                best = min(best, seconds)
    fixed = {kind: min(times[kind]) for kind in KINDS if times[kind]}
    fastest = min(fixed.values())
    right = [
        min(fixed.get(kind, 1e9), seconds) <= fastest * NEAR
        for kind, seconds in zip(chosen, times["auto"], strict=True)
    ]
    return {
        "fixed": fixed,
        "best": min(fixed, key=lambda kind: fixed[kind]),
        "auto": min(times["auto"]),
        "worst": max(times["auto"]),
        "chosen": chosen,
        "right": sum(right),
        "ratio": min(times["auto"]) / fastest,
        "long": fastest >= LONG,
    }


def main() -> int:
    """Print the table; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, add_help=True)
    parser.add_argument("names", nargs="*", help="of workloads; all, if there are none")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    wanted = parser.parse_args()
    runs, scale = (1, 0.05) if wanted.quick else (wanted.runs, 1.0)
    with Pool("processes") as pool:
        pool.submit(abs, 1).result()  # imports, and the fork server, are everybody's
    head = f"{'workload':24}{'kind of work':20}{'threads':>9}{'processes':>11}{'in place':>10}"
    print(f"{head}{'Pool()':>9}{'slowest':>9}{'x best':>8}  chosen", flush=True)
    right = total = 0
    slow: list[str] = []
    loads = [os.getloadavg()[0]]
    for workload in WORKLOADS:
        if wanted.names and workload.name not in wanted.names:
            continue
        row = compare(workload, runs, scale)
        right += row["right"]
        total += len(row["chosen"])
        loads.append(os.getloadavg()[0])
        cells = ""
        for kind, width in zip(KINDS, (9, 11, 10)):
            seconds = row["fixed"].get(kind)
            cells += f"{'-' if seconds is None else f'{seconds:.2f}':>{width}}"
        counts = {kind: row["chosen"].count(kind) for kind in dict.fromkeys(row["chosen"])}
        choice = ", ".join(f"{kind} {count}" for kind, count in counts.items())
        verdict = "" if row["right"] == len(row["chosen"]) else f"  WRONG ({row['best']} is best)"
        if row["long"] and row["ratio"] > MOST:
            slow.append(workload.name)
            verdict += "  SLOW"
        text = (
            f"{workload.name:24}{workload.label:20}{cells}"
            f"{row['auto']:>9.2f}{row['worst']:>9.2f}{row['ratio']:>8.2f}"
        )
        print(f"{text}  {choice}{verdict}", flush=True)
    share = right / max(total, 1)
    print(f"\n{right} of {total} choices right ({share:.1%}; {RIGHT:.0%} are to be)")
    print(f"over {MOST} x the best, of those that last a second: {', '.join(slow) or 'none'}")
    print(f"load of the machine meanwhile, of a minute: {min(loads):.1f} to {max(loads):.1f}")
    if wanted.quick:
        return 0
    return 0 if share >= RIGHT and not slow else 1


if __name__ == "__main__":
    sys.exit(main())
