"""``lightwork map`` before its run: which files take part, and ``--dry-run``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from .items import END, Source
from .problem import WrongUse, one_line

__all__ = ["check_files", "checkpoint", "outputs", "tell", "write_reports"]

_SHOWN = 3  # items that --dry-run shows


def check_files(wanted: argparse.Namespace) -> None:
    """See that the options about files fit together. Raises WrongUse.

    Afterwards ``wanted.checkpoint`` names the checkpoint, also where it was ``--resume``.
    """
    if wanted.resume:
        if wanted.checkpoint is not None:
            raise WrongUse("--resume stands for a --checkpoint beside OUT.jsonl: give one of them")
        if wanted.output in (None, "-"):
            raise WrongUse("--resume keeps its checkpoint beside OUT.jsonl: name that with -o")
        wanted.checkpoint = f"{wanted.output}.checkpoint"
    if wanted.restart and wanted.checkpoint is None:
        raise WrongUse("--restart is about a checkpoint: give --checkpoint FILE, or --resume")
    used: dict[str, str] = {}
    for option, path in (
        ("-o", wanted.output if wanted.output != "-" else None),
        ("--failed", wanted.failed),
        ("--checkpoint", wanted.checkpoint),
        ("--report", wanted.report),
        ("--trace", wanted.trace),
    ):
        if path is None:
            continue
        other = used.setdefault(os.path.realpath(path), option)
        if other != option:
            raise WrongUse(f"{option} {path!r} is the same file as that of {other}")
    for option, path in (("--report", wanted.report), ("--trace", wanted.trace)):
        folder = os.path.dirname(path or "") or "."
        if path is not None and not (os.path.isdir(folder) and os.access(folder, os.W_OK)):
            raise WrongUse(f"{option} {path!r}: its folder is not there, or cannot be written to")
    for name in _inputs(wanted):
        option = used.get(os.path.realpath(name), "") if name != "-" else ""
        if option and option != "-o":  # which says it itself
            raise WrongUse(f"{option} {name!r} is the file that the items are read from")


def _inputs(wanted: argparse.Namespace) -> list[str]:
    return [name for name in (wanted.lines, wanted.jsonl, wanted.again) if name]


def outputs(wanted: argparse.Namespace, stack: ExitStack) -> tuple[Any, Any]:
    """Where results go, and where failures go beside, if anywhere. Raises WrongUse."""
    from .output import standard_output, to_file

    inputs = _inputs(wanted)
    if wanted.output is None or wanted.output == "-":
        output = stack.enter_context(standard_output())
    else:
        carry_on = wanted.checkpoint is not None and not wanted.restart
        output = to_file(wanted.output, inputs, carry_on=carry_on)
    failed = None
    if wanted.failed is not None:
        try:
            failed = to_file(wanted.failed, inputs, option="--failed")
        except WrongUse:
            output.close(started=False)
            raise
    return output, failed


def checkpoint(wanted: argparse.Namespace, job: Callable[..., Any], stack: ExitStack) -> Any:
    """The checkpoint, open; None if there is to be none. Raises WrongUse."""
    if wanted.checkpoint is None:
        return None
    from lightwork import Checkpoint, CheckpointError

    # JSON, for that is what our results are; so a checkpoint of the command never holds code.
    kept = Checkpoint(wanted.checkpoint, results="json", restart=wanted.restart)
    stack.enter_context(kept)
    try:
        kept.open(job)
    except CheckpointError as error:
        raise WrongUse(str(error)) from None
    done, failed = kept.counts()
    if (done or failed) and not wanted.quiet:
        again = f", {failed:,} failed and will be tried again" if failed else ""
        print(f"lightwork: carrying on: {done:,} done before{again}", file=sys.stderr)
    return kept


def write_reports(wanted: argparse.Namespace, pool: Any) -> None:
    """``--report`` and ``--trace``. That they cannot be written fails no run: it is said."""
    if not (wanted.report or wanted.trace):
        return
    report = pool.report()
    for path, write in ((wanted.report, report.to_html), (wanted.trace, report.to_trace)):
        if path is not None:
            try:
                write(path)
            except OSError as error:
                print(f"lightwork: cannot write {path!r}: {error.strerror}", file=sys.stderr)
    if wanted.report and not wanted.quiet:
        for hint in report.hints:
            print(f"lightwork: {hint}", file=sys.stderr)


def tell(
    wanted: argparse.Namespace,
    function: Callable[..., Any],
    source: Source,
    make_pool: Callable[[argparse.Namespace], Any],
) -> None:
    """``--dry-run``: say what would be done, on standard error."""
    lines = [f"would call {wanted.target} ({_signature(function)})"]
    if source.live:
        lines.append("on each item of a pipe or terminal, as it comes (not read now)")
    else:
        count, first = _count(source)
        shown = ", ".join(map(_short, first)) + (", ..." if count > len(first) else "")
        lines.append(f"on {count:,} item{'s' * (count != 1)}" + (f": {shown}" if count else ""))
    pool = make_pool(wanted)
    try:
        lines.append(f"with {pool.max_workers:,} workers at most, kind {pool.kind}")
    finally:
        pool.shutdown()
    where = "standard output" if wanted.output in (None, "-") else wanted.output
    order = "as they finish" if wanted.unordered else "in order"
    lines.append(f"results to {where}, {order}" + _there(wanted.output))
    if wanted.failed is not None:
        lines.append(f"failures also to {wanted.failed}" + _there(wanted.failed))
    if wanted.checkpoint is not None:
        there = os.path.exists(wanted.checkpoint)
        what = "would be emptied" if wanted.restart else "would be gone on with"
        what = what if there else "would be made"
        lines.append(f"the checkpoint {wanted.checkpoint} {what}")
    for line in lines:
        print(f"lightwork: {line}", file=sys.stderr)


def _there(path: str | None) -> str:
    return " (is there already)" if path not in (None, "-") and os.path.exists(path) else ""


def _signature(function: Callable[..., Any]) -> str:
    import inspect

    try:
        return f"{getattr(function, '__name__', 'it')}{inspect.signature(function)}"
    except (TypeError, ValueError):
        return "its arguments are not known"


def _count(source: Source) -> tuple[int, list[Any]]:
    """All items, and the first of them; reads them to the end, unless their number is known."""
    first: list[Any] = []
    count = 0
    while (item := source.get(None)) is not END:
        count += 1
        if len(first) < _SHOWN:
            first.append(item)
        elif source.total is not None:
            return source.total, first
    return count, first


def _short(item: object) -> str:
    import json

    try:
        text = json.dumps(item, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        text = one_line(error)
    return text if len(text) <= 60 else text[:57] + "..."
