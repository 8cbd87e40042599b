"""``lightwork advise``: threads, processes or neither, for one function, with the evidence."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import closing
from itertools import chain, islice

from lightwork import advise

from .output import standard_output
from .problem import WrongUse, function_failed
from .words import Parser, add_items, all_items, the_items, whole

__all__ = ["make_parser", "run"]

_WHAT = "Measure a function on some of the items, and say where it would run best, and why."

_MORE = """\
Up to half a second of calls is measured, in this process; their results are dropped, and what
they print goes to standard error.

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
    with closing(the_items(wanted)) as source, standard_output():
        from .target import load

        function = load(wanted.target)
        items = all_items(source, wanted.star)
        first = list(islice(items, 1))
        if not first:
            raise WrongUse("there is no item to measure")
        try:
            advice = advise(
                function,
                chain(first, items),
                calls=wanted.calls or source.total,
                star=wanted.star,
                max_workers=wanted.workers,
                verify=wanted.verify,
            )
        except WrongUse:
            raise
        except (Exception, SystemExit) as error:
            print(function_failed(error), file=sys.stderr)
            return 1
    print(json.dumps(advice.to_dict()) if wanted.json else advice)
    return 0
