"""What the workers run for each item of ``lightwork map``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from lightwork import current_task

from .encode import NotJSON, encode

__all__ = ["Job", "Outcome"]


Outcome: TypeAlias = tuple[int, str, str | None, int, int]
"""The end of one call that raised nothing; a plain tuple, which travels fastest:

* the position of the item in its map;
* item and result as JSON, without the braces around; only the item if there is a problem;
* why the result has no form in JSON, or None;
* which attempt it was, from 1;
* the number of its worker.
"""


class Job:
    """The user's function, from an item to its line of JSON.

    The result becomes text where it was computed: in parallel, and what travels back is a
    string, whatever the result was. A result that is not JSON is no exception here, or it would
    be tried again.
    """

    def __init__(self, func: Callable[..., Any], *, star: bool) -> None:
        self.func = func  # under this name errors find out what to call us
        self.star = star

    def __call__(self, item: Any) -> Outcome:
        """Run the function on `item`."""
        if not self.star:
            result = self.func(item)
        elif isinstance(item, dict):
            result = self.func(**item)
        else:
            result = self.func(*item)
        task = current_task()
        start = f'"item": {encode(item)}'
        try:
            text = f'{start}, "result": {encode(result)}'
        except NotJSON as error:
            return task.index, start, str(error), task.attempt, task.worker
        return task.index, text, None, task.attempt, task.worker
