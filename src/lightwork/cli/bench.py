"""``lightwork bench``: the same calls with each number of workers, and the one to use."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from contextlib import closing

from lightwork import LightworkError, MissingExtra, Sweep, sweep
from lightwork.measure.sweep import KINDS, WrongResults

from .output import standard_output
from .problem import WrongUse, function_failed
from .words import Parser, add_items, all_items, sizes, the_items, whole

__all__ = ["make_parser", "run"]

_WHAT = "Time a function on all items with each number of workers, and say which to use."

_MORE = """\
The items are run in place, then with each pool, in interleaved rounds; results are checked to be
the same. To start the workers is timed apart. The table goes to standard output, and what the
function prints to standard error.

examples:
  lightwork bench tools.py:square --range 1:11 --workers 2,4,8
  lightwork bench tools.py:render --lines scenes.txt --kinds processes,threads --plot scaling.svg
"""


def make_parser() -> Parser:
    """What the command takes."""
    parser = Parser(
        prog="lightwork bench",
        description=_WHAT,
        epilog=_MORE,
    )
    add_items(parser)
    add = parser.add_argument
    add("--workers", metavar="N,N,...", type=sizes, default=[1, 2, 4, 8], help="1,2,4,8")
    add("--kinds", metavar="K,K", default="processes", help="processes (default), threads, or both")
    add("--repeats", metavar="N", type=whole(1), default=5, help="rounds (5)")
    add("--plot", metavar="FILE", help="draw it into FILE (.png, .svg, .pdf)")
    add("--json", metavar="FILE", help="write it as JSON to FILE (-: instead of the table)")
    add("--quiet", action="store_true", help="do not tell what is being run")
    return parser


def run(words: Sequence[str]) -> int:
    """Run the command; return the exit status."""
    wanted = make_parser().parse_intermixed_args(words)
    try:
        _look_ahead(wanted)
    except MissingExtra as missing:
        print(f"lightwork: {missing}", file=sys.stderr)
        return 1
    try:
        with standard_output():
            found = _measure(wanted)
    except WrongUse:
        raise
    except WrongResults as error:
        print(f"lightwork: {error}", file=sys.stderr)
        return 1
    except (Exception, SystemExit) as error:
        print(function_failed(error), file=sys.stderr)
        return 1
    if wanted.json != "-":
        print(found)
    return _write(found, wanted)


def _look_ahead(wanted: argparse.Namespace) -> None:
    """Find out before anything is measured what could not be done afterwards.

    Raises WrongUse; MissingExtra without matplotlib.
    """
    wanted.kinds = wanted.kinds.split(",")
    if wrong := [kind for kind in wanted.kinds if kind not in KINDS]:
        raise WrongUse(f"--kinds: unknown kind {wrong[0]!r}; known: {', '.join(KINDS)}")
    for option, path in (("--plot", wanted.plot), ("--json", wanted.json)):
        folder = os.path.dirname(path or "") or "."
        if path is not None and not (os.path.isdir(folder) and os.access(folder, os.W_OK)):
            raise WrongUse(f"{option} {path!r}: its folder is not there, or cannot be written to")
    if wanted.plot is not None:
        from lightwork.measure.plot import check

        try:
            check(wanted.plot)
        except ValueError as error:
            raise WrongUse(f"--plot {wanted.plot!r}: {error}") from None


def _measure(wanted: argparse.Namespace) -> Sweep:
    with closing(the_items(wanted)) as source:
        from .target import load

        function = load(wanted.target)
        items = list(all_items(source, wanted.star))
    if not items:
        raise WrongUse("there is no item to run")
    progress = _Progress(quiet=wanted.quiet)
    try:
        return sweep(
            function,
            items,
            wanted.workers,
            wanted.kinds,
            repeats=wanted.repeats,
            star=wanted.star,
            on_progress=progress.tell,
        )
    finally:
        progress.end()


def _write(found: Sweep, wanted: argparse.Namespace) -> int:
    try:
        if wanted.json == "-":
            print(json.dumps(found.to_dict()))
        elif wanted.json is not None:
            with open(wanted.json, "w", encoding="utf-8") as file:
                json.dump(found.to_dict(), file)
                file.write("\n")
        if wanted.plot is not None:
            found.plot(wanted.plot)
    except (OSError, ValueError, LightworkError) as error:
        print(f"lightwork: {error}", file=sys.stderr)
        return 1
    return 0


class _Progress:
    """One line on standard error, written over again, where that is a terminal."""

    def __init__(self, *, quiet: bool) -> None:
        self._on = not quiet and sys.stderr.isatty() and not os.environ.get("CI")

    def tell(self, done: int, total: int, what: str) -> None:
        """So far."""
        if self._on:
            print(f"\r\x1b[K{done}/{total} {what}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Leave no trace."""
        if self._on:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
