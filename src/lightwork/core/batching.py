"""How much a worker is given at once, and how it is taken back.

A batch is sized by the time it is expected to take: long enough that a worker does not wait for
the wire between calls, short enough that little is held back from the others. It is never more
than a fair share of what waits. Three nets catch what the estimate gets wrong:

* a worker that runs dry is handed half of what the fullest one has not started (`Victims`);
* a worker that has not answered for far too long loses what it has not started (``watch.py``);
* a family of which nothing is known counts as infinitely long: one task, and nothing behind it.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from math import inf

from .commands import Command, Part, Send
from .moves import carve
from .records import BUSY, DRAINING, SENT, Book, Family, Task, Worker

__all__ = ["Batches", "Victims", "chunk_calls", "cut_in_half"]

# The figures below were tuned with benchmarks/simulate.py; each says what it trades.

TARGET = 10e-3
"""Seconds that a batch is expected to take. Longer: fewer messages; shorter: fewer taken back."""

LOW = TARGET / 2
"""Seconds of outstanding work below which a worker is topped up, so that it never runs dry."""

PREFETCH_MOST = 20e-3
"""Calls expected to be longer than this are sent one at a time: beside them the wire is free."""

AHEAD = 40e-3
"""Seconds of outstanding work above which not even one more task is sent to wait its turn."""

STEAL_LEAST = 0.25e-3
"""Seconds of unstarted work below which handing it over costs more than waiting for it."""

CUT_LEAST = 0.5e-3
"""Seconds that a piece of a divided task is expected to take at least."""

CHUNK = 20e-3
"""Seconds that a chunk of a map is expected to take. Being woken for its results and sending the
next costs the parent some 0.3 ms, and the same cores do the work: 5 ms lost 6 %, 20 ms lose 2 %."""

CHUNK_IN_PLACE = 2e-3
"""The same in place, where nobody is woken. Results are handed out when a chunk ends: a long one
holds many, and large ones that are freed together are given back to the system each time."""

CHUNK_ALONE = 4e-3
"""Calls expected to be longer than this are not put into chunks."""

CHUNK_MOST = 16384
"""Calls in a chunk at most."""

CHUNK_GROWTH = 8
"""How many times more calls than were measured so far may go into one chunk."""


def chunk_calls(family: Family, seconds: float) -> int:
    """How many calls of the family a map should put into its next task, of so many seconds."""
    if family.mean >= CHUNK_ALONE:
        return 1
    return max(1, min(int(seconds / family.mean), CHUNK_GROWTH * family.seen, CHUNK_MOST))


def loose_calls(family: Family, expected: float) -> int:
    """How many calls of a loose task go to a worker that holds `expected` seconds of work."""
    if not expected < TARGET or family.mean > TARGET:
        return 1
    return max(1, min(int((TARGET - expected) / family.mean), CHUNK_GROWTH * family.seen))


class Batches:
    """Makes up what is sent to a worker."""

    def __init__(self, book: Book, victims: Victims) -> None:
        self._book = book
        self._ready = book.ready
        self._victims = victims

    def may_top_up(self, worker: Worker) -> bool:
        """Whether a worker that is at work should be given more already."""
        if worker.silent or worker.held[0].suspect or not self._book.prefetch:
            return False
        expected = worker.expected()
        return expected < LOW or (len(worker.held) == 1 and expected <= AHEAD)

    def fill(self, worker: Worker, now: float, commands: list[Command]) -> bool:
        """Send the worker a batch from the front of the queue; tell whether there was one.

        An idle worker always gets one, if anything is ready (invariant 4).
        """
        book, ready = self._book, self._ready
        if not worker.held:
            worker.heard = now
        share = -(-ready.calls // max(book.alive, 1)) if book.balance else ready.calls
        room = inf if book.max_calls is None else book.max_calls - worker.given
        held, load = worker.held, worker.load
        expected = worker.expected() if held else 0.0
        parts: list[Part] = []
        count = 0
        while (task := ready.first()) is not None:
            family = task.family
            mean = family.mean
            start = task.next
            calls = task.calls - start
            most = room - count
            if task.loose and calls > 1:
                most = min(most, loose_calls(family, expected))
                calls = int(min(calls, most))
            if held and self._too_much(worker, task, calls, count, share, expected):
                break
            ready.pop()
            if count + calls > share or start + calls < task.calls or calls > most:
                calls = self._cut(task, share - count, most, commands)
            task.state = SENT
            task.worker = worker
            held.append(task)
            load[family] = load.get(family, 0) + calls
            parts.append(Part(task.number, task.attempt, start, start + calls))
            count += calls
            worker.open += calls
            expected += mean * calls
            if family.timeout is not None and family.timeout < worker.limit:
                worker.limit = family.timeout
            if count >= room or task.suspect:
                break
        if not parts:
            return False
        worker.given += count
        worker.dry = False
        commands.append(Send(worker.number, parts))
        return True

    def send_one(self, worker: Worker, task: Task, now: float) -> Send:
        """Send a task of one call to a worker that holds nothing; nothing else is ready."""
        family = task.family
        task.state = SENT
        task.worker = worker
        worker.heard = now
        worker.held.append(task)
        worker.load[family] = 1
        worker.open = 1
        worker.given += 1
        worker.version += 1
        worker.dry = False
        if family.timeout is not None and family.timeout < worker.limit:
            worker.limit = family.timeout
        return Send(worker.number, (Part(task.number, task.attempt, 0, 1),))

    def _too_much(
        self, worker: Worker, task: Task, calls: int, count: int, share: int, expected: float
    ) -> bool:
        """Whether a task is not to be added to what the worker holds."""
        if worker.silent or not self._book.prefetch or (count and count + calls > share):
            return True
        if task.suspect or task.family.mean > PREFETCH_MOST or expected > AHEAD:
            return True
        # Beside the task that runs, one more may always wait: the next answer is a message away.
        return expected + calls * task.family.mean > TARGET and len(worker.held) > 1

    def _cut(self, task: Task, share: int, most: float, commands: list[Command]) -> int:
        """Divide a task that is longer than its share, or has more calls than `most`; return how
        many calls it has now."""
        start, mean = task.next, task.family.mean
        calls = task.calls - start
        keep = calls
        if mean * calls >= 2 * CUT_LEAST:
            keep = min(keep, max(share, int(CUT_LEAST / mean), 1))
        if keep > most:
            keep = int(most)  # a worker runs exactly max_calls: to be exact is all it is for
        if keep < calls:
            rest = carve(self._book, task, start + keep, task.calls, commands)
            task.calls = start + keep
            self._ready.give_back(rest)
        return keep


class Victims:
    """The workers that hold something unstarted, by when they are expected to end.

    A heap with one current entry for each worker, renewed when something is sent to it; entries
    of the past are dropped where they come up.
    """

    def __init__(self, workers: dict[int, Worker]) -> None:
        self._workers = workers
        self._heap: list[tuple[float, int, int]] = []  # (-end, worker, version)

    def note(self, worker: Worker, now: float) -> None:
        """The worker was given something, or something was taken from it."""
        worker.version += 1
        if worker.open > 1:
            heap = self._heap
            heappush(heap, (-now - worker.expected(), worker.number, worker.version))
            if len(heap) > 64 and len(heap) > 4 * len(self._workers):
                self._heap = [entry for entry in heap if self._valid(entry)]
                heapify(self._heap)

    def fullest(self) -> Worker | None:
        """The worker that is expected to end last, of those from which taking back pays."""
        heap = self._heap
        while heap:
            entry = heap[0]
            if self._valid(entry):
                worker = self._workers[entry[1]]
                if worker.unstarted() >= STEAL_LEAST:
                    return worker
            # Without another Send it only holds less than now, and a Send makes a new entry.
            heappop(heap)
        return None

    def _valid(self, entry: tuple[float, int, int]) -> bool:
        worker = self._workers.get(entry[1])
        return (
            worker is not None
            and worker.version == entry[2]
            and not worker.dry
            and worker.state in (BUSY, DRAINING)
        )


def cut_in_half(worker: Worker) -> tuple[int, int]:
    """The (task, offset) behind which lies about half of what the worker has not started."""
    whole = worker.expected()
    by_time = whole < inf and len(worker.load) > 1
    # All but the first call are thought unstarted; half of them, rounded up.
    rest: float = worker.unstarted() / 2 if by_time else worker.open // 2
    cut = (worker.held[-1].number, worker.held[-1].calls - 1)
    for task in reversed(worker.held):
        each = task.family.mean if by_time else 1
        calls = task.calls - task.next
        if rest < calls * each:
            whole_calls = int(rest / each)
            return (task.number, task.calls - whole_calls) if whole_calls else cut
        rest -= calls * each
        cut = (task.number, task.next)
        if rest <= 0:
            return cut
    return cut
