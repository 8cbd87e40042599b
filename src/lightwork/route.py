"""Where the calls of one function go, under ``kind="auto"``: measured, decided, looked at again.

A *route* is a function with one set of options. Its life::

    new --> probing --> decided <--> looking again

* **Probing**: its calls run one after the other in a thread of this process, measured
  (``measure.probe``), with all others *held*, until the figures are clear: for calls that take
  long, while the first one still runs. No call is made twice and none is thrown away: what is
  measured is the user's own work.
* **Decided**: held calls and new ones go to their *place*. What runs in threads goes on being
  measured, which costs a call about a microsecond; of processes and of calls in place it is known
  how long they take.
* **Looking again**: when the figures have drifted, and now and then anyway, one more call is a
  probe; meanwhile the others go on where they were.

Places are ``"threads"`` (for calls that wait; as many as pay, see ``measure.climb``), ``"cores"``
(threads for calls that compute without the GIL; one for each core), ``"processes"``, ``"serial"``
(in place, by whoever iterates over a map) and ``"probe"``.

Nothing here has a thread: events come from the router's callers, from threads that run calls, and
from the router's heart.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .backends.local import LocalCall, WatchedCall
from .measure.climb import Climb, Start
from .measure.closed import Look, may_change
from .measure.model import WAITS, Figures, Machine, Verdict, Work, choose, needed
from .measure.probe import SHORT, Packing, Probe, packing
from .measure.threadclock import ThreadClock
from .options import TaskOptions
from .weak import WeakList

if TYPE_CHECKING:
    from .lane import Lane

__all__ = ["Held", "Probing", "Route", "Watched"]

DRIFT = 3.0
"""How many times as long, or as short, calls must have become to look again."""

SHIFT = 0.3
"""By how much their share of a core must have changed."""

GETS = 0.6
"""Share of the core that they were thought to use which calls beside each other should get."""

SOON = 0.1
"""Seconds from a decision to the next look, in threads; each time twice as long."""

AGAIN = 0.5
"""The same elsewhere, where nothing has drifted."""

AGAIN_MOST = 30.0

EVERY = 0.05
"""Seconds between two looks at whether something has drifted."""

PATIENCE = 0.25
"""Seconds that others wait for a call whose code looks as if it changed what it closes over."""

PACK = 5e-3
"""Seconds spent at most on finding out what sending one item would take."""

UNMEASURED = 1e-3
"""Calls as long as this, of which nobody knows how many there will be, count as endless."""

OFTEN, ONE_OF = 0.1e-3, 16
"""Of calls that are submitted and are shorter than the first, one of so many is measured as they
go on in threads: to measure one takes 5 us."""

LOOKS = 3
"""Calls of a probe's chunk of which it is looked what they change; and the last one."""

IN_PLACE = 10e-3
"""Calls that take longer are not run in place."""

PROBE_CHUNK = 6e-3
"""Seconds that a chunk of short calls is expected to take that is a probe: longer than Python's
switch interval, so that a beat is certain to ask for the GIL meanwhile."""

PROBE_MOST = 4096

WARY = 1.0
"""Seconds that others wait for the end of a call of a kind that first waits, and then computes; and
that this one waits for the end of those that have begun."""

BEGIN = 32
"""Threads to begin with, where calls wait."""

SPARE = 2
"""Threads more than cores, where calls compute without the GIL: when one hands over what it has
found, or waits for the GIL to do so, its core is another's (8 % faster calls of 5 ms)."""


class Held(NamedTuple):
    """Calls that were accepted and have not been sent anywhere."""

    target: Any  # a Future, or a map's Chunk
    fn: Callable[..., Any]
    items: Sequence[Any]
    star: bool
    kwargs: dict[str, Any] | None
    index: int  # type: ignore[assignment]  # tuple.index is nobody's need
    ticket: Any  # by which it can be cancelled

    def fail(self, error: Exception) -> None:
        """Let these calls end with this error."""
        count = len(self.items)
        errors: dict[int, BaseException] = dict.fromkeys(range(count), error)
        self.target._settle(0, [None] * count, errors, (0, None, 0.0, 0.0), time.monotonic())


