"""What the kinds that run calls in this very process have in common."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Sequence
from typing import Any, Protocol

__all__ = ["LocalCall", "LocalCalls", "WatchedCall", "Watcher", "trimmed"]


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

    def run_all(
        self,
        lo: int,
        hi: int,
        values: list[Any],
        errors: dict[int, BaseException],
        trim: Callable[[BaseException], BaseException],
    ) -> None:
        """Run the calls `lo` to `hi`, in one copy of the context, as a worker process would.

        Results go to `values`, in order; errors to `errors`, by their place there.
        """
        if hi - lo == 1 or self.kwargs:
            run: Callable[..., Any] = self.run
            items: Sequence[Any] = range(lo, hi)
            star = False
        else:
            run, star = self.fn, self.star
            items = self.items if hi - lo == len(self.items) else self.items[lo:hi]
        self.context.copy().run(_run_each, run, items, star, values, errors, trim)


def _run_each(
    fn: Callable[..., Any],
    items: Sequence[Any],
    star: bool,
    values: list[Any],
    errors: dict[int, BaseException],
    trim: Callable[[BaseException], BaseException],
) -> None:
    """A call costs the loop 50 ns and the `try` nothing."""
    keep = values.append
    for item in items:
        try:
            keep(fn(*item) if star else fn(item))
        except BaseException as error:
            errors[len(values)] = trim(error)
            keep(None)


class Watcher(Protocol):
    """Is told of each call of a `WatchedCall`, in the thread that runs it."""

    def before(self, call: LocalCall, offset: int) -> Any:
        """It begins now. What this returns is handed to `after`."""

    def after(self, call: LocalCall, before: Any, value: Any, error: BaseException | None) -> None:
        """It has ended, with a result or an error."""


class WatchedCall(LocalCall):
    """Calls that somebody measures."""

    __slots__ = ("watcher",)

    def __init__(
        self,
        watcher: Watcher,
        fn: Callable[..., Any],
        items: Sequence[Any],
        star: bool,
        kwargs: dict[str, Any] | None,
    ) -> None:
        super().__init__(fn, items, star, kwargs)
        self.watcher = watcher

    def run(self, offset: int) -> Any:
        """Run call number `offset`."""
        watcher = self.watcher
        before = watcher.before(self, offset)
        try:
            value = super().run(offset)
        except BaseException as error:
            watcher.after(self, before, None, error)
            raise
        watcher.after(self, before, value, None)
        return value


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

    def run_all(
        self,
        lo: int,
        hi: int,
        values: list[Any],
        errors: dict[int, BaseException],
        trim: Callable[[BaseException], BaseException],
    ) -> None:
        """As of a `LocalCall`; but each has a context of its own."""
        _run_each(self.run, range(lo, hi), False, values, errors, trim)

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
