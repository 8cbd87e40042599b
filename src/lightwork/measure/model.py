"""What each kind and number of workers would give for a function, from what a call measures.

Pure arithmetic: figures of one call, the machine, and how many calls there are go in; seconds and
a verdict come out. Nothing is measured here.

**The law.** A call takes `wall` seconds alone; for a share `cpu` of them it uses a core, for a
share `gil` of them it holds the interpreter's lock. By the utilisation law of queueing theory
(Denning and Buzen, "The Operational Analysis of Queueing Network Models", Computing Surveys
10(3), 1978) no resource is busy for more than all of the time, so that calls end at a rate of at
most::

    in place     1 / wall
    threads      min(workers / wall,  cores / (cpu * wall),  1 / (gil * wall))
    processes    min(workers / wall,  cores / (cpu * wall),  1 / what the parent does for a call)

each with the costs of its kind for a call added (`Costs`). Workers are started first, and a
worker runs whole calls: `calls` of them take at least ``ceil(calls / workers)`` rounds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

__all__ = [
    "COSTS",
    "Costs",
    "Figures",
    "Forecast",
    "Machine",
    "Verdict",
    "Work",
    "choose",
    "forecast",
    "forecasts",
    "human",
    "needed",
]

KINDS = ("serial", "threads", "processes")
"""In this order where they are as good: what is simpler comes first."""

MARGIN = 1.15
"""How many times as fast what is less simple must be to be taken."""

STAY = 1.3
"""How many times as fast another kind must be for a function to leave the one where it is."""

ENOUGH = 1.03
"""The smallest number of workers is taken that is within this of the best number."""

WAITS = 0.5
"""Of which share of a call's time without a core we say that it waits."""


@dataclass(frozen=True, slots=True)
class Costs:
    """What kinds cost, in seconds; measured on the machine that this was built on.

    They only have to be right within a factor of two: what a choice hangs on is measured.
    """

    thread_submit: float = 12e-6  # a call of submit() on a thread, all of it under the GIL
    thread_map: float = 2.2e-6  # a call of a map's chunk
    thread_start: float = 0.15e-3
    process_submit: float = 8e-6  # in the parent; about as much in the worker
    process_map: float = 0.35e-6
    process_boot: float = 90e-3  # the fork server; it boots beside us
    process_start: float = 6e-3
    serial_map: float = 0.15e-6
    each_byte: float = 0.4e-9  # of a large buffer, written on one side and read on the other
    packing_known: float = 5e-6  # of pickling anything at all, which is in the figures above


COSTS = Costs()


@dataclass(frozen=True, slots=True)
class Figures:
    """What calls of a function were measured to take. Seconds, bytes; means of all calls.

    Attributes:
        calls: how many were measured.
        wall: seconds of a call, alone.
        cpu: the share of it for which its thread used a core, from 0 to 1.
        gil: the share of it for which it held the GIL, at most `cpu`.
        spread: standard deviation of `wall`, over the calls.
        bytes_in, bytes_out: size of pickled arguments and results.
        pack_in, pack_out: seconds to pickle them (to rebuild them takes about as long).
        stays: why it cannot run in another process; empty if it can.
        held: whether `gil` was measured, not assumed.
    """

    calls: int
    wall: float
    cpu: float
    gil: float
    spread: float = 0.0
    bytes_in: float = 0.0
    bytes_out: float = 0.0
    pack_in: float = 0.0
    pack_out: float = 0.0
    stays: str = ""
    held: bool = True


@dataclass(frozen=True, slots=True)
class Machine:
    """What there is to run on.

    Attributes:
        cpus: cores that this process may use.
        gil: whether this interpreter has a GIL that is on.
        most_threads, most_processes: how many workers of a kind may be used.
        processes: whether worker processes can be had at all.
        booted: how far the way to the first process has been gone, from 0 (nothing is there)
            to 1 (workers are running).
        costs: what kinds cost.
    """

    cpus: int
    gil: bool = True
    most_threads: int = 64
    most_processes: int = 2
    processes: bool = True
    booted: float = 0.0
    costs: Costs = COSTS


class Work(NamedTuple):
    """The calls that are to be run: how many, whether they come in chunks (``map``), and whether
    they may run in place (``submit`` must not block on work, nor ``map`` for long)."""

    calls: float = math.inf
    chunks: bool = True
    in_place: bool = True


ENDLESS = Work()


class Forecast(NamedTuple):
    """What a kind and number of workers is expected to give."""

    kind: str
    workers: int
    seconds: float  # for all the calls; for endless work, for each call
    speedup: float  # against one call after the other, in place
    limit: str  # what holds it back


class Verdict(NamedTuple):
    """What to use, and why."""

    kind: str
    workers: int
    why: str
    forecasts: tuple[Forecast, ...]  # the best number of workers of each kind that can be had


class _Law(NamedTuple):
    """What a call of a kind needs: `time` of a worker, `core` time, time of what is `single`."""

    time: float
    core: float
    single: float
    single_name: str
    start: float


