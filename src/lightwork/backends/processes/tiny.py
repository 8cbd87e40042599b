"""The tight loop over tiny calls: expected under 20 us each, with plain arguments.

Results that are atoms are collected, and travel as one list; all others are pickled at once, since
the function may change them in its next call. What is collected is not in the journal: a crash may
repeat `FLUSH_TINY` of it. The page is told of each call, and asked whether it may start, as for any
other; the clock is looked at once for each block of calls.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ...wire.pickling import Packed, pack
from . import messages
from .answers import FLUSH_TINY, Answers
from .endings import leave_fork
from .messages import ERROR, TIMED, VALUE
from .page import CALLING, NO_LIMIT, PACKING_RESULT, PHASE, SINCE, STARTED

if TYPE_CHECKING:
    from .loop import Loop

__all__ = ["ATOMS", "TinyCalls"]

BLOCK = 32
"""Calls between two looks at the clock: 32 of 20 us are less than FLUSH_TINY."""

BLOCK_MOST = 512
"""The same where they have shown to be very short."""

BRIEF = 0.1e-3
"""Seconds below which a block may be followed by one of twice its size."""

ATOMS = frozenset({int, float, bool, type(None), complex})
_TEXTS = frozenset({str, bytes})
_SHORT = 4096  # bytes; longer texts travel by themselves


class TinyCalls:
    """Runs tiny calls of one frame after the other for a `Loop`."""

    def __init__(self, loop: Loop, answers: Answers, cells: memoryview) -> None:
        self._loop = loop
        self._answers = answers
        self._cells = cells
        self._pid = os.getpid()

    def run(
        self,
        fn: Callable[[Any], Any],
        items: Sequence[Any],
        flags: int,
        position: int,
        frame: tuple[int, int],
    ) -> bool:
        """Call `fn` on each item, in blocks. False: stopped by the limit.

        `position`: of the first call. `frame`: the page's cell of its frame's limit, and the
        position of the frame's first call.
        """
        group = _Group(position)
        end = position + len(items)
        begin, size, then = position, BLOCK, group.started
        while begin < end:
            after = min(begin + size, end)
            if flags & TIMED:
                self._cells[SINCE] = time.monotonic_ns()
                after = begin + 1
            stop = self._block(fn, items[begin - position : after - position], group, begin, frame)
            if stop < after:
                self._close(group, stop)
                if self._loop.stopped(stop):
                    return False
                # It may start after all: alone, for the next may not.
                one = items[stop - position : stop - position + 1]
                self._block(fn, one, group, stop, (NO_LIMIT, 0))
                stop += 1
            begin = stop
            now = time.monotonic()
            size = min(2 * size, BLOCK_MOST) if now - then < BRIEF else BLOCK
            then = now
            if begin < end and now - self._answers.last_flush >= FLUSH_TINY:
                self._close(group, begin)
                self._answers.flush_group()
                self._loop.after_answer()
        self._close(group, end)
        self._loop.after_answer()
        return True

    def _block(
        self,
        fn: Callable[[Any], Any],
        items: Sequence[Any],
        group: _Group,
        place: int,
        frame: tuple[int, int],
    ) -> int:
        """The tight loop: `items`, the first of which is at position `place`.

        Returns the position of the first that may not start, as far as the page's limit tells, or
        the one behind the last.
        """
        cells, started, add = self._cells, STARTED, group.values.append
        slot, first = frame
        kind: type = int  # of the last result: nearly always that of the next one, too
        cells[PHASE] = CALLING
        for item in items:
            cells[started] = place
            if cells[slot] and place - first >= cells[slot] - 1:
                break
            try:
                value = fn(item)
                if type(value) is kind:
                    add(value)
                else:
                    kind = self._odd(group, value, place)
            except BaseException as error:
                group.fail(place, self._loop.problem(error))
            place += 1
        return place

    def _odd(self, group: _Group, value: Any, position: int) -> type:
        """Take a result of another type than those before. Returns the type that needs no look.

        What is not an atom is pickled as it is now.
        """
        kind = type(value)
        if kind in ATOMS or (kind in _TEXTS and len(value) <= _SHORT):
            group.values.append(value)
            return kind if kind in ATOMS else int
        self._cells[PHASE] = PACKING_RESULT
        packed = pack(value, what="the result", home=True)
        if packed.buffers or len(packed.data) > messages.INLINE:
            self._close(group, position)
            self._answers.add(VALUE, 0, position, group.started, packed)
            group.restart(position + 1)
        else:
            group.others[len(group.values)] = VALUE, packed.data
            group.values.append(None)
        self._cells[PHASE] = CALLING
        return int

    def _close(self, group: _Group, position: int) -> None:
        """Hand a group's results on; `position`: of the next call, where it begins anew."""
        if os.getpid() != self._pid:
            leave_fork(None)
        if group.values:
            self._answers.add_group(group.first, group.started, group.values[:], group.others)
        group.restart(position)


class _Group:
    """Results of consecutive tiny calls."""

    __slots__ = ("first", "others", "started", "values")

    def __init__(self, first: int) -> None:
        self.values: list[Any] = []
        self.restart(first)

    def restart(self, first: int) -> None:
        """Begin anew. The list stays the same one, for the loops have it at hand."""
        self.first = first
        self.started = time.monotonic()
        self.values.clear()
        self.others: dict[int, Any] = {}

    def fail(self, position: int, problem: Packed) -> None:
        """The call at `position` ended with an error."""
        self.others[position - self.first] = ERROR, problem.data
        self.values.append(None)
