"""``sweep``: how long the same calls take with each number of workers, and which number to use.

Every pool is opened once, and then each of them runs all items once in every round, one after the
other, so that whatever else the machine does meets them all alike. To start the workers is timed
apart from the work. All results are compared with those of one worker.
"""

from __future__ import annotations

import math
import os
import pickle
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, NamedTuple

from .model import human
from .scaling import Amdahl, TooFewPoints, Usl, fit_amdahl, fit_usl

__all__ = ["Fit", "Row", "Sweep", "WrongResults", "sweep"]

CLOSE = 1.03
"""A smaller pool is taken if it is within this of the fastest one."""

HOLD = 0.01
"""Seconds that each worker is held at the start, so that all of them have to come."""

POOR = 0.2
"""Misfit above which a law does not describe what was measured."""

KINDS = ("processes", "threads", "serial")
ONE = {"processes": "process", "threads": "thread"}


class WrongResults(AssertionError):
    """A pool gave other results than one worker did; the message says which item."""


class Row(NamedTuple):
    """One pool, measured. Seconds; `low` and `high` are the best and the worst round."""

    kind: str
    workers: int
    seconds: float  # median of the rounds
    low: float
    high: float
    start: float  # to start the workers; not in the others
    speedup: float  # against the calls one after the other, in place
    efficiency: float  # speed-up for each worker


class Fit(NamedTuple):
    """Laws of scaling, fitted to the rows of a kind; None where there were too few, as `text` says.

    Speed-ups are against one worker of the kind.
    """

    kind: str
    amdahl: Amdahl | None
    usl: Usl | None
    one: float  # seconds with one worker
    text: str


