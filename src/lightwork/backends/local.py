"""What the kinds that run calls in this very process have in common."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["LocalCall"]


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
