"""``advise``: threads, processes or neither, for one function, with the evidence."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Any

from ..errors import CannotPickle
from .closed import Look
from .gil import has_gil
from .model import Figures, Forecast, Machine, Verdict, Work, choose, forecast, human, needed
from .probe import Packing, Probe, packing, watch

__all__ = ["Advice", "advise"]

SECONDS = 0.5
"""Seconds for which calls are measured, if there are so many items."""

MOST = 200
"""Items that are measured at most."""


@dataclass(frozen=True)
class Advice:
    """What to use for a function, and why. ``print(advice)`` shows it all.

    Attributes:
        function: its name.
        kind: ``"threads"``, ``"processes"`` or ``"serial"`` (in place).
        workers: how many.
        why: the reason, in words and figures.
        evidence: what was measured: wall time, share of a core, share of the time with the GIL,
            bytes and seconds of pickling each way, spread; see ``measure.model.Figures``.
        forecasts: what each kind and number of workers is expected to give.
        measured: seconds that runs of these (kind, workers) took, with ``verify=True``; and
            ``("serial", 1)`` what they are compared with.
        changes: what would change the verdict.
        work: how many calls it is for.
        machine: what there is to run on.
    """

    function: str
    kind: str
    workers: int
    why: str
    evidence: Figures
    forecasts: tuple[Forecast, ...]
    changes: tuple[str, ...]
    work: Work
    machine: Machine
    measured: dict[tuple[str, int], float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        from dataclasses import asdict

        found = asdict(self)
        found["forecasts"] = [one._asdict() for one in self.forecasts]
        found["work"] = {
            "calls": None if self.work.calls == float("inf") else int(self.work.calls),
        }
        found["measured"] = [
            {"kind": kind, "workers": workers, "seconds": seconds}
            for (kind, workers), seconds in self.measured.items()
        ]
        return found

    def __str__(self) -> str:
        from .tables import advice_text

        return advice_text(self)


def advise(
    fn: Callable[..., Any],
    items: Iterable[Any],
    *,
    calls: int | None = None,
    star: bool = False,
    max_workers: int | None = None,
    verify: bool = False,
) -> Advice:
    """Measure `fn` on some of `items`, in this thread, and say where it would run best.

    The calls are real: up to half a second of them, or 200, and more with `verify`. An exception
    of the function's ends the measurement as it is, with a note that names the call.

    Args:
        items: what it is called with; as many are read as are measured.
        calls: how many calls there are to be; None: as many as there are items, where that is
            known, else as many as one likes.
        star: whether an item is the arguments of a call, not its one argument.
        max_workers: of a kind, at most.
        verify: run the items that were measured on each kind, too, and tell the times.

    Raises:
        ValueError: if there is no item. Whatever `fn` raises.
    """
    from operator import length_hint

    from ..backends.processes.limits import usable_cpus

    hint = length_hint(items, -1)
    if calls is None and hint >= 0:
        calls = hint
    work = Work(float("inf") if calls is None else float(calls), True)
    cpus = usable_cpus()
    machine = _machine(max_workers, cpus)
    taken, figures = _measure(fn, iter(items), star)
    verdict = choose(figures, machine, work)
    return Advice(
        function=_name(fn),
        kind=verdict.kind,
        workers=verdict.workers,
        why=verdict.why,
        evidence=figures,
        forecasts=_table(figures, machine, work),
        changes=tuple(_changes(figures, machine, work, verdict, _machine(max_workers, 4 * cpus))),
        work=work,
        machine=machine,
        measured=_verify(fn, taken, star, verdict, machine) if verify else {},
    )


def _name(fn: Any) -> str:
    inner = fn
    while callable(found := getattr(inner, "func", None)):
        inner = found
    return getattr(inner, "__qualname__", None) or type(inner).__qualname__


def _short(args: tuple[Any, ...]) -> str:
    """The arguments of a call, as they would be written."""
    import reprlib

    text = ", ".join(map(reprlib.repr, args))
    return f"({text})"


def _machine(max_workers: int | None, cpus: int) -> Machine:
    return Machine(
        cpus=cpus,
        gil=has_gil(),
        most_threads=max_workers or 128,
        most_processes=max_workers or 2 * cpus,
    )


def _measure(fn: Callable[..., Any], items: Any, star: bool) -> tuple[list[Any], Figures]:
    """Call it, again and again, under a probe."""
    first = list(islice(items, 1))
    if not first:
        raise ValueError("advise() needs at least one item to measure")
    items = chain(first, items)
    taken: list[Any] = []
    probe = Probe()
    facts: dict[str, Any] = {}

    def run() -> None:
        begin = time.perf_counter()
        while len(taken) < MOST and (not taken or time.perf_counter() - begin < SECONDS):
            item = next(items, facts)
            if item is facts:
                return
            taken.append(item)
            args = tuple(item) if star else (item,)
            look = Look(fn, args) if len(taken) <= 3 else None
            probe.begin()
            try:
                value = fn(*args)
            except BaseException as error:
                error.add_note(f"lightwork: {_name(fn)}{_short(args)}, index {len(taken) - 1}")
                raise
            finally:
                probe.end()
            if look is not None:
                facts["changed"] = look.changed()
            if "out" not in facts:
                facts["args"], facts["out"] = args, packing(value, "the result", 0.05)

    watch(run, probe, measure=False)
    probe.close()
    packed_in = _pack_in(fn, facts["args"])
    packed_out: Packing = facts["out"]
    stays = packed_in.error or packed_out.error
    if facts.get("changed"):
        stays = f"a call has changed {facts['changed']}, outside of itself"
    return taken, probe.figures(
        bytes_in=packed_in.bytes,
        bytes_out=packed_out.bytes,
        pack_in=packed_in.seconds,
        pack_out=packed_out.seconds,
        stays=stays,
    )


def _pack_in(fn: Callable[..., Any], args: tuple[Any, ...]) -> Packing:
    from ..wire.pickling import dump_bytes

    try:
        dump_bytes(fn, what=f"the function {_name(fn)}")
    except CannotPickle as error:
        return Packing(0.0, 0.0, str(error))
    return packing(args, "the arguments", 0.05)


def _table(figures: Figures, machine: Machine, work: Work) -> tuple[Forecast, ...]:
    """Each kind with the numbers of workers that one might think of."""
    found = [forecast(figures, machine, "serial", 1, work)]
    for kind in ("threads", "processes"):
        if kind == "processes" and (figures.stays or not machine.processes):
            continue
        most = machine.most_threads if kind == "threads" else machine.most_processes
        best = needed(figures, machine, kind, work)
        sizes = {1, 2, machine.cpus, 2 * machine.cpus, best}
        found += [
            forecast(figures, machine, kind, size, work)
            for size in sorted(size for size in sizes if size <= most)
        ]
    return tuple(found)


def _changes(
    figures: Figures, machine: Machine, work: Work, verdict: Verdict, larger: Machine
) -> list[str]:
    """What would have to be otherwise for another kind to be better."""
    found = []
    cases: list[tuple[str, Figures, Machine, Work]] = []
    if work.calls != float("inf"):
        counts = [work.calls * factor for factor in (100, 10, 1 / 10, 1 / 100)]
        cases += [
            (f"{calls:,.0f} call{'s' * (round(calls) != 1)}", figures, machine, Work(calls, True))
            for calls in counts
            if calls >= 1
        ]
    for factor in (100, 10, 1 / 10, 1 / 100):
        longer = replace(figures, wall=figures.wall * factor)
        cases.append((f"calls of {human(longer.wall)}", longer, machine, work))
    if machine.gil and figures.gil > 0.1:
        free = replace(figures, gil=0.02)
        cases.append(("code that lets go of the GIL, such as NumPy's", free, machine, work))
        cases.append(("an interpreter without a GIL", figures, replace(machine, gil=False), work))
    if figures.stays:
        cases.append(("if it could go to a process", replace(figures, stays=""), machine, work))
    if figures.bytes_in + figures.bytes_out > 1 << 20:
        less = replace(figures, bytes_in=0, bytes_out=0, pack_in=0, pack_out=0)
        cases.append(("arguments and results that need not travel", less, machine, work))
    cases.append((f"{larger.cpus} cores", figures, larger, work))
    seen = {verdict.kind}
    for what, one, there, much in cases:
        other = choose(one, there, much)
        if other.kind not in seen:
            seen.add(other.kind)
            where = "in place" if other.kind == "serial" else other.kind
            found.append(f"with {what}: {where}".replace("with if ", "if "))
    return found


def _verify(
    fn: Callable[..., Any], items: list[Any], star: bool, verdict: Verdict, machine: Machine
) -> dict[tuple[str, int], float]:
    """Run the same calls on the best size of each kind, interleaved; medians of three."""
    from statistics import median

    from lightwork import Pool

    sizes = {one.kind: one.workers for one in verdict.forecasts} | {"serial": 1}
    times: dict[tuple[str, int], list[float]] = {}
    pools = {kind: Pool(kind, workers) for kind, workers in sizes.items()}
    columns: Any = list(zip(*items)) if star else [items]
    try:
        for pool in pools.values():
            list(pool.map(fn, *[column[:1] for column in columns]))  # workers start, code is loaded
        for _ in range(3):
            for kind, pool in pools.items():
                begin = time.perf_counter()
                for _value in pool.map(fn, *columns):
                    pass
                key = (kind, sizes[kind])
                times.setdefault(key, []).append(time.perf_counter() - begin)
    finally:
        for pool in pools.values():
            pool.shutdown()
    return {key: median(found) for key, found in times.items()}
