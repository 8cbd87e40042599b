"""What the workers run for each item of ``lightwork map``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from lightwork import current_task

from .encode import NotJSON, encode

__all__ = ["Job", "Outcome"]


Outcome: TypeAlias = tuple[int, str]
"""A finished call: the position of the item in its map, and item and result as JSON, without the
braces around. A plain tuple, which travels fastest."""

DEFAULTS: dict[str, Callable[[object], str]] = {"str": str, "repr": repr}


class Job:
    """The user's function, from an item to its line of JSON.

    The result becomes text where it was computed: in parallel, and what travels back is a
    string, whatever the result was. One that has no form in JSON is a failure of its item like any
    other: TypeError.

    Args:
        func: what to call.
        star: whether a list is the arguments.
        default: what makes text of parts that JSON has no form for: a name of `DEFAULTS`.
    """

    # `default` is kept out of the __dict__, and so out of what a checkpoint compares: what has
    # finished without it is the same with it.
    __slots__ = ("__dict__", "default")

    def __init__(self, func: Callable[..., Any], *, star: bool, default: str | None = None) -> None:
        self.func = func  # under this name errors find out what to call us
        self.star = star
        self.default = default

    def __call__(self, item: Any) -> Outcome:
        """Run the function on `item`. Raises what it raises, and TypeError: see the class."""
        if not self.star:
            result = self.func(item)
        elif isinstance(item, dict):
            result = self.func(**item)
        else:
            result = self.func(*item)
        default = DEFAULTS[self.default] if self.default is not None else None
        try:
            text = encode(result, default)
        except NotJSON as error:
            raise TypeError(
                f"{error}: let the function return text, numbers, lists or dicts, or give "
                "--default str"
            ) from None
        return current_task().index, f'"item": {encode(item)}, "result": {text}'
