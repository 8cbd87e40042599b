"""What the kinds that run calls in this very process have in common."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["LocalCall", "LocalCalls", "trimmed"]


class LocalCall:
    """Calls, and the context variables of who submitted them: each call gets a copy."""

    __slots__ = ("context", "fn", "items", "kwargs", "star")

    def __init__(
        self,
        fn: Callable[..., Any],
        items: Sequence[Any],
        star: bool,
        kwargs: dict[str, Any] | None,
    ) -> None:
        self.fn = fn
        self.items = items
        self.star = star
        self.kwargs = kwargs
        self.context = contextvars.copy_context()

    @property
    def calls(self) -> int:
        """How many."""
        return len(self.items)

    def run(self, offset: int) -> Any:
        """Run call number `offset`."""
        item = self.items[offset]
        context = self.context.copy()
        if not self.star:
            return context.run(self.fn, item)
        if self.kwargs:
            return context.run(self.fn, *item, **self.kwargs)
        return context.run(self.fn, *item)


class LocalCalls:
    """Calls that were submitted in a row."""

    __slots__ = ("_each",)

    def __init__(self, each: Sequence[LocalCall]) -> None:
        self._each: list[LocalCall | None] = list(each)

    @property
    def calls(self) -> int:
        """How many."""
        return len(self._each)

    def run(self, offset: int) -> Any:
        """Run call number `offset`."""
        call = self._each[offset]
        assert call is not None
        return call.run(0)

    def forget(self, lo: int, hi: int) -> None:
        """The calls `lo` to `hi` have ended: hold their arguments no longer."""
        self._each[lo:hi] = [None] * (hi - lo)


def trimmed(error: BaseException) -> BaseException:
    """The error, with a traceback that begins in the user's code.

    Our frames say nothing to the user, and would keep the worker's objects alive with the error.
    """
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_globals.get("__package__") == __package__:
        frames = frames.tb_next
    return error.with_traceback(frames)
