"""``lightwork bench``: the same calls with each number of workers, and the one to use."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from lightwork import LightworkError, sweep
from lightwork.measure.sweep import KINDS, WrongResults

from .problem import WrongUse, user_traceback
from .words import Parser, add_items, all_items, sizes, the_items, whole

__all__ = ["make_parser", "run"]

_WHAT = "Time a function on all items with each number of workers, and say which to use."

_MORE = """\
The items are run in place, then with each pool, in interleaved rounds; results are checked to be
the same. To start the workers is timed apart. The table goes to standard output.

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
    add("--kinds", metavar="K,K", default="processes", help="processes (default), threads")
    add("--repeats", metavar="N", type=whole(1), default=5, help="rounds (5)")
    add("--plot", metavar="FILE", help="draw it into FILE (.png, .svg, .pdf)")
    add("--json", metavar="FILE", help="write it as JSON to FILE (-: instead of the table)")
    add("--quiet", action="store_true", help="do not tell what is being run")
    return parser


def run(words: Sequence[str]) -> int:
    """Run the command; return the exit status."""
    wanted = make_parser().parse_intermixed_args(words)
    with closing(the_items(wanted)) as source:
        from .target import load

        function = load(wanted.target)
        items = list(all_items(source, wanted.star))
    kinds = wanted.kinds.split(",")
    if wrong := [kind for kind in kinds if kind not in KINDS]:
        raise WrongUse(f"--kinds: unknown kind {wrong[0]!r}; known: {', '.join(KINDS)}")
    if not items:
        raise WrongUse("there is no item to run")
    progress = _Progress(quiet=wanted.quiet)
    try:
        found = sweep(
            function,
            items,
            wanted.workers,
            kinds,
            repeats=wanted.repeats,
            star=wanted.star,
            on_progress=progress.tell,
        )
    except WrongResults as error:
        progress.end()
        print(f"lightwork: {error}", file=sys.stderr)
        return 1
    except Exception as error:
        return _failed(progress, error)
    progress.end()
    if wanted.json != "-":
        print(found)
    return _write(found, wanted)


def _failed(progress: _Progress, error: Exception) -> int:
    progress.end()
    print(f"lightwork: the function failed:\n{user_traceback(error)}", file=sys.stderr)
    return 1


def _write(found: Any, wanted: argparse.Namespace) -> int:
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
