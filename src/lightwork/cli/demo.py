"""``lightwork demo``: the examples that come with the package, by name."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Sequence

from lightwork import MissingExtra
from lightwork.demos import DEMOS

from .problem import WrongUse
from .words import Parser

__all__ = ["make_parser", "run"]


_MORE = """\
examples:
  lightwork demo
  lightwork demo factorials
  lightwork demo factorials --source
"""


def make_parser() -> Parser:
    """What the command takes."""
    parser = Parser(
        prog="lightwork demo",
        description="Run an example, show its code, or list them all.",
        epilog=_MORE,
    )
    add = parser.add_argument
    add("name", metavar="NAME", nargs="?", help="of the example; without it, they are listed")
    add("--source", action="store_true", help="show the code instead of running it")
    return parser


def run(words: Sequence[str]) -> int:
    """Run the command; return the exit status."""
    wanted = make_parser().parse_args(words)
    if wanted.name is None:
        if wanted.source:
            raise WrongUse("--source needs the NAME of an example")
        width = max(map(len, DEMOS))
        for name, what in DEMOS.items():
            print(f"{name:{width}}  {what}")
        return 0
    if wanted.name not in DEMOS:
        import difflib

        close = [name for name in DEMOS if name.startswith(wanted.name)]
        close = close or difflib.get_close_matches(wanted.name, DEMOS, 3)
        hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
        raise WrongUse(f"there is no example {wanted.name!r}{hint} (`lightwork demo` lists them)")
    module = importlib.import_module(f"lightwork.demos.{wanted.name.replace('-', '_')}")
    if wanted.source:
        print(inspect.getsource(module), end="")
    else:
        try:
            module.main()
        except MissingExtra as missing:
            print(f"lightwork: {missing}", file=sys.stderr)
            return 1
    return 0
