"""``lightwork doctor``: what there is to work with, what is wrong, and what to do about it."""

from __future__ import annotations

import json
from collections.abc import Sequence

from lightwork.measure.doctor import examine

from .words import Parser

__all__ = ["make_parser", "run"]


def make_parser() -> Parser:
    """What the command takes."""
    parser = Parser(
        prog="lightwork doctor",
        description="Look at what pools have to work with here. Exit status 1: something is wrong.",
    )
    parser.add_argument("--json", action="store_true", help="as one JSON object")
    return parser


def run(words: Sequence[str]) -> int:
    """Run the command; return the exit status: 1 if something is wrong."""
    wanted = make_parser().parse_args(words)
    report = examine()
    print(json.dumps(report.to_dict()) if wanted.json else report)
    return 1 if report.problems else 0