def _law(figures: Figures, machine: Machine, kind: str, workers: int, chunks: bool) -> _Law:
    costs, wall = machine.costs, figures.wall
    core = figures.cpu * wall
    if kind == "serial":
        over = costs.serial_map if chunks else costs.thread_submit
        return _Law(wall + over, core + over, wall + over, "one thread", 0.0)
    if kind == "threads":
        over = costs.thread_map if chunks else costs.thread_submit
        held = figures.gil * wall if machine.gil else 0.0
        # Our own code for a call holds the GIL, too; without a GIL, it runs beside the rest.
        single = held + over if machine.gil else over / machine.cpus
        start = costs.thread_start * min(workers, 8)
        return _Law(wall + over, core + over, single, "the GIL", start)
    over = costs.process_map if chunks else costs.process_submit
    pack = max(0.0, figures.pack_in - costs.packing_known)
    pack += max(0.0, figures.pack_out - costs.packing_known)
    pack += costs.each_byte * (figures.bytes_in + figures.bytes_out)
    # One side pickles, the other rebuilds, at about the same cost.
    start = 0.0
    if machine.booted < 1.0:
        start = (1.0 - machine.booted) * costs.process_boot + workers * costs.process_start
    return _Law(
        wall + over + pack, core + 2 * (over + pack), over + pack, "the wire to the workers", start
    )


def forecast(
    figures: Figures, machine: Machine, kind: str, workers: int, work: Work = ENDLESS
) -> Forecast:
    """What `workers` workers of `kind` would give. Raises ValueError for an unknown kind."""
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}; known: {', '.join(KINDS)}")
    if kind == "serial":
        workers = 1
    law = _law(figures, machine, kind, workers, work.chunks)
    each = max(
        (law.time / workers, "the number of workers"),
        (law.core / machine.cpus, "the cores"),
        (law.single, law.single_name),
    )
    alone = max(figures.wall, 1e-9)
    if math.isinf(work.calls):
        return Forecast(kind, workers, each[0], alone / max(each[0], 1e-12), each[1])
    rounds = math.ceil(work.calls / workers) * law.time
    busy, limit = work.calls * each[0], each[1]
    if rounds > busy * 1.01:  # else nothing is lost to the last round
        limit = "whole calls on each worker"
    busy = max(busy, rounds)
    seconds = law.start + busy
    if law.start > busy:
        limit = "starting the workers"
    return Forecast(kind, workers, seconds, work.calls * alone / max(seconds, 1e-12), limit)


def needed(figures: Figures, machine: Machine, kind: str, work: Work = ENDLESS) -> int:
    """The smallest number of workers that is about as good as any number of that kind."""
    if kind == "serial":
        return 1
    most = machine.most_threads if kind == "threads" else machine.most_processes
    if work.calls < most:
        most = max(1, int(work.calls))
    best = min(forecast(figures, machine, kind, n, work).seconds for n in _sizes(most))
    return next(
        n
        for n in _sizes(most)
        if forecast(figures, machine, kind, n, work).seconds <= best * ENOUGH
    )


def _sizes(most: int) -> list[int]:
    """1, 2, 3, ... up to 16, then by steps of about an eighth, and `most` itself."""
    sizes, n = [], 1
    while n < most:
        sizes.append(n)
        n += max(1, n // 8)
    return [*sizes, most]


def forecasts(figures: Figures, machine: Machine, work: Work = ENDLESS) -> tuple[Forecast, ...]:
    """The best number of workers of each kind that can be had."""
    kinds = [kind for kind in KINDS if kind != "serial" or (work.chunks and work.in_place)]
    if figures.stays or not machine.processes:
        kinds.remove("processes")
    return tuple(
        forecast(figures, machine, kind, needed(figures, machine, kind, work), work)
        for kind in kinds
    )


def choose(
    figures: Figures, machine: Machine, work: Work = ENDLESS, *, current: str | None = None
) -> Verdict:
    """Take the fastest kind by a clear margin; the simpler one where there is none.

    Args:
        current: the kind where the function runs now; it takes more to leave it.
    """
    found = forecasts(figures, machine, work)
    best = found[0]
    for one in found[1:]:
        if one.seconds * MARGIN < best.seconds:
            best = one
    # What was taken first may be behind by several small margins.
    fastest = min(found, key=lambda one: one.seconds)
    if fastest.seconds * MARGIN < best.seconds:
        best = fastest
    for one in found:
        if one.kind == current and one.seconds <= best.seconds * STAY:
            best = one
    return Verdict(best.kind, best.workers, _why(figures, machine, best, found), found)


def _why(figures: Figures, machine: Machine, best: Forecast, found: tuple[Forecast, ...]) -> str:
    """The reasons in words and figures."""
    text = f"a call takes {human(figures.wall)}, uses a core for {figures.cpu:.0%} of it"
    if not machine.gil:
        text += ", and there is no GIL"
    elif figures.held:
        text += f" and holds the GIL for {figures.gil:.0%}"
    else:
        text += f" and is taken to hold the GIL for {figures.gil:.0%}"
    if figures.stays:
        text += f"; it cannot go to a process: {figures.stays}"
    if best.kind == "serial":
        reason = "too little work to pay for workers"
        if all(one.speedup < MARGIN * best.speedup for one in found):
            reason = "no workers would be faster"
    elif best.kind == "processes":
        reason = "it computes in Python"
    elif figures.cpu < WAITS:
        reason = "it waits most of the time"
    elif figures.stays:
        reason = "so it stays on threads"
    elif figures.cpu - figures.gil > WAITS * figures.cpu or not machine.gil:
        reason = "it computes without the GIL"
    else:
        reason = "it is not worth the way to a process"
    gain = f"expected speed-up {best.speedup:.3g}"
    others = [f"{one.kind} {one.speedup:.3g}" for one in found if one.kind != best.kind]
    others = [one.replace("serial", "in place") for one in others]
    return f"{text}; {reason} ({gain}{'; ' * bool(others)}{', '.join(others)})"


def human(seconds: float) -> str:
    """Seconds for people: ``3.2 ms``."""
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if seconds * factor >= 0.9995 or unit == "us":  # what is shown as 1000 is 1
            return f"{seconds * factor:.3g} {unit}"
    raise AssertionError(seconds)
