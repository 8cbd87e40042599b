"""Submitted calls that travel together.

While every worker is busy, what is submitted waits in the engine; calls of one function that were
submitted in a row then become one task of the scheduler's. That takes the cost of a task (records,
queues, messages, each some microseconds) off all but one of them. A bunch is what such a task
settles: it hands each outcome to the future that it belongs to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures._base import FINISHED, PENDING
from typing import Any

from .future import Future, guard
from .ledger import Entry

__all__ = ["MOST", "Bunch", "bunches"]

MOST = 512
"""Calls in a bunch at most. To end one of them by name costs a look at each of its parts."""


def bunches(
    futures: list[Future], combine: Callable[[Sequence[Any]], list[tuple[Any, int]]]
) -> Iterator[tuple[Entry | Future, int, int]]:
    """Put neighbours of one function together; gives entries, their families, their calls.

    `combine`: see ``backends.base.Backend``.
    """
    start = 0
    while start < len(futures):
        family, index = futures[start]._family, futures[start]._index
        end = start + 1
        most = min(len(futures), start + MOST)
        while end < most and futures[end]._family == family:
            if futures[end]._index != index + end - start:
                break  # one between them went to another engine
            end += 1
        for call, count in combine([one._call for one in futures[start:end]]):
            if count == 1:
                yield futures[start], family, 1
            else:
                bunch = Bunch(call, futures[start : start + count])
                yield Entry(call, bunch, family, index, 0, count), family, count
            start += count
            index += count


class Bunch:
    """The futures of consecutive calls, which are the calls of one task (see ``ledger.Target``).

    Futures are let go as they are settled, so that nothing holds a result longer than its owner.
    """

    __slots__ = ("_call", "_futures", "tasks", "watched")

    def __init__(self, call: Any, futures: list[Future]) -> None:
        self._call = call
        self._futures: list[Future | None] = list(futures)
        self.tasks: list[int] = []  # it, and what was carved out of it, in that order
        self.watched = False  # somebody may have added a callback to one of them
        for at, future in enumerate(futures):
            future._bunch = self
            future._base = at
            future._call = None
            if future._made_condition is not None:
                self.watched = True

    def _settle(
        self,
        lo: int,
        values: Sequence[Any],
        errors: dict[int, BaseException] | None,
        run: tuple[int, int | None, float, float],
        now: float,
    ) -> None:
        hi = lo + len(values)
        futures = self._take(lo, hi)
        if errors:
            for at, future in enumerate(futures, lo):
                if future is not None:
                    error = errors.get(at)
                    wrong = None if error is None else {0: error}
                    future._settle(0, (values[at - lo],), wrong, run, now)
            return
        others = []
        with guard:
            for future, value in zip(futures, values):
                if future is None:
                    continue
                if future._made_condition is not None or future._state != PENDING:
                    others.append((future, value))
                    continue
                future._run = run
                future._finished = now
                future._engine = future._bunch = future._fn = future._kwargs = None
                future._args = ()
                future._result = value
                future._state = FINISHED
        for future, value in others:
            future._settle(0, (value,), None, run, now)

    def _cancelled(self, lo: int, hi: int) -> None:
        for future in self._take(lo, hi):
            if future is not None:
                future._cancelled(0, 1)

    def _take(self, lo: int, hi: int) -> list[Future | None]:
        """The futures of calls that have ended: neither they nor the calls are held any more."""
        futures = self._futures[lo:hi]
        self._futures[lo:hi] = [None] * (hi - lo)
        self._call.forget(lo, hi)
        return futures

    def _carved(self, task: int) -> None:
        self.tasks.append(task)

    def _has_listeners(self) -> bool:
        return self.watched and any(
            future is not None and future._has_listeners() for future in self._futures
        )

    def _orphaned(self, error: BaseException) -> None:
        for future in self._futures:
            if future is not None:
                future._orphaned(error)

    def _describe(self, offset: int) -> tuple[Callable[..., Any], object, int]:
        future = self._futures[offset]
        assert future is not None
        return future._describe(0)
