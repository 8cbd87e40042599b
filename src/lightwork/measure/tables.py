"""Advice and sweeps as text, for a terminal."""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from typing import TYPE_CHECKING

from .model import Figures, human

if TYPE_CHECKING:
    from .advise import Advice
    from .sweep import Sweep

__all__ = ["advice_text", "sweep_text", "table"]

BUSY = 0.3
"""Load for each core above which a sweep says that others were in the way."""

PLACES = {"serial": "in place", "threads": "threads", "processes": "processes"}


def table(rows: Sequence[Sequence[str]], *, left: Container[int] = (0,)) -> str:
    """Columns of even width: those whose numbers are in `left` flush left, the others right."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if at in left else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _size(bytes_: float) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if bytes_ >= factor:
            return f"{bytes_ / factor:.3g} {unit}"
    return f"{bytes_:.0f} B"


def advice_text(advice: Advice) -> str:
    """The verdict, the evidence, what each kind would give, what would change it, the criteria."""
    one = advice.evidence
    where = PLACES[advice.kind]
    size = "" if advice.kind == "serial" else f", {advice.workers} of them"
    calls = "as many calls as you like"
    if not math.isinf(advice.work.calls):
        calls = f"{advice.work.calls:,.0f} calls"
    parts = [f"{advice.function}: {where}{size}, for {calls}\n{advice.why}"]
    held = f"{one.gil:.0%}" if one.held else f"{one.gil:.0%} (assumed: too short to measure)"
    evidence = [
        ("calls measured", f"{one.calls:,}"),
        ("time of a call", f"{human(one.wall)}, spread {human(one.spread)}"),
        ("of it, using a core", f"{one.cpu:.0%}"),
        ("of it, holding the GIL", held if advice.machine.gil else "there is no GIL"),
        ("arguments", f"{_size(one.bytes_in)}, pickled in {human(one.pack_in)}"),
        ("result", f"{_size(one.bytes_out)}, pickled in {human(one.pack_out)}"),
        ("cores to use", str(advice.machine.cpus)),
    ]
    if one.stays:
        evidence.append(("stays in this process", one.stays))
    parts.append("\n".join(f"  {name:24}{value}" for name, value in evidence))
    head = ["kind", "workers", "expected", "speed-up"]
    measured = advice.measured
    if measured:
        head += ["measured", "speed-up"]
    head.append("held back by")
    alone = measured.get(("serial", 1), 0.0)
    rows = [head]
    for found in advice.forecasts:
        seconds = human(found.seconds) + ("" if advice.work.calls < math.inf else " a call")
        row = [
            PLACES[found.kind],
            str(found.workers),
            seconds,
            f"{found.speedup:.3g} x",
        ]
        if measured:
            real = measured.get((found.kind, found.workers))
            row += ["", ""] if real is None else [human(real), f"{alone / real:.3g} x"]
        row.append("one thread" if found.kind == "serial" else found.limit)
        rows.append(row)
    parts.append(table(rows, left=(0, len(head) - 1)))
    if measured:
        parts.append(f"(measured: the {one.calls:,} calls above, workers being there already)")
    if advice.changes:
        parts.append("It would be otherwise\n" + "\n".join(f"  {one}" for one in advice.changes))
    parts.append(table(criteria(one), left=range(4)))
    return "\n\n".join(parts)


def criteria(one: Figures) -> list[list[str]]:
    """The classic criteria for the choice, and how this function stands to each."""
    if one.cpu < 0.5:
        task = f"waits {1 - one.cpu:.0%} of the time"
    elif one.gil > 0.5 * one.cpu:
        task = f"computes in Python, {one.gil:.0%}"
    else:
        task = f"computes without the GIL, {one.cpu - one.gil:.0%}"
    share = (one.pack_in + one.pack_out) / one.wall
    sharing = "none seen"
    if "changed" in one.stays or "changes" in one.stays:
        sharing = one.stays
    elif one.stays:
        sharing = "holds what cannot travel"
    isolation = "cannot go to a process" if one.stays else "can go to a process"
    return [
        ["criterion", "threads", "processes", "this function"],
        ["task type", "waiting, or C code without the GIL", "computing in Python", task],
        ["sharing", "all objects, guarded by locks", "copies, or lightwork.share", sharing],
        ["isolation", "a crash ends the program", "a crash ends one task", isolation],
        [
            "communication",
            "nothing to pickle",
            "arguments and results are pickled",
            f"{_size(one.bytes_in + one.bytes_out)} a call, {share:.1%} of its time",
        ],
    ]


def sweep_text(sweep: Sweep) -> str:
    """The table of pool sizes, the fit, and the size to use."""
    rows = [["kind", "workers", "median", "best", "worst", "speed-up", "efficiency", "start-up"]]
    for row in sweep.rows:
        best = " *" if row == sweep.best else ""
        rows.append(
            [
                PLACES[row.kind] + best,
                str(row.workers),
                human(row.seconds),
                human(row.low),
                human(row.high),
                f"{row.speedup:.2f} x",
                f"{row.efficiency:.0%}",
                human(row.start) if row.start else "-",
            ]
        )
    counts = ((sweep.calls, "call"), (sweep.rounds, "round"), (sweep.cpus, "core"))
    notes = ["all results were as in place"]
    if not sweep.compared:
        notes = ["some results can be compared neither by == nor as bytes, and were not"]
    if any(row.kind == "processes" for row in sweep.rows):
        notes.append("the first processes to start bring up what starts the others, too")
    if sweep.load > BUSY * sweep.cpus:
        notes.append(f"the machine was busy (load {sweep.load:.1f}): times are longer than need be")
    parts = [
        f"{sweep.function}: " + ", ".join(f"{n:,} {name}{'s' * (n != 1)}" for n, name in counts),
        table(rows),
        f"({'; '.join(notes)})",
        "\n".join(f"{fit.kind}: {fit.text}" for fit in sweep.fit),
        f"Use {sweep.why}.",
    ]
    return "\n\n".join(part for part in parts if part)
