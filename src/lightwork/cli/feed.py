"""Hands the items of one source to one map after another.

A map reads its inputs in the thread that waits for its results. Where the next item may be long
in coming (a pipe), or should not be read yet (too many results wait for an earlier one), the
items end for this map, which gives out its results meanwhile; the next map takes up the rest.
Such a share of the items is a *burst*.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from .items import END, PAUSE, Source
from .problem import WrongUse

__all__ = ["Feed"]

_PATIENCE = 0.05
"""Seconds that a burst waits for items in all; so long a finished result may have to wait."""


class Feed:
    """The items, in bursts. One thread at a time, except `stop`.

    Args:
        source: where they come from.
        full: whether no item should be read for now.
    """

    def __init__(self, source: Source, full: Callable[[], bool]) -> None:
        self.count = 0  # items handed out
        self.problem: WrongUse | None = None  # why the source ended early
        self._source = source
        self._full = full
        self._next: Any = PAUSE
        self._stopped = False

    def more(self) -> bool:
        """Wait for an item; return whether there is one."""
        if self._next is PAUSE:
            self._next = self._get(None)
        return self._next is not END

    def burst(self) -> Iterator[Any]:
        """The items from here on, as long as they come without much waiting."""
        patience = _PATIENCE
        while self._next is not END:
            if self._next is not PAUSE:
                item, self._next = self._next, PAUSE
                self.count += 1
                yield item
            if self._full():
                return
            if self._source.live:
                before = time.monotonic()
                self._next = self._get(max(patience, 0.0))
                patience -= time.monotonic() - before
                if self._next is PAUSE:
                    return
            else:
                self._next = self._get(None)

    def _get(self, timeout: float | None) -> Any:
        if self._stopped:
            return END
        try:
            return self._source.get(timeout)
        except WrongUse as error:
            self.problem = error
            return END

    def stop(self) -> None:
        """Hand out no more items, and end a wait for one. Any thread."""
        self._stopped = True
        self._source.close()
