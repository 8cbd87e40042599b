"""What happened in a pool, as its engine tells it: the source of reports, traces and hints.

A pool has a history only if it was made with ``trace=True``. Every method but `snapshot` is called
by the engine, under its lock; each does a few additions and appends, and runs none of the user's
code. A call is one span, but calls of a few microseconds, which workers answer in groups: of
these a span is a group.

Where the time of a worker goes:

* *starting*: from the decision to start it until it takes calls;
* *working*: in calls;
* *waiting*: it had nothing, from its last answer's arrival until the next call was sent;
* *wire*: the rest: calls and answers on their way, packed, unpacked, and waiting for this process
  to have time for them.
"""

from __future__ import annotations

import heapq
import math
import os
import time
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

__all__ = ["Event", "History", "Sample", "Slow", "Worker", "label"]

MOST_SPANS = 1_000_000
"""Spans that are kept, 37 bytes each; the totals go on after that."""

MOST_EVENTS = 2_000
MOST_SAMPLES = 2_000
"""Samples of the queue's length; when there are more, every second one goes."""

SLOWEST = 20

_FIRST_INTERVAL = 0.005  # seconds between two samples, at first
_ATOMS = frozenset({int, float, str, bool, bytes, type(None)})

OK, FAILED, RETRIED = 0, 1, 2
"""How the calls of a span ended; RETRIED: with an error, and they are run again."""


class Slow(NamedTuple):
    """A call that took long."""

    seconds: float
    index: int  # type: ignore[assignment]  # tuple.index is nobody's need
    item: str  # short; empty where it is no plain value
    function: str
    worker: int
    started: float


class Sample(NamedTuple):
    """Counts of calls at a moment."""

    at: float
    queued: int
    running: int


class Event(NamedTuple):
    """Something that is rare."""

    at: float
    worker: int | None
    what: str


class Worker:
    """The times of one worker."""

    __slots__ = (
        "arrived",
        "calls",
        "ended",
        "gone",
        "how",
        "kind",
        "number",
        "ready",
        "sent",
        "started",
        "waiting",
        "wire",
        "working",
    )

    def __init__(self, number: int, started: float) -> None:
        self.number = number
        self.kind = ""  # where it is not that of the pool: see ``merge``
        self.started = started
        self.ready: float | None = None
        self.gone: float | None = None
        self.how = ""
        self.calls = 0
        self.working = self.waiting = self.wire = 0.0
        self.ended = 0.0  # when its last call had ended
        self.arrived = 0.0  # when the answers before that one had arrived
        self.sent: deque[float] = deque()  # when it was sent something that it has not begun

    def copy(self) -> Worker:
        """As it is now."""
        twin = Worker(self.number, self.started)
        for name in self.__slots__:
            setattr(twin, name, getattr(self, name))
        twin.sent = deque(self.sent)
        return twin


