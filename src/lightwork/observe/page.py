"""A report as one HTML page that needs nothing but itself.

The page is ``page.html`` with the figures put in as JSON. What it draws, it draws from these; no
file, font or server is asked for (its content security policy forbids it). Of long runs the
timeline is thinned out: neighbours that would share a pixel become one bar, which tells how many
calls it stands for.
"""

from __future__ import annotations

import json
import os
import re
from array import array
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from .history import History

if TYPE_CHECKING:
    from .report import Report

__all__ = ["bars", "write"]

MOST_BARS = 120_000
"""Bars in the page's timeline; about two megabytes."""

_PLACE = "/*the figures*/"


def write(report: Report, history: History, path: str | os.PathLike[str]) -> None:
    """Write the page. Raises OSError."""
    figures = report.to_dict()
    # A terminal may not have the letter, a page has.
    figures["hints"] = [re.sub(r"(?<=\d )us\b", "µs", one) for one in figures["hints"]]
    figures["bars"] = bars(report, history)
    figures["wall"] = history.wall
    figures["function_names"] = history.functions
    text = json.dumps(figures, separators=(",", ":"), allow_nan=False)
    # Neither "</script>" nor "<!--" may stand in there, whatever an item is called.
    text = text.replace("<", "\\u003c")
    page = files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    before, _, after = page.partition(_PLACE)
    with open(path, "w", encoding="utf-8") as file:
        file.writelines((before, text, after))


def bars(report: Report, history: History) -> list[dict[str, Any]]:
    """For each worker its bars, as columns of whole numbers.

    ``start`` and ``length`` in microseconds, each start counted from the end of the one before;
    ``index`` of the first call, ``calls``, ``family``, ``state``.
    """
    total = len(history.starts)
    by_worker: dict[int, array[int]] = {one.number: array("q") for one in report.workers}
    for at in range(total):
        by_worker.setdefault(history.worker[at], array("q")).append(at)
    end = report.begun + max(report.seconds, 1e-6)
    gap = 0.0 if total <= MOST_BARS else (end - report.begun) * len(by_worker) / MOST_BARS
    found = []
    for number, places in sorted(by_worker.items()):
        found.append(_row(number, sorted(places, key=history.starts.__getitem__), history, gap))
    return found


def _row(number: int, places: list[int], history: History, gap: float) -> dict[str, Any]:
    names = ("start", "length", "index", "calls", "family", "state")
    columns: dict[str, list[int]] = {name: [] for name in names}
    last = round(1e6 * history.begun)
    at = 0
    while at < len(places):
        first = places[at]
        start, stop = history.starts[first], history.starts[first] + history.seconds[first]
        calls, state, family = history.count[first], history.state[first], history.family[first]
        at += 1
        while at < len(places) and gap:
            one = places[at]
            later = history.starts[one] + history.seconds[one]
            if later - start > gap or history.family[one] != family:
                break
            stop = max(stop, later)
            calls += history.count[one]
            state = max(state, history.state[one])
            at += 1
        begin = round(1e6 * start)
        length = max(round(1e6 * (stop - start)), 0)
        values = (begin - last, length, history.index[first], calls, family, state)
        for name, value in zip(names, values, strict=True):
            columns[name].append(value)
        last = begin + length
    return {"worker": number, **columns}
