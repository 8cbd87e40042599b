"""The words that several commands have in common: the function, the items, numbers."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from .problem import WrongUse

__all__ = ["Parser", "add_items", "all_items", "seconds", "sizes", "the_items", "whole"]


class Parser(argparse.ArgumentParser):
    """Raises WrongUse where argparse would print and exit; what it is told stands as written."""

    def __init__(self, prog: str, description: str, epilog: str | None = None) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        message = message.replace("TARGET, ITEM", "TARGET")  # there need not be an item
        raise WrongUse(f"{message}\n(try `{self.prog} --help`)")


def add_items(parser: argparse.ArgumentParser) -> None:
    """TARGET, and where its items come from."""
    add = parser.add_argument
    add("target", metavar="TARGET", help="the function: module:function, or path/file.py:function")
    add("items", metavar="ITEM", nargs="*", help="an item")
    add("--range", metavar="A:B[:STEP]", help="the whole numbers from A up to, not including, B")
    add("--lines", metavar="FILE", help="each line of FILE is an item, as text (-: stdin)")
    add("--jsonl", metavar="FILE", help="each line of FILE is an item, as JSON (-: stdin)")
    add("--star", action="store_true", help="a list is the arguments, an object named ones")


def whole(least: int) -> Callable[[str], int]:
    """A parser of whole numbers of at least `least`."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least:
            raise argparse.ArgumentTypeError(
                f"expected a whole number of at least {least}, not {text!r}"
            )
        return number

    return parse


def seconds(text: str) -> float:
    """A number of seconds greater than 0."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(
            f"expected a number of seconds greater than 0, not {text!r}"
        )
    return number


def sizes(text: str) -> list[int]:
    """Numbers of workers, with commas between them."""
    return [whole(1)(part) for part in text.split(",")]


def the_items(wanted: argparse.Namespace) -> Any:
    """The source that was asked for. Raises WrongUse unless it is exactly one."""
    from .items import from_failures, from_file, from_range, from_words

    again = getattr(wanted, "again", None)  # for `lightwork map` alone
    known = "--range, --lines and --jsonl"
    if hasattr(wanted, "again"):
        known = "--range, --lines, --jsonl and --again"
    given = [
        name
        for name, value in (
            ("items on the command line", wanted.items or None),
            ("--range", wanted.range),
            ("--lines", wanted.lines),
            ("--jsonl", wanted.jsonl),
            ("--again", again),
        )
        if value is not None
    ]
    if len(given) != 1:
        what = f"not {' and '.join(given)}" if given else "and there are none"
        raise WrongUse(f"the items come from exactly one of the command line, {known}, {what}")
    if wanted.star and (wanted.range is not None or wanted.lines is not None):
        raise WrongUse(f"--star needs lists or objects as items: {given[0]} has none; use --jsonl")
    if wanted.items:
        return from_words(wanted.items, star=wanted.star)
    if wanted.range is not None:
        return from_range(wanted.range)
    if again is not None:
        return from_failures(again, star=wanted.star)
    if wanted.lines is not None:
        return from_file(wanted.lines, jsonl=False, star=False)
    return from_file(wanted.jsonl, jsonl=True, star=wanted.star)


def all_items(source: Any, star: bool) -> Iterator[Any]:
    """The items of a source, one by one; with `star` as the arguments of a call."""
    from .items import END

    while (item := source.get(None)) is not END:
        if star and isinstance(item, dict):
            raise WrongUse("--star: objects are for `lightwork map`; here give lists")
        yield tuple(item) if star else item
