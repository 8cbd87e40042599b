"""The probe: what calls of a function take, measured while they run, for good.

Wall time and the CPU time of the calling thread are read before and after a call. How much of the
time it held the GIL cannot be read anywhere; a *heartbeat* measures it: a thread beside the call
sleeps half a millisecond again and again, and when it wakes late it had to wait for the lock. A
call that computes in Python is asked for the lock after ``sys.getswitchinterval()`` (5 ms), so that
each beat is that late; one that waits, or computes in C code that lets go of the lock, delays no
beat by more than the timer's slack. Beats are weighed by the time of a core that the call used
meanwhile, so that the share is one of its computing.

The figures can be asked for while the call still runs (`Probe.figures`), so that a call of a
minute need not end before the others are sent somewhere.

What is not ours: other threads of the program hold the GIL, too. A beat during which they used a
core for more than `OTHERS` of the time counts only when it was on time. Where too few others
are left, the call is taken to hold the GIL whenever it uses a core, as most Python code does,
and the figures say so (``held=False``).

Time for which a thread was ready to run and had no core, since other programs have them, counts
for neither (``threadclock``, on Linux).

Assumptions: the system wakes a sleeper within a fraction of a millisecond. Where it does not tell
how long a thread waited for a core, a call on an overloaded machine may be taken for one that
waits, and C code for Python. A short call may be anyway, if another thread of ours loses its core
while it has the GIL: that is no waiting for a core in the thread of the call (4 of 60 first looks
at calls of 0.5 ms, beside 10 programs that compute without pause on two cores).
"""

from __future__ import annotations

import contextlib
import math
import pickle
import random
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from .model import Figures
from .threadclock import ThreadClock

__all__ = ["Heart", "Packing", "Probe", "packing", "watch"]

BEAT = 0.5e-3
"""Seconds that the heartbeat sleeps, on average."""

REST = 5e-3
"""The same while nothing is being measured, and something is only waited for."""

SLACK = 0.2e-3
"""Lateness that is the timer's, not the GIL's; 0.07 ms where this was built."""

OTHERS = 0.3
"""Share of a beat for which other threads may use a core without spoiling it."""

WAITING = 4e-3
"""Seconds of calls that have ended after which it is known whether they wait."""

STILL_WAITING = 10e-3
"""Seconds after which a call that goes on is known to wait: many wait first, and then compute."""

CLEAR = 8e-3
"""Seconds after which a call is known to hold, or not to hold, the GIL, where that is clear."""

LONG, GAPS = 5e-3, 12e-3
"""Of calls shorter than the first, beats must have seen so many seconds as the second says."""

UNCLEAR = 20e-3
"""Seconds after which the figures are taken as they are, be they clear or not."""

SPOILT = 60e-3
"""The same, where other threads spoil the beats."""

TINY = 0.25e-3
"""Calls shorter than this are too short for beats: `MANY` of them are enough."""

MANY = 8

TOO_SHORT = 20e-6
"""Seconds of a call of which the clocks tell no share: it computes."""

LITTLE, MUCH = 0.2, 0.7
"""Shares below and above which there is no doubt."""


OVERHEAD = 2e-6
"""Seconds that a call takes longer for being measured."""

ROUGH = 5e-6
"""Shorter calls are taken to take next to nothing: a map then runs them in place, where it becomes
known exactly how long they take."""

LEAST = 50e-9
"""Seconds that a call takes at least."""


SHORT = 2e-3
"""Calls shorter than this are taken never to have waited for a core: to look would let go of the
GIL, and spoil the beat."""


class _Running(NamedTuple):
    started: float
    cpu: float
    clock: ThreadClock