class History:
    """See the top of this file."""

    def __init__(self, name: str, kind: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self.kind = kind
        self.pid = os.getpid()
        self.begun = clock()
        self.wall = time.time() - self.begun  # what to add to get the time of day
        self.next_sample = -math.inf
        self.functions: dict[int, str] = {}  # by family
        self.workers: dict[int, Worker] = {}
        self.events: deque[Event] = deque(maxlen=MOST_EVENTS)
        self.samples: list[Sample] = []
        self.slowest: list[Slow] = []  # a heap, the fastest of them first
        self.durations: dict[int, int] = {}  # see `bucket`
        self.by_family: dict[int, list[float]] = {}  # calls, seconds, failed
        self.calls = self.failed = self.retried = 0
        self.outcomes: dict[str, int] = {}  # of calls that ended without an answer
        self.not_kept = 0  # spans
        self._final: set[int] = set()  # calls whose failure, about to be answered, stands
        self.first = self.last = 0.0  # when the first call began, and the last one ended
        self._interval = _FIRST_INTERVAL
        # The spans, as columns.
        self.starts, self.seconds = array("d"), array("d")
        self.worker, self.family, self.count = array("i"), array("i"), array("i")
        self.index = array("q")
        self.state = array("b")
        self._clock = clock

    # -- told by the engine ----------------------------------------------------------------------

    def starting(self, worker: int) -> None:
        """A worker is being started."""
        self.workers[worker] = Worker(worker, self._clock())

    def ready(self, worker: int) -> None:
        """It takes calls now."""
        found = self.workers.get(worker)
        if found is not None:
            found.ready = found.ended = found.arrived = self._clock()

    def gone(self, worker: int, how: str) -> None:
        """It is no more."""
        found = self.workers.get(worker)
        if found is not None and found.gone is None:
            found.gone, found.how = self._clock(), how
        if how != "retired":
            self.events.append(Event(self._clock(), worker, f"worker {worker} {how}"))

    def sent(self, worker: int) -> None:
        """It was sent calls."""
        found = self.workers.get(worker)
        if found is not None:
            found.sent.append(self._clock())

    def retrying(self, attempt: int, why: str) -> None:
        """A call is to be run again."""
        self.retried += 1
        self.events.append(Event(self._clock(), None, f"attempt {attempt}, after: {why}"))

    def ended(self, how: str, entry: Any, lo: int, hi: int) -> None:
        """Calls ended without an answer; or, for ``"failed"``, with the last that they get."""
        self.outcomes[how] = self.outcomes.get(how, 0) + hi - lo
        if how == "failed" and entry is not None:
            first = entry._index + entry._base
            self._final.update(range(first + lo, first + hi))

    def answered(self, worker: int, arrived: Sequence[Any]) -> None:
        """Results have arrived: (entry, result, offsets that are run again) each."""
        now = self._clock()
        found = self.workers.get(worker)
        for entry, result, held in arrived:
            _, _, lo, hi, _, errors, started, seconds = result
            calls = hi - lo
            self.calls += calls
            bad = len(errors) if errors else 0
            number = entry._index + entry._base + lo
            again = 0
            for offset in held or ():
                at = number - lo + offset
                if at in self._final:
                    self._final.discard(at)
                else:
                    again += 1
            self.failed += bad - again
            if started == 0.0:
                started = now - seconds
            if found is not None:
                self._account(found, started, seconds, calls)
            self.last = max(self.last, started + seconds)
            self.first = min(self.first or started, started)
            each = seconds / calls
            place = bucket(each)
            self.durations[place] = self.durations.get(place, 0) + calls
            family = entry._family
            totals = self.by_family.get(family)
            if totals is None:
                totals = self.by_family[family] = [0, 0.0, 0]
            totals[0] += calls
            totals[1] += seconds
            totals[2] += bad - again
            if len(self.slowest) < SLOWEST or each > self.slowest[0].seconds:
                self._note_slow(entry, lo, each, number, worker, started)
            if len(self.starts) >= MOST_SPANS:
                self.not_kept += 1
                continue
            self.starts.append(started)
            self.seconds.append(seconds)
            self.worker.append(worker)
            self.family.append(family)
            self.count.append(calls)
            self.index.append(number)
            self.state.append(FAILED if bad > again else RETRIED if again else OK)
        if found is not None:
            found.arrived = now

    @staticmethod
    def _account(found: Worker, started: float, seconds: float, calls: int) -> None:
        """Divide the time from the end of its last call until the end of this one."""
        gap = started - found.ended
        last = None
        while found.sent and found.sent[0] <= started:
            last = found.sent.popleft()
        if gap > 0:
            idle = 0.0
            if last is not None:  # else it had this call already
                idle = min(gap, max(0.0, last - max(found.arrived, found.ended)))
            found.waiting += idle
            found.wire += gap - idle
        found.working += seconds
        found.calls += calls
        found.ended = max(found.ended, started + seconds)

    def _note_slow(
        self, entry: Any, lo: int, seconds: float, number: int, worker: int, started: float
    ) -> None:
        slow = Slow(
            seconds,
            number,
            label(entry, lo)[1],
            self.functions.get(entry._family, ""),
            worker,
            started,
        )
        if len(self.slowest) < SLOWEST:
            heapq.heappush(self.slowest, slow)
        else:
            heapq.heapreplace(self.slowest, slow)

    def sample(self, queued: int, running: int) -> None:
        """How many calls wait and run. To be called when `next_sample` has come."""
        now = self._clock()
        self.samples.append(Sample(now, queued, running))
        if len(self.samples) >= MOST_SAMPLES:
            del self.samples[1::2]
            self._interval *= 2
        self.next_sample = now + self._interval

    # -- for the report --------------------------------------------------------------------------

    def snapshot(self) -> History:
        """A copy, as of now. Under the engine's lock."""
        twin = object.__new__(History)
        for name, value in self.__dict__.items():
            if isinstance(value, array):
                value = value[:]
            elif isinstance(value, (dict, list, deque)):
                value = value.copy()
            twin.__dict__[name] = value
        twin.workers = {number: one.copy() for number, one in self.workers.items()}
        return twin


def bucket(seconds: float) -> int:
    """The class of a duration: eight to each power of ten, 0 for a microsecond."""
    return math.floor(8 * math.log10(max(seconds, 1e-9) * 1e6))


def label(entry: Any, offset: int) -> tuple[str, str, int]:
    """The name of a call's function, its arguments in short, and its index.

    As far as that is possible without running code of the user's.
    """
    fn, what, index = entry._target._describe(entry._base + offset)
    inner = fn
    while isinstance(deeper := getattr(inner, "func", None), object) and callable(deeper):
        inner = deeper
    name = getattr(inner, "__qualname__", None) or type(inner).__qualname__
    return str(name), _arguments(what), index


def _arguments(what: Any) -> str:
    args, kwargs = what
    parts = []
    values = list(args[:4]) if isinstance(args, tuple) else [args]
    for value in values:
        plain = type(value) in _ATOMS
        if type(value) is tuple:
            plain = len(value) <= 4 and _ATOMS.issuperset(map(type, value))
        parts.append(_short(value) if plain else f"<{type(value).__name__}>")
    return ", ".join(parts + (["..."] if kwargs or len(args) > 4 else []))


def _short(value: Any) -> str:
    if isinstance(value, (str, bytes)) and len(value) > 60:
        value = value[:57]
        return repr(value) + "..."
    if isinstance(value, int) and abs(value) > 10**40:
        return "a long int"
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
