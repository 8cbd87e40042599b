"""``lightwork advise``: threads, processes or neither, for one function, with the evidence."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import closing

from lightwork import advise

from .problem import WrongUse, user_traceback
from .words import Parser, add_items, all_items, the_items, whole

__all__ = ["make_parser", "run"]

_WHAT = "Measure a function on some of the items, and say where it would run best, and why."

_MORE = """\
Up to half a second of calls is measured, in this process; their results are dropped.

examples:
  lightwork advise math:factorial --range 1:2000
  lightwork advise tools.py:fetch --lines urls.txt --verify
"""


def make_parser() -> Parser:
    """What the command takes."""
    parser = Parser(
        prog="lightwork advise",
        description=_WHAT,
        epilog=_MORE,
    )
    add_items(parser)
    add = parser.add_argument
    add("--calls", metavar="N", type=whole(1), help="how many calls it is for, if not the items")
    add("--workers", metavar="N", type=whole(1), help="how many workers at most")
    add("--verify", action="store_true", help="run the measured calls on each kind, too")
    add("--json", action="store_true", help="as one JSON object")
    return parser


def run(words: Sequence[str]) -> int:
    """Run the command; return the exit status."""
    wanted = make_parser().parse_intermixed_args(words)
    with closing(the_items(wanted)) as source:
        from .target import load

        function = load(wanted.target)
        try:
            advice = advise(
                function,
                all_items(source, wanted.star),
                calls=wanted.calls or source.total,
                star=wanted.star,
                max_workers=wanted.workers,
                verify=wanted.verify,
            )
        except WrongUse:
            raise
        except Exception as error:
            print(f"lightwork: the function failed:\n{user_traceback(error)}", file=sys.stderr)
            return 1
    print(json.dumps(advice.to_dict()) if wanted.json else advice)
    return 0