class Probe:
    """Measures calls that run one after the other, whichever thread runs each.

    `begin` and `end` are called by the thread that runs the call; all else by anyone. Time for
    which a call could have run, and had no core, does not count.
    """

    def __init__(self) -> None:
        self.calls = 0
        self._sum = self._squares = self._cpu = self._longest = 0.0
        self._running: _Running | None = None
        self._clock: tuple[int, ThreadClock] | None = None  # of which thread
        self._waited = 0.0  # what that clock said last
        self._lock = threading.Lock()
        self._turn = threading.Lock()  # held while a call is being measured
        # Of beats: seconds on a core that they saw, and for how many of these they were late.
        self._clean = self._clean_late = 0.0
        self._all = self._all_late = 0.0
        self._seen_cpu = 0.0

    def begin(self) -> bool:
        """A call begins, in this thread. False: another one is being measured, so it is not."""
        if not self._turn.acquire(blocking=False):
            return False
        me = threading.get_native_id()  # the other number may be a later thread's already
        known = self._clock  # whoever ran the last call may `close` it at any moment
        if known is None or known[0] != me:
            self._clock = known = (me, ThreadClock())
            self._waited = known[1].waited()
        elif not self.calls or self._sum > SHORT * self.calls:
            self._waited = known[1].waited()
        clock = known[1]
        cpu = clock.cpu()
        self._running = _Running(time.perf_counter(), cpu, clock)  # as late as can be
        return True

    def end(self) -> float:
        """The call has ended, in this thread. Returns its seconds."""
        now = time.perf_counter()
        running = self._running
        assert running is not None
        cpu = running.clock.cpu() - running.cpu
        wall = now - running.started
        if wall > SHORT:
            wall -= running.clock.waited() - self._waited
        wall = max(wall - OVERHEAD, LEAST)
        with self._lock:
            self._running = None
            self.calls += 1
            self._sum += wall
            self._squares += wall * wall
            self._longest = max(self._longest, wall)
            self._cpu += min(max(cpu - OVERHEAD, 0.0), wall)
        self._turn.release()
        return wall

    def close(self) -> None:
        """Give back what it holds, unless a call is being measured. It may be used again."""
        with self._lock:
            if self._running is None:
                self._clock = None

    def spent(self) -> tuple[float, float]:
        """Wall and CPU seconds of the calls so far, the one that runs included."""
        with self._lock:
            wall, cpu, running = self._sum, self._cpu, self._running
            if running is not None:
                try:
                    ran = running.clock.cpu() - running.cpu
                except OSError:
                    return wall, cpu  # the thread has ended
                now = time.perf_counter() - running.started
                if now > SHORT:
                    now -= running.clock.waited() - self._waited
                wall += max(now, 0.0)
                cpu += max(0.0, ran)
            return wall, cpu

    def mark(self) -> None:
        """By the heart: it goes to sleep now."""
        self._seen_cpu = self.spent()[1]

    def beat(self, slept: float, late: float, process_cpu: float) -> None:
        """By the heart: it has slept `slept` seconds, of which `late` too long.

        `process_cpu`: seconds of a core that the whole process used meanwhile.
        """
        _, cpu = self.spent()
        # Weighed by the time of a core: while it has none, for whatever reason, it holds nothing.
        mine = max(0.0, min(cpu - self._seen_cpu, slept))
        # Calls shorter than the switch interval let go of the lock by ending, so that a beat is
        # less late than the lock was held: what counts is whether it was held when it woke.
        held = mine if late > SLACK else 0.0
        self._all += mine
        self._all_late += held
        if process_cpu - mine <= OTHERS * slept:
            self._clean += mine
            self._clean_late += held

    def _share_held(self, cpu_share: float) -> tuple[float, bool]:
        """The share of the time for which the GIL was held, and whether it was measured."""
        # Short calls leave gaps, in which a beat is on time whatever they do: look for longer.
        enough = WAITING if self._sum >= LONG * self.calls else GAPS
        if self._all >= enough:
            least = self._all_late / self._all
            if least < LITTLE + 0.15:
                return least * cpu_share, True  # on time, whatever the others did
            if self._clean >= enough:
                return self._clean_late / self._clean * cpu_share, True
        return cpu_share, False

    def figures(self, **more: Any) -> Figures:
        """What is known so far; a call that runs counts with what it has taken until now."""
        wall, cpu = self.spent()
        calls = self.calls
        if calls:
            mean = self._sum / calls
            if calls >= MANY and mean < TINY:
                # Of few short calls, one that was interrupted would be most of the sum.
                mean = (self._sum - self._longest) / (calls - 1)
                if mean < ROUGH:
                    mean = LEAST
            spread = math.sqrt(max(0.0, self._squares / calls - mean * mean))
            running = wall - self._sum
            if running > mean:  # it will take longer than those before it
                mean = (self._sum + running) / (calls + 1)
        else:
            mean, spread = wall, 0.0
        # What is too short for the clocks computes.
        share = min(1.0, cpu / wall) if wall > TOO_SHORT * max(calls, 1) else 1.0
        held, measured = self._share_held(share)
        return Figures(
            calls,
            max(mean, 1e-9),
            share,
            min(held, share),
            spread,
            held=measured or share < LITTLE,  # who hardly computes hardly holds it
            **more,
        )

    def clear(self) -> bool:
        """Whether the figures are enough to go by."""
        wall, cpu = self.spent()
        if self.calls >= MANY and wall < TINY * self.calls:
            return True
        if wall < WAITING:
            return False
        share = cpu / wall
        if share < LITTLE:
            return wall >= (WAITING if self.calls else STILL_WAITING)
        held, measured = self._share_held(share)
        if not measured:
            return wall >= SPOILT
        if wall >= CLEAR and share > MUCH and not LITTLE < held / share < MUCH:
            return True
        return wall >= UNCLEAR


