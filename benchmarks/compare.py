"""Measures lightwork beside its peers: ``python benchmarks/compare.py [--row NAME ...]``.

Prints, for each row, what is timed, the median of some interleaved rounds for everyone, how many
times as fast lightwork is, and whether it reaches what it must. Nothing is timed with ``--quick``,
which only checks, with little work, that all results are right.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.rows import ROWS, Contender, Limit, Row


def machine() -> dict[str, Any]:
    """What this runs on."""
    model = platform.processor()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = {}
    for name in ("lightwork", "joblib", "loky", "pebble", "mpire", "numpy"):
        try:
            from importlib.metadata import version

            versions[name] = version(name)
        except ImportError:
            versions[name] = "not installed"
    return {
        "cpu": model,
        "cores": usable,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "versions": versions,
    }


def measure(row: Row, quick: bool) -> tuple[dict[str, list[float]], list[str]]:
    """Run the rounds of a row; return what was found, and who was left out, and why."""
    missing = []
    with ExitStack() as stack:
        running: list[tuple[Contender, Any]] = []
        for one in row.contenders(quick):
            try:
                running.append((one, stack.enter_context(one.open())))
            except ImportError as error:
                missing.append(f"{one.name}: {error}")
        for _ in range(1 if quick else row.rounds):
            for one, use in running:
                try:
                    one.found.append(use())
                except RuntimeError as error:
                    if one.name == row.ours:
                        raise
                    missing.append(f"{one.name}: {error}")
        return {one.name: one.found for one, _ in running if one.found}, missing


def judge(row: Row, medians: dict[str, float]) -> list[dict[str, Any]]:
    """What is needed beside what was reached."""
    verdicts: list[dict[str, Any]] = []
    ours = medians[row.ours]
    for need in row.needs:
        if isinstance(need, Limit):
            verdicts.append(
                {
                    "need": f"<= {need.most:.4g} {row.unit}",
                    "reached": ours,
                    "pass": ours <= need.most,
                }
            )
        elif need.against in medians:
            ratio = medians[need.against] / ours
            verdicts.append(
                {
                    "need": f">= {need.ratio:g} x {need.against}",
                    "reached": ratio,
                    "pass": ratio >= need.ratio,
                }
            )
    return verdicts


def show(row: Row, found: dict[str, list[float]], missing: list[str]) -> dict[str, Any]:
    """Print a row; return it as a record."""
    medians = {name: statistics.median(values) for name, values in found.items()}
    ours = medians[row.ours]
    print(f"\n{row.name}: {row.timed}")
    if row.ideal:
        print(f"    ideal: {row.ideal}")
    for name, median in medians.items():
        spread = f"{min(found[name]):.4g} .. {max(found[name]):.4g}"
        ratio = "" if name == row.ours or not ours else f"{median / ours:8.2f} x lightwork's"
        print(f"    {name:<42} {median:10.4g} {row.unit:<8} ({spread}){ratio}")
    for line in missing:
        print(f"    left out: {line}")
    verdicts = judge(row, medians)
    for verdict in verdicts:
        word = "PASS " if verdict["pass"] else "below"
        print(f"    {word} {verdict['need']}: {verdict['reached']:.4g}")
    return {
        "row": row.name,
        "timed": row.timed,
        "unit": row.unit,
        "medians": medians,
        "rounds": found,
        "verdicts": verdicts,
        "left_out": missing,
    }


def main(argv: list[str] | None = None) -> int:
    names = [row.name for row in ROWS]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--row", action="append", choices=names, metavar="NAME", help=str(names))
    parser.add_argument("--quick", action="store_true", help="check results, measure nothing")
    parser.add_argument("--json", metavar="FILE", help="write all figures there")
    options = parser.parse_args(argv)
    about = machine()
    print(
        f"{about['cpu']}, {about['cores']} usable cores, Python {about['python']}, "
        f"Linux {about['kernel']}; two workers each; medians"
    )
    print(", ".join(f"{name} {version}" for name, version in about["versions"].items()))
    records = []
    for row in ROWS:
        if options.row and row.name not in options.row:
            continue
        found, missing = measure(row, options.quick)
        if options.quick:
            print(f"{row.name}: results right for {', '.join(found)}")
        else:
            records.append(show(row, found, missing))
    if options.json:
        Path(options.json).write_text(json.dumps({"machine": about, "rows": records}, indent=2))
    return 0


# Needed: workers of peers that spawn import this file again.
if __name__ == "__main__":
    sys.exit(main())
