"""The ledger: which calls are owed an outcome, to whom, and how it is told.

Bookkeeping only, always under the engine's lock; what is to be told to futures and chunks (which
runs the user's callbacks) is collected in `owed`, and done by the engine without the lock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from . import blame
from .backends.base import Death, Result
from .core import commands as do
from .core.events import Answer
from .options import TaskOptions

if TYPE_CHECKING:
    from .future import Future

__all__ = ["Arrived", "Entry", "Ledger", "Owed", "Target"]

Owed = list[tuple[Any, Callable[..., None], tuple[Any, ...]]]
"""Targets, functions and arguments: to be called without the lock, in order."""


class Target(Protocol):
    """Where outcomes go: a future, or a chunk of a map. Offsets count in the target."""

    def _settle(
        self,
        lo: int,
        values: Sequence[Any],
        errors: dict[int, BaseException] | None,
        run: tuple[int, int | None, float, float],
        now: float,
    ) -> None: ...

    def _cancelled(self, lo: int, hi: int) -> None: ...

    def _carved(self, task: int) -> None: ...

    def _has_listeners(self) -> bool: ...

    def _orphaned(self, error: BaseException) -> None: ...

    def _describe(self, offset: int) -> tuple[Callable[..., Any], object, int]: ...


class Entry:
    """A task, on the engine's side: what the scheduler is not to know.

    A submitted call's future is its own entry, for one object less a task (each that the
    collector tracks costs a waiting task 0.5 µs): it has the same attributes.
    """

    __slots__ = ("_base", "_call", "_calls", "_family", "_index", "_open", "_target", "_worker")

    def __init__(
        self, call: Any, target: Target, family: int, index: int, base: int, calls: int
    ) -> None:
        self._call = call
        self._target = target
        self._family = family
        self._index = index  # of call 0 of `call`
        self._base = base  # offset 0 of the task is call number `base` of `call`
        self._calls = calls  # at its beginning; the last of them may be carved out of it
        self._open = calls  # calls that have no outcome yet
        self._worker: int | None = None


class Arrived(NamedTuple):
    """A result that a worker reported, and the offsets in it that are not to be told."""

    entry: Entry | Future
    result: Result
    held: set[int] | None


class Ledger:
    """The tasks that were accepted and have not ended."""

    def __init__(self, clock: Callable[[], float], memory_limit: int | None) -> None:
        self.entries: dict[int, Entry | Future] = {}
        self.families: dict[int, TaskOptions] = {}
        self.owed: Owed = []
        self.failing: tuple[Result, int] | None = None  # the call that is being offered for retry
        self._clock = clock
        self._memory_limit = memory_limit

    def take_owed(self) -> Owed:
        """Hand over what is to be told."""
        owed, self.owed = self.owed, []
        return owed

    def resolve(self, answers: Sequence[Answer], arrived: Sequence[Arrived]) -> None:
        """These answers count; tell their results. The others are late: drop them."""
        if len(answers) != len(arrived):
            wanted = {(answer.task, answer.attempt, answer.upto) for answer in answers}
            arrived = [one for one in arrived if (one[1].task, one[1].attempt, one[1].hi) in wanted]
        entries, owed, now = self.entries, self.owed, self._clock()
        for entry, result, held in arrived:
            entry._open -= result.hi - result.lo - (len(held) if held else 0)
            if entry._open <= 0:
                entries.pop(result.task, None)
            if held is None and result.errors is None:
                run = (result.attempt, entry._worker, result.started, result.seconds)
                owed.append(
                    (
                        entry._target,
                        entry._target._settle,
                        (entry._base + result.lo, result.values, None, run, now),
                    )
                )
            else:
                owed.append((entry._target, self._settle_mixed, (entry, result, held, now)))

    def _settle_mixed(
        self, entry: Entry | Future, result: Result, held: set[int] | None, now: float
    ) -> None:
        """Free. Settle a result that has errors, or calls that are run again."""
        errors = result.errors or {}
        base, run = entry._base, (result.attempt, entry._worker, result.started, result.seconds)
        skip = held or set()
        start = result.lo
        for stop in [*sorted(skip), result.hi]:
            if start < stop:
                mine = {base + at: errors[at] for at in errors if start <= at < stop}
                for at, error in mine.items():
                    fn, what, index = entry._target._describe(at)
                    blame.annotate(error, fn, what, index, result.attempt, entry._worker)
                values = result.values[start - result.lo : stop - result.lo]
                entry._target._settle(base + start, values, mine or None, run, now)
            start = stop + 1

    def carve(self, command: do.Carve) -> None:
        """A part of a task is a task of its own from now on."""
        task, new, lo, hi = command
        entry = self.entries[task]
        part = Entry(
            entry._call, entry._target, entry._family, entry._index, entry._base + lo, hi - lo
        )
        self.entries[new] = part
        entry._open -= hi - lo
        if entry._open <= 0 and self.failing is None:
            self.entries.pop(task, None)
        entry._target._carved(new)

    def end(self, command: do.Ended, death: Death | None, broken: BaseException | None) -> None:
        """Calls end without a result, as `command.how` says.

        `death`: how the worker ended, where one did. `broken`: the error of a broken pool.
        """
        task, attempt, lo, hi, how, worker = command
        entry = self.entries.get(task)
        if entry is None:
            return
        entry._open -= hi - lo
        if entry._open <= 0:
            self.entries.pop(task, None)
        if how == "cancelled":
            self.owed.append(
                (entry._target, entry._target._cancelled, (entry._base + lo, entry._base + hi))
            )
        elif how == "failed" and self.failing is not None:
            result, offset = self.failing
            errors = {offset: (result.errors or {})[offset]}
            one = result._replace(lo=offset, hi=offset + 1, values=(None,), errors=errors)
            self.owed.append((entry._target, self._settle_mixed, (entry, one, None, self._clock())))
        elif broken is not None:
            self.fail(entry, lo, hi, broken, attempt, worker)
        else:
            for offset in range(lo, hi):
                error = self._charge(entry, offset, how, attempt, death)
                self.fail(entry, offset, offset + 1, error, attempt, worker)

    def _charge(
        self, entry: Entry | Future, offset: int, how: str, attempt: int, death: Death | None
    ) -> BaseException:
        fn, what, index = entry._target._describe(entry._base + offset)
        return blame.ended(
            how,
            death,
            fn,
            what,
            index,
            attempt,
            timeout=self.families[entry._family].timeout,
            memory_limit=self._memory_limit,
        )

    def fail(
        self,
        entry: Entry | Future,
        lo: int,
        hi: int,
        error: BaseException,
        attempt: int,
        worker: int | None,
    ) -> None:
        """The calls `lo` to `hi` end with `error`."""
        first = entry._base + lo
        errors = {first + at: error for at in range(hi - lo)}
        run = (attempt, worker, 0.0, 0.0)
        values = [None] * (hi - lo)
        self.owed.append(
            (entry._target, entry._target._settle, (first, values, errors, run, self._clock()))
        )

    def place(self, future: Future) -> tuple[int, int] | None:
        """The task of which a future is a call, and its offset there (-1: all of it). None: it
        has ended, or it was not accepted."""
        entries, bunch = self.entries, future._bunch
        if bunch is None:
            return (future._task, -1) if future._task in entries else None
        at = future._base
        for task in reversed(bunch.tasks):  # what was carved out later has it
            entry = entries.get(task)
            if isinstance(entry, Entry) and 0 <= at - entry._base < entry._calls:
                return task, at - entry._base
        return None

    def abandon(self, error: BaseException, span: Callable[[int], tuple[int, int] | None]) -> None:
        """End everything: what was sent to a worker with `error`, the rest as cancelled.

        `span`: tells between which offsets the open calls of a task are.
        """
        for task, entry in list(self.entries.items()):
            lo, hi = span(task) or (0, entry._open)
            if entry._worker is None:
                calls = entry._base + lo, entry._base + hi
                self.owed.append((entry._target, entry._target._cancelled, calls))
            else:
                self.fail(entry, lo, hi, error, 1, entry._worker)
            self.entries.pop(task, None)