class Heart:
    """The thread that beats for probes, while it is wanted.

    Args:
        tell: called after each beat, and soon after `hurry`, in the heart's thread.
        wanted: whether there is something to beat for; when not, the thread ends. It must be so
            before `start` is called.
        name: of the thread.
    """

    def __init__(
        self,
        tell: Callable[[], None],
        wanted: Callable[[], bool],
        name: str = "lightwork-probe",
    ) -> None:
        self._tell = tell
        self._wanted = wanted
        self._name = name
        self._guard = threading.RLock()
        self._alarm = threading.Lock()  # held; whoever lets go of it wakes the heart
        self._alarm.acquire()
        self.probes: dict[Probe, None] = {}
        self.thread: threading.Thread | None = None

    def start(self) -> bool:
        """Beat from now on. False: no thread can be started any more."""
        with self._guard:
            if self.thread is not None:
                return True
            thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            try:
                thread.start()
            except RuntimeError:
                return False  # the interpreter is shutting down, or the system refuses
            self.thread = thread
            return True

    def hurry(self) -> None:
        """Let `tell` be called soon."""
        with contextlib.suppress(RuntimeError):  # it was let go of already
            self._alarm.release()

    def forget(self) -> None:
        """After a fork, in the child: the thread is not here."""
        self._guard = threading.RLock()
        self._alarm = threading.Lock()
        self._alarm.acquire()
        self.probes.clear()
        self.thread = None

    def _run(self) -> None:
        clock, alarm, own = time.perf_counter, self._alarm, ThreadClock()
        chance = random.Random()  # our own: the user's sequence is not touched
        while True:
            # At random, so as not to fall in step with calls that are as long as a beat.
            beat = BEAT * (0.5 + chance.random()) if self.probes else REST
            for probe in list(self.probes):
                probe.mark()
            used, starved, begin = time.process_time(), own.waited(), clock()
            hurried = alarm.acquire(timeout=beat)
            slept = clock() - begin
            if not hurried or slept >= beat:
                spent = time.process_time() - used
                late = slept - beat - (own.waited() - starved)  # not for want of a core
                for probe in list(self.probes):
                    probe.beat(slept, late, spent)
            try:
                self._tell()
            except Exception:
                import logging

                logging.getLogger("lightwork").exception("internal error in the probe")
            with self._guard:
                # Under the guard: whoever wants it again finds it here, or starts another.
                if not self._wanted():
                    self.thread = None
                    own.close()
                    return


def watch(call: Callable[[], Any], probe: Probe, *, measure: bool = True) -> Any:
    """Run `call` in this thread under `probe`, with a heart beside it; return its result.

    `measure`: False where `call` itself tells the probe when something to be measured begins.
    """
    done = threading.Event()
    heart = Heart(lambda: None, lambda: not done.is_set())
    heart.probes[probe] = None
    heart.start()
    thread = heart.thread
    if measure:
        probe.begin()
    try:
        return call()
    finally:
        if measure:
            probe.end()
        done.set()
        heart.hurry()
        if thread is not None:
            thread.join()


class Packing(NamedTuple):
    """What it takes to send an object to another process."""

    seconds: float
    bytes: float
    error: str  # why it cannot be sent; empty if it can


class _Enough(Exception):
    """Pickling takes longer than it is worth to know how long."""


class _Counter:
    def __init__(self, until: float) -> None:
        self.size = 0
        self._until = until

    def write(self, data: Any) -> int:
        self.size += len(data) if isinstance(data, bytes) else memoryview(data).nbytes
        if time.thread_time() > self._until:
            raise _Enough
        return 0

    def keep(self, buffer: pickle.PickleBuffer) -> None:
        """A buffer that goes beside the pickle."""
        self.size += buffer.raw().nbytes


UNKNOWN = 4
"""How many times as long as we tried it is taken to last, where we did not wait for the end."""


QUICK = 0.1e-3
"""Seconds below which packing is tried again: the first time, much of it is for the first time."""


def packing(obj: Any, what: str, budget: float) -> Packing:
    """Pickle `obj` as it would be for a process, for `budget` seconds at most; keep nothing."""
    begin = time.thread_time()  # who holds the GIL meanwhile is no matter of ours
    counter = _Counter(begin + budget)
    try:
        pickle.Pickler(counter, 5, buffer_callback=counter.keep).dump(obj)
        seconds = time.thread_time() - begin
        if seconds < min(QUICK, budget):
            again = time.thread_time()
            other = _Counter(math.inf)
            pickle.Pickler(other, 5, buffer_callback=other.keep).dump(obj)
            seconds = min(seconds, time.thread_time() - again)
    except _Enough:
        return Packing(UNKNOWN * budget, float(UNKNOWN * counter.size), "")
    except Exception:
        # By value, as the wire does it; or it cannot be, and the error says why.
        from ..errors import CannotPickle
        from ..wire.pickling import pack

        begin = time.thread_time()
        try:
            packed = pack(obj, what=what)
        except CannotPickle as error:
            return Packing(0.0, 0.0, str(error))
        size = len(packed.data) + sum(one.raw().nbytes for one in packed.buffers)
        return Packing(time.thread_time() - begin, float(size), "")
    return Packing(seconds, float(counter.size), "")
