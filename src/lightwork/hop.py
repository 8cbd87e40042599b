"""Between engines and targets, under ``kind="auto"``: task numbers that say whose they are."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .engine import Engine
    from .route import Held

__all__ = ["Hop", "Ticket"]


class Ticket(int):
    """The number of a task, and in which engine; or of calls that are held."""

    engine: Any  # an Engine, or the Router
    cancelled = False
    held: Held | None = None


class Hop:
    """Stands between an engine and a target whose calls it runs.

    Args:
        target: a Future, or a map's Chunk.
        engine: where they run.
        gone: of a probe, told when all `calls` of it have ended, or will not start.
    """

    __slots__ = (
        *("_cancelled", "_describe", "_engine", "_gone", "_left", "_orphaned", "_settle"),
        "_target",
    )

    def __init__(
        self, target: Any, engine: Engine, gone: Callable[[], None] | None = None, calls: int = 1
    ) -> None:
        self._target = target
        self._engine = engine
        self._gone = gone
        self._left = deque(range(calls))  # one taken out for each that has ended; by any thread
        self._settle = target._settle if gone is None else self._settle_probe
        self._cancelled = target._cancelled if gone is None else self._cancel_probe
        self._orphaned = target._orphaned
        self._describe = target._describe

    def _has_listeners(self) -> bool:
        found: bool = self._target._has_listeners()
        return found

    def _carved(self, task: int) -> None:
        ticket = Ticket(task)
        ticket.engine = self._engine
        self._target._carved(ticket)

    def _settle_probe(self, lo: int, values: Any, *more: Any) -> None:
        self._ended(len(values))
        self._target._settle(lo, values, *more)

    def _cancel_probe(self, lo: int, hi: int) -> None:
        self._ended(hi - lo)
        self._target._cancelled(lo, hi)

    def _ended(self, calls: int) -> None:
        assert self._gone is not None
        with contextlib.suppress(IndexError):
            for _ in range(calls):
                self._left.pop()
        if not self._left:
            self._gone()