class Watched:
    """What calls in threads take, as they go: a running mean that forgets.

    Time for which they had no core, since other programs have them, does not count. Written by
    many threads without a lock: a lost update of a mean is no loss.
    """

    def __init__(self, route: Route) -> None:
        self._route = route
        self._mine = threading.local()  # the clock of each thread
        self.reset()

    def reset(self) -> None:
        """Forget all."""
        self.calls = 0
        self.wall = self.cpu = 0.0

    def _starved(self) -> float:
        """Seconds for which this thread has waited for a core, ever."""
        clock: ThreadClock | None = getattr(self._mine, "clock", None)
        if clock is None:
            clock = self._mine.clock = ThreadClock()
        return clock.waited()

    def before(self, call: LocalCall, offset: int) -> tuple[float, float, float]:
        """See Watcher."""
        starved = self._starved() if self.wall > SHORT else -1.0  # to look takes 2 us
        return time.thread_time(), time.perf_counter(), starved

    def after(
        self,
        call: LocalCall,
        before: tuple[float, float, float],
        value: Any,
        error: BaseException | None,
    ) -> None:
        """See Watcher."""
        now = time.perf_counter()
        wall, cpu = now - before[1], time.thread_time() - before[0]
        if before[2] >= 0.0:
            wall = max(wall - (self._starved() - before[2]), cpu)
        self.calls += 1
        weight = max(0.1, 1.0 / self.calls)
        self.wall += weight * (wall - self.wall)
        self.cpu += weight * (cpu - self.cpu)
        if now >= self._route.next_look:
            self._route.look(now)


class Probing:
    """The watcher of calls that are a probe; `gone` is told when the last of them has ended."""

    def __init__(self, route: Route, probe: Probe, gone: Callable[[], None]) -> None:
        self._route = route
        self._probe = probe
        self._gone = gone
        self._ended = deque[None]()  # one for each call that has ended; by any thread

    def before(self, call: LocalCall, offset: int) -> tuple[Look | None, bool]:
        """See Watcher."""
        item = call.items[offset]
        args = tuple(item) if call.star else (item,)
        kwargs = call.kwargs or {}
        look = None
        if offset < LOOKS or offset == len(call.items) - 1:
            look = Look(call.fn, args, kwargs)
            self._route.sample = (args, kwargs)
        # Where two threads share this chunk, one of them is measured.
        return look, self._probe.begin()

    def after(
        self,
        call: LocalCall,
        before: tuple[Look | None, bool],
        value: Any,
        error: BaseException | None,
    ) -> None:
        """See Watcher."""
        look, measured = before
        route = self._route
        wall = self._probe.end() if measured else 0.0
        if look is not None:
            route.changed = look.changed()
            if error is None and route.packed_out is None:
                route.packed_out = packing(value, "the result", _budget(wall))
        self._ended.append(None)
        if len(self._ended) >= len(call.items):  # of one that is shared, the last may end first
            self._gone()


def _budget(wall: float) -> float:
    """Seconds to spend on finding out what sending something costs, beside a call of `wall`."""
    return min(PACK, max(0.2e-3, wall / 2))


