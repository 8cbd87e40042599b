"""The figures and plots of docs/threads-or-processes.md, measured by the tool that it is about.

``python benchmarks/guide.py [--write] [--repeats N] [--quick] [NAME ...]``

The functions are those that the page shows: its block ``# work.py`` is what is measured. Each is
given to ``advise`` and then to ``sweep``, with threads and with processes. Two tables are printed;
with ``--write`` they take the place of those in the page, and the plots are drawn beside it.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import platform
import re
import sys
import tempfile
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lightwork import Advice, Sweep, advise, sweep

PAGE = Path(__file__).parents[1] / "docs" / "threads-or-processes.md"
SIZES = (1, 2, 4, 8)
KINDS = ("threads", "processes")
ASKED = 1000
"""Calls for which ``advise`` is asked."""

BUSY = 0.3
"""Load for each core above which the page says that the machine was not idle."""


class Work(NamedTuple):
    """A function of the page, on how many items it is measured, and what its plot is called."""

    name: str
    calls: int
    plot: str


WORKS = (
    Work("parse", 100, "scaling-computing.svg"),
    Work("fetch", 64, "scaling-waiting.svg"),
    Work("digest", 100, "scaling-without-gil.svg"),
    Work("both", 64, "scaling-both.svg"),
    Work("add", 1000, "scaling-too-small.svg"),
)


class Measured(NamedTuple):
    """What was found for one function."""

    work: Work
    advice: Advice
    sweep: Sweep


def functions(folder: str) -> Any:
    """The page's own functions, as a module that worker processes can import, too."""
    block = re.search(r"```python\n(# work\.py\n.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert block is not None, "the page has no block that begins with `# work.py`"
    Path(folder, "work.py").write_text(block[1], encoding="utf-8")
    sys.path.insert(0, folder)
    return importlib.import_module("work")


def measure(work: Work, function: Callable[[int], Any], repeats: int, scale: float) -> Measured:
    """Ask, then try."""
    calls = max(2, round(work.calls * scale))
    advice = advise(function, range(calls), calls=ASKED)
    found = sweep(function, range(calls), SIZES, KINDS, repeats=repeats)
    return Measured(work, advice, found)


def seconds(value: float) -> str:
    """As a person would say it."""
    for unit, factor in (("s", 1.0), ("ms", 1e3)):
        if value * factor >= 1:
            return f"{value * factor:.3g} {unit}"
    return f"{value * 1e6:.3g} µs"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def forecasts(found: Sequence[Measured]) -> str:
    """What ``advise`` says of each: measured, concluded, expected."""
    head = ["", "time of a call", "on a core", "with the GIL", "verdict"]
    head += ["expected of threads", "of processes"]
    rows = []
    for one in found:
        advice, evidence = one.advice, one.advice.evidence
        best = dict.fromkeys(("serial", *KINDS), 0.0)  # speed-ups
        for forecast in advice.forecasts:
            best[forecast.kind] = max(best[forecast.kind], forecast.speedup)
        where = f"{advice.workers} {advice.kind}" if advice.kind != "serial" else "in place"
        assumed = "" if evidence.held else ", assumed"
        rows.append(
            [
                f"`{one.work.name}`",
                seconds(evidence.wall),
                f"{evidence.cpu:.0%}",
                f"{evidence.gil:.0%}{assumed}",
                where,
                *(f"{best[kind]:.3g} ×" for kind in KINDS),
            ]
        )
    return markdown(head, rows)


def speedups(found: Sequence[Measured]) -> str:
    """What ``sweep`` has measured for each pool, against in place."""
    head = ["", "in place"]
    head += [f"{n} {'thread' if n == 1 else 'threads'}" for n in SIZES]
    head += [f"{n} {'process' if n == 1 else 'processes'}" for n in SIZES]
    head += ["use"]
    rows = []
    for one in found:
        at = {(row.kind, row.workers): row for row in one.sweep.rows}
        best = one.sweep.best
        use = "in place" if best.kind == "serial" else f"{best.workers} {best.kind}"
        cells = [f"{at[kind, n].speedup:.2f}" for kind in KINDS for n in SIZES]
        rows.append([f"`{one.work.name}`", seconds(at["serial", 1].seconds), *cells, use])
    return markdown(head, rows)


def conditions(found: Sequence[Measured]) -> str:
    """What all of it was measured under."""
    first = found[0].sweep
    rounds = f"medians of {first.rounds} rounds" if first.rounds > 1 else "one round"
    text = (
        f"Measured by `make figures` on {datetime.date.today()}: {rounds}, {first.cpus} cores, "
        f"Python {platform.python_version()}, {platform.system()}"
    )
    if first.load > BUSY * first.cpus:  # the others' load is of those before them
        text += (
            f", while other programs used the machine as well (load {first.load:.1f}), so that "
            "times are longer and speed-ups smaller than they need be"
        )
    else:
        text += ", otherwise idle"
    return textwrap.fill(text + ".", 100)


def write(found: Sequence[Measured]) -> None:
    """Put tables into the page, between their marks, and plots beside it."""
    text = PAGE.read_text("utf-8")
    for name, table in (("forecasts", forecasts(found)), ("speed-ups", speedups(found))):
        mark, end = f"<!-- {name}: benchmarks/guide.py -->\n", f"<!-- end of {name} -->"
        assert mark in text, f"{PAGE.name} has no mark for the {name}"
        before, _, rest = text.partition(mark)
        assert end in rest, f"{PAGE.name} has no end of the {name}"
        after = rest.partition(end)[2]
        text = f"{before}{mark}\n{table}\n\n{conditions(found)}\n\n{end}{after}"
    PAGE.write_text(text, "utf-8")
    for one in found:
        one.sweep.plot(PAGE.parent / one.work.plot)


def main() -> int:
    """Measure, and show; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="of functions; all, if there are none")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="into the page")
    parser.add_argument("--quick", action="store_true", help="only see that it runs")
    wanted = parser.parse_args()
    if wanted.write and (wanted.names or wanted.quick):
        parser.error("--write is for all functions, measured in full")
    repeats, scale = (1, 0.02) if wanted.quick else (wanted.repeats, 1.0)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        module = functions(folder)
        for work in WORKS:
            if not wanted.names or work.name in wanted.names:
                print(f"{work.name} ...", file=sys.stderr, flush=True)
                found.append(measure(work, getattr(module, work.name), repeats, scale))
    if not found:
        parser.error(f"no such function; known: {', '.join(work.name for work in WORKS)}")
    print(forecasts(found), speedups(found), conditions(found), sep="\n\n")
    if wanted.write:
        write(found)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