@dataclass(frozen=True)
class Sweep:
    """What `sweep` has measured. ``print(sweep)`` shows the table.

    Attributes:
        function: its name.
        calls: how many items there were.
        rows: one for each pool, ``serial`` (in place) first.
        best: the row to use: the fewest workers within 3 % of the fastest.
        why: the reasons, in words and figures.
        fit: for each kind, the laws that were fitted, and the peak that they predict.
        rounds: how often each was measured.
        cpus: cores that this process may use.
        load: how many programs wanted a core in the minute before (the system's load average; 0 if
            it has none). With more than a few tenths, others were in the way.
        compared: whether all results could be compared with those in place. What has no `==` of
            its own and cannot be pickled cannot be.
    """

    function: str
    calls: int
    rows: tuple[Row, ...]
    best: Row
    why: str
    fit: tuple[Fit, ...]
    rounds: int
    cpus: int
    load: float = 0.0
    compared: bool = True

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        return {
            "function": self.function,
            "calls": self.calls,
            "rounds": self.rounds,
            "cpus": self.cpus,
            "load": self.load,
            "compared": self.compared,
            "rows": [row._asdict() for row in self.rows],
            "best": self.best._asdict(),
            "why": self.why,
            "fit": [
                {
                    "kind": one.kind,
                    "text": one.text,
                    "one_worker": one.one,
                    "amdahl": None if one.amdahl is None else one.amdahl._asdict(),
                    "usl": None
                    if one.usl is None
                    else one.usl._asdict()
                    | {"peak": None if math.isinf(one.usl.peak) else one.usl.peak},
                }
                for one in self.fit
            ],
        }

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw speed-up over workers into a PNG, SVG or PDF file, as its name ends.

        Raises MissingExtra without matplotlib (``pip install 'lightwork[plot]'``).
        """
        from .plot import plot

        plot(self, path)

    def __str__(self) -> str:
        from .tables import sweep_text

        return sweep_text(self)


def sweep(
    fn: Callable[..., Any],
    items: Iterable[Any],
    workers: Sequence[int] = (1, 2, 4, 8),
    kinds: Sequence[str] = ("processes",),
    *,
    repeats: int = 5,
    star: bool = False,
    on_progress: Callable[[int, int, str], None] | None = None,
) -> Sweep:
    """Run ``fn`` on all `items` with pools of each size, `repeats` times, and compare.

    Args:
        items: read once, and kept.
        workers: the numbers of workers.
        kinds: of the workers: ``"processes"``, ``"threads"``.
        repeats: rounds; of each pool the median and the spread are told.
        star: whether an item is the arguments of a call, not its one argument.
        on_progress: called with runs done, runs to do, and what is being run now.

    Raises:
        ValueError: nothing to do, or an unknown kind. WrongResults: results differ between pools.
        Whatever `fn` raises.
    """
    from lightwork import Pool

    from ..backends.processes.limits import usable_cpus
    from .advise import _name

    given = list(items)
    sizes = sorted(set(workers))
    if not given or not sizes or repeats < 1:
        raise ValueError("sweep() needs at least one item, one number of workers and one round")
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f"unknown kind {kind!r}; known: {', '.join(KINDS)}")
    columns: Any = list(zip(*given)) if star else [given]
    wanted = [(kind, size) for kind in dict.fromkeys(kinds) if kind != "serial" for size in sizes]
    keys = [("serial", 1), *wanted]
    total, done = len(keys) * (repeats + 1), 0

    def tell(what: str) -> None:
        if on_progress is not None:
            on_progress(done, total, what)

    pools: dict[tuple[str, int], Pool] = {}
    starts: dict[tuple[str, int], float] = {}
    times: dict[tuple[str, int], list[float]] = {key: [] for key in keys}
    expected: list[Any] = []
    load, compared = _load(), True
    with ExitStack() as stack:
        for key in keys:
            tell(f"starting {_called(*key)}")
            begin = time.perf_counter()
            pool = pools[key] = stack.enter_context(Pool(*key))
            starts[key] = _start(pool, begin)
            # The first run loads the function's code; it is checked, and not counted.
            found = list(pool.map(fn, *columns))
            expected = expected or found  # those in place come first
            compared &= _check(expected, found, key)
            done += 1
        for at in range(repeats):
            for key, pool in pools.items():
                tell(f"round {at + 1} of {repeats}: {_called(*key)}")
                begin = time.perf_counter()
                found = list(pool.map(fn, *columns))
                times[key].append(time.perf_counter() - begin)
                _check(expected, found, key)
                done += 1
    tell("")
    summary = _summary(_name(fn), len(given), times, starts, repeats, usable_cpus())
    return replace(summary, load=load, compared=compared)


def _load() -> float:
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):  # not every system has one
        return 0.0


def _called(kind: str, workers: int) -> str:
    if kind == "serial":
        return "in place"
    return f"1 {ONE[kind]}" if workers == 1 else f"{workers} {kind}"


def _start(pool: Any, begin: float) -> float:
    """Have all workers started; return how long it took since `begin`."""
    if pool.kind == "serial":
        return 0.0
    for future in [pool.submit(time.sleep, HOLD) for _ in range(pool.max_workers)]:
        future.result()
    return max(0.0, time.perf_counter() - begin - HOLD)


def _check(expected: list[Any], found: list[Any], key: tuple[str, int]) -> bool:
    """Whether all could be compared. Raises WrongResults for those that differ."""
    compared = True
    for at, (one, other) in enumerate(zip(expected, found, strict=True)):
        same = _same(one, other)
        if same is None:
            compared = False
        elif not same:
            raise WrongResults(
                f"{_called(*key)}: the result for item {at} is not what it was in place: "
                f"{_short(other)}, not {_short(one)}"
            )
    return compared


def _same(one: Any, other: Any) -> bool | None:
    """None: they can be compared neither as they are nor as bytes."""
    try:
        if bool(one == other):
            return True
    except Exception:
        pass  # an array says for each element; compared as bytes, below
    try:
        return pickle.dumps(one) == pickle.dumps(other)
    except Exception:
        return None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _summary(
    function: str,
    calls: int,
    times: dict[tuple[str, int], list[float]],
    starts: dict[tuple[str, int], float],
    rounds: int,
    cpus: int,
) -> Sweep:
    """From seconds to a verdict. Pure."""
    alone = median(times["serial", 1])
    rows = []
    for (kind, workers), found in times.items():
        middle = median(found)
        speedup = alone / middle
        rows.append(
            Row(
                kind,
                workers,
                middle,
                min(found),
                max(found),
                starts[kind, workers],
                speedup,
                speedup / workers,
            )
        )
    fastest = min(rows, key=lambda row: row.seconds)
    best = min(
        (row for row in rows if row.seconds <= fastest.seconds * CLOSE),
        key=lambda row: (row.workers, row.kind != "serial", row.seconds),
    )
    fits = tuple(
        _fit(kind, [row for row in rows if row.kind == kind], alone)
        for kind in dict.fromkeys(row.kind for row in rows)
        if kind != "serial"
    )
    return Sweep(
        function,
        calls,
        tuple(rows),
        best,
        _why(rows, best, calls, cpus, alone),
        fits,
        rounds,
        cpus,
    )


def _fit(kind: str, rows: list[Row], alone: float) -> Fit:
    one = next((row.seconds for row in rows if row.workers == 1), alone)
    points = [(row.workers, one / row.seconds) for row in rows]
    amdahl: Amdahl | None = None
    usl: Usl | None = None
    try:
        amdahl = fit_amdahl(points)
        text = f"Amdahl: {amdahl.serial:.1%} of the work is serial"
        if not math.isinf(amdahl.limit):
            text += f", so at most {amdahl.limit:.3g} x"
        usl = fit_usl(points)
        text += (
            f"; USL: contention {usl.contention:.1%}, crosstalk {usl.crosstalk:.2%}, "
            + ("no peak" if math.isinf(usl.peak) else f"peak at {usl.peak:.3g} workers")
            + f" (misfit {usl.error:.1%}{': it does not tell much' * (usl.error > POOR)})"
        )
    except TooFewPoints as few:
        text = str(few) if amdahl is None else f"{text}; {few}"
    return Fit(kind, amdahl, usl, one, text)


def _why(rows: list[Row], best: Row, calls: int, cpus: int, alone: float) -> str:
    text = _called(best.kind, best.workers)
    each = alone / calls
    reasons = [f"a call takes {human(each)}"]
    one = next((row for row in rows if row.kind == best.kind and row.workers == 1), None)
    if best.kind != "serial":
        text += f": {best.speedup:.3g} x in place"
        if one is not None and one.seconds > alone:
            reasons.append(f"a worker adds {human((one.seconds - alone) / calls)} to it")
    elif len(rows) > 1:
        reasons.append("what workers cost is more than they save")
    more = [row for row in rows if row.kind == best.kind and row.workers > best.workers]
    if more and best.kind != "serial":
        after = min(more, key=lambda row: row.workers)
        gain = best.seconds / after.seconds
        reasons.append(f"{after.workers} {best.kind} give {gain:.3g} x of that")
    if best.workers >= cpus and best.kind == "processes":
        reasons.append(f"there {'is' if cpus == 1 else 'are'} {cpus} core{'s' * (cpus != 1)}")
    if best.kind != "serial" and best.start > best.seconds:
        reasons.append(f"but to start them takes {human(best.start)}: keep the pool")
    return f"{text} ({'; '.join(reasons)})"