class Route:
    """One function with one set of options. The router's lock guards `place`, `held`, `running`."""

    def __init__(self, options: TaskOptions, tell: Callable[[Route], None]) -> None:
        self.options = options
        self.name = "?"
        self.families: dict[str, int] = {}  # its number in each place's engine
        self.place: str | None = None
        self.held: deque[Held] = deque()  # see `hold` and `let_go`
        self._held_calls = 0
        self.releasing = False
        self.running: Probe | None = None  # the probe that is out
        self._first = False  # it was sent before there was a place
        self.running_since = 0.0
        self.lanes: WeakList[Lane] = WeakList()
        self.level = 1  # workers that it wants in its place
        self.climb: Climb | None = None
        self.start: Start | None = None  # while the call by which it was decided still waits
        self.verdict: Verdict | None = None
        self.figures: Figures | None = None
        self.wanted = False  # a look is due: the next call is to be a probe
        self.anew = False  # all that is known of it is to be forgotten
        self.judging = False  # a probe has ended of which nothing was made yet
        self.fn: Any = None  # the function, as it was called last
        self.next_look = math.inf
        self.next_glance = 0.0
        self.submitted = 0
        self.watched = Watched(self)
        self._tell = tell  # the router: something about this route is to be seen to
        self._again_at = math.inf
        self._again, self._soon = AGAIN, SOON
        self._window: tuple[float, int] | None = None  # of the climb: since when, calls then
        self.fresh()

    def fresh(self) -> None:
        """Begin to measure anew."""
        self.probe = Probe()
        self.sample: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        self.changed = ""
        self.packed_out: Packing | None = None
        self._packed_in: Packing | None = None
        self._suspect: bool | None = None

    @property
    def kind(self) -> str | None:
        """The kind of its place."""
        return "threads" if self.place == "cores" else self.place

    def called(self, fn: Any) -> None:
        """Note what it is called."""
        self.fn = fn
        inner = fn
        while callable(found := getattr(inner, "func", None)):
            inner = found
        self.name = getattr(inner, "__qualname__", None) or type(inner).__qualname__

    def begin(self, fn: Any, now: float) -> Probe:
        """A probe is sent."""
        self.fn = fn
        self.running, self.running_since = self.probe, now
        self._first = self.place is None
        self.wanted = self.judging = False
        return self.probe

    @property
    def is_first(self) -> bool:
        """Whether the call by which it was decided still runs."""
        return self._first and self.running is not None

    def local(self, held: Held) -> LocalCall:
        """These calls, to be run in a thread, and to be measured there: of short ones, some."""
        figures = self.figures
        short = figures is not None and figures.wall < OFTEN
        if short and held.kwargs is not None and self.submitted % ONE_OF:
            return LocalCall(*held[1:5])
        return WatchedCall(self.watched, *held[1:5])

    def hold(self, held: Held) -> None:
        """Locked. Keep these calls until there is a place for them."""
        self.held.append(held)
        self._held_calls += len(held.items)

    def let_go(self) -> Held:
        """Locked. Take those that have been held for the longest."""
        held = self.held.popleft()
        self._held_calls -= len(held.items)
        return held

    @property
    def small(self) -> bool:
        """Whether its arguments are small enough for many to be packed for trial."""
        return self._packed_in is not None and self._packed_in.bytes < 4096

    # -- deciding --------------------------------------------------------------------------------

    def due(self, now: float) -> bool:
        """Whether the figures of the probe that is out, or was, are enough to decide by."""
        probe = self.probe
        if not probe.clear():
            return False
        if probe.calls:
            return True
        if self._wary and now - self.running_since < WARY:
            return False
        if now < self._patient_until:
            return False
        if self._suspect is None:
            self._suspect = may_change(self.fn)
        return not self._suspect or now - self.running_since >= PATIENCE

    def assess(self, machine: Machine, work: Work) -> tuple[Verdict, Figures]:
        """Choose, by what is known now."""
        figures = self._figures()
        return choose(figures, machine, work, current=self.kind), figures

    def too_early(self, verdict: Verdict, figures: Figures, now: float) -> bool:
        """Whether nothing is lost by waiting: a first call that goes on holds the GIL anyway.

        The longer it goes on, the more a process is worth.
        """
        if figures.calls or self.place is not None or verdict.kind == "processes":
            return False
        if figures.gil < WAITS * figures.cpu or figures.cpu < WAITS:
            return False
        self._patient_until = now + figures.wall / 4
        return True

    _patient_until = 0.0

    def _figures(self) -> Figures:
        probe = self.probe
        stays = ""
        if self.changed:
            stays = f"a call has changed {self.changed}, outside of itself"
        elif not probe.calls and self._suspect:
            stays = "it looks as if it changed what it closes over"
        rough = probe.figures()
        packed_in, packed_out = self._packed_in, self.packed_out
        if not stays and rough.cpu >= 0.05:
            packed_in = self.pack_sample()
        for packed in (packed_in, packed_out):
            if packed is not None and packed.error:
                stays = stays or packed.error
        known_in = packed_in or Packing(0.0, 0.0, "")
        known_out = packed_out or Packing(0.0, 0.0, "")
        return probe.figures(
            bytes_in=known_in.bytes,
            bytes_out=known_out.bytes,
            pack_in=known_in.seconds,
            pack_out=known_out.seconds,
            stays=stays,
        )

    def pack_sample(self) -> Packing | None:
        """What it takes to send the function (once) and its arguments (each time), if known."""
        if self._packed_in is None and self.sample is not None:
            self._packed_in = self._pack_in(*self.sample)
        return self._packed_in

    def _pack_in(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Packing:
        from .errors import CannotPickle
        from .wire.pickling import dump_bytes

        try:
            dump_bytes(self.fn, what=f"the function {self.name}")
        except CannotPickle as error:
            return Packing(0.0, 0.0, str(error))
        return packing((args, kwargs), "the arguments", _budget(self.probe.figures().wall))

    def settle(self, verdict: Verdict, figures: Figures, machine: Machine, now: float) -> bool:
        """Go by this verdict from now on. Returns whether it is another than before."""
        place = verdict.kind
        if place == "threads" and figures.cpu >= WAITS:
            place = "cores"
        before = self.verdict
        changed = before is None or verdict.kind != before.kind or place != self.place
        again = self.place is not None and not changed
        self.verdict, self.figures = verdict, figures
        self._wary = False
        if not again or self.start is not None:
            self.place = place
            self.level = verdict.workers
            self.climb = self.start = None
            if place == "threads":
                self._most = needed(figures, machine, "threads")
                begin = min(BEGIN, self._most)
                if figures.calls:
                    self.climb = Climb(begin, self._most)
                    self.level = self.climb.level
                else:
                    self.start = Start(begin)
                    self._process_cpu = time.process_time()
                    self.level = self.start.seen(figures.wall, figures.cpu * figures.wall, 0.0)
            elif place == "cores" and verdict.workers > 1:
                self.level = min(verdict.workers + SPARE, machine.most_threads)
            self._again = AGAIN
        else:
            self._again = min(2 * self._again, AGAIN_MOST)
        wait = self._again
        if verdict.kind == "threads":
            wait = self._soon
            self._soon = min(2 * self._soon, AGAIN_MOST)
        self._again_at = now + max(wait, 2 * figures.wall)
        self.next_look = now + EVERY
        self._window = None
        self.wanted = False
        self.watched.reset()
        return changed

    # -- looking again ---------------------------------------------------------------------------

    def look(self, now: float) -> None:
        """Has something drifted? By any thread; cheap."""
        self.next_look = now + EVERY
        if self.place is None or self.figures is None or self.wanted:
            return
        if self.place in ("threads", "cores"):
            if self.place == "threads" and self.climb is not None:
                self._climb(now)
            if now >= self._again_at and self._drifted_here():
                self.anew = True
                self._tell(self)
        elif self.running is not None or self.judging:
            pass  # that is the look
        elif now >= self._again_at or self._drifted_away():
            self.wanted = True
            self.next_look = math.inf

    @property
    def workers(self) -> int:
        """How many it is to have, when all has begun."""
        return self.level if self.start is None else min(BEGIN, self._most)

    def probe_calls(self) -> int:
        """How many calls are to be measured in one go: several, once they are known to be short."""
        probe = self.probe
        if not probe.calls:
            return 1
        wall = probe.figures().wall
        return max(1, min(int(PROBE_CHUNK / wall), 8 * probe.calls, PROBE_MOST))

    @property
    def is_starting(self) -> bool:
        """Whether no more calls are to be sent than there are threads: they may have to go
        elsewhere, when the first one has ended."""
        if self.start is None or self.start.full:
            return False
        return self.running is not None or self.judging

    def grow(self) -> None:
        """The first call goes on: let more begin, if it waits."""
        if self.start is not None and self.running is not None:
            process = time.process_time() - self._process_cpu
            self.level = self.start.seen(*self.running.spent(), process)
            if self.start.full and self.climb is None:
                self.climb = Climb(self.level, self._most)

    def misled(self) -> bool:
        """The first call has ended: whether it waited at first, and then computed beside others."""
        return self.start is not None and self.start.misled(self.probe.spent()[1])

    def ask_for_more(self) -> None:
        """Locked. The probe has ended, and is not clear: more calls are to be measured.

        After a first call they are held meanwhile; later on, the next one is another probe.
        """
        if self.start is not None:
            self.place = self.start = None
        else:
            self.wanted = True

    def measure_anew(self, now: float) -> None:
        """Locked. Hold its calls again: beside others of its own, a call's figures are not its."""
        self.anew = False
        self._wary = self.start is not None
        if self._wary:
            self.alone_by = now + WARY
        self.place = self.start = None
        self.fresh()

    alone_by = 0.0  # until then, the next call is not measured beside others of its own
    _most = 1  # threads that would pay
    _process_cpu = 0.0  # at the start
    _wary = False  # the first call has misled us: this time, see how it ends

    seen: float | None = None
    """What the engine of its place has measured calls to take."""

    def _drifted_here(self) -> bool:
        """In threads: by what a call uses of a core, for they wait for each other's GIL."""
        figures, watched = self.figures, self.watched
        assert figures is not None
        if watched.calls < 8 or watched.wall <= 0:
            return False
        share = watched.cpu / watched.wall
        if self.place == "threads":
            return share > figures.cpu + SHIFT or watched.cpu > DRIFT * max(
                figures.cpu * figures.wall, 2e-3
            )
        # Computing beside each other, they take longer if they hold the GIL after all.
        return share < GETS * figures.cpu or watched.cpu > DRIFT * max(figures.wall, 1e-3)

    def _drifted_away(self) -> bool:
        """Elsewhere: by how long calls take, which is all that is known."""
        figures = self.figures
        assert figures is not None
        if self.seen is None:
            return False
        least = 20e-6
        now, before = max(self.seen, least), max(figures.wall, least)
        return now > DRIFT * before or now * DRIFT < before

    def _climb(self, now: float) -> None:
        """Find out whether more threads pay."""
        climb, figures = self.climb, self.figures
        assert climb is not None
        assert figures is not None
        if climb.steady:
            return
        done = self.watched.calls
        if self._window is None:
            self._window = (now, done)
            return
        since, calls = self._window
        count = done - calls
        enough = 2 * climb.level
        if count < enough or now - since < EVERY:
            if now - since > 4 * max(EVERY, self.watched.wall) and count < enough:
                self._window = (now, done)  # they are not all at work: nothing can be told
            return
        self._window = None
        rate = count / (now - since)
        if not self.waiting():
            return  # they were not all at work
        level = climb.seen(rate, climb.level / max(figures.wall, 1e-9))
        if level != self.level:
            self.level = level
            self._tell(self)

    waiting: Callable[[], int] = staticmethod(lambda: 0)
    """How many calls wait for a worker in its place now."""

    # -- how much there is -----------------------------------------------------------------------

    def work(self) -> Work:
        """The calls that are still to come, as far as one can know."""
        lanes = self.lanes.living()
        chunks = bool(lanes)
        held = self._held_calls
        wall = self.seen or self.probe.figures().wall
        # Whoever iterates is not to be kept busy for long; nor while a first call goes on.
        in_place = chunks and wall < IN_PLACE and (self.probe.calls > 0 or self.place is not None)
        lefts = [lane.left() for lane in lanes]
        if lanes and None not in lefts:
            return Work(float(held + sum(left or 0 for left in lefts)), chunks, in_place)
        if wall >= UNMEASURED:
            return Work(math.inf, chunks, in_place)
        # As many again as there have been; at first, as many as take a moment in place.
        return Work(float(max(held, 2 * self.submitted, 100)), chunks, in_place)
