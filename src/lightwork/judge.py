"""Decides where the calls of each function go, under ``kind="auto"``: the heart of the router.

It lets calls be measured, one after the other or, where they are short, several in one go; chooses,
when the figures of a route are clear; and looks again when they have drifted, or when there is more
work, or less, than was thought. What is decided is in `Judge.decisions`, and goes to the log.

One thread, the *heart* of the probe, is there while something is being measured or is held; all
that is decided is decided in it, but for what `glance` notices, in the thread of a submitter.
"""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from .backends.local import WatchedCall
from .decision import Decision
from .errors import CannotPickle
from .measure.gil import eager
from .measure.model import Figures, Verdict, choose
from .measure.probe import Heart, Probe
from .places import Places
from .route import EVERY, Held, Probing, Route
from .weak import WeakList

if TYPE_CHECKING:
    from .stream import Stream

__all__ = ["Judge"]

MANY_DECISIONS = 1000
"""Decisions that are remembered."""


class Desk(Protocol):
    """Where calls are held: the router."""

    lock: threading.RLock
    streams: WeakList[Stream]

    def take(self, route: Route) -> Held | None: ...

    def deliver(
        self, route: Route, held: Held, place: str, call: Any, gone: Callable[[], None] | None
    ) -> None: ...

    def release(self, route: Route, most: float = ...) -> None: ...

    def rest(self) -> None: ...


class Judge:
    """See above."""

    def __init__(self, desk: Desk, places: Places) -> None:
        self.decisions: deque[Decision] = deque(maxlen=MANY_DECISIONS)
        self._desk = desk
        self._places = places
        self._busy: dict[Route, None] = {}  # to be seen to by the heart
        self._heart = Heart(self._beat, lambda: bool(self._busy or self._heart.probes))

    @property
    def thread(self) -> threading.Thread | None:
        """The heart's, while there is one."""
        return self._heart.thread

    def forget(self) -> None:
        """After a fork, in the child."""
        self._heart.forget()
        eager.forget()
        self._busy.clear()

    def look_again(self, route: Route, held: Held) -> bool:
        """Let this call be measured if the route wants one. Returns whether it is."""
        with self._desk.lock:
            # Of several submitters, one: and none while the last one is being judged.
            if not route.wanted or route.running is not None or route.judging:
                return False
            route.fresh()
            probe = self._begin(route, held.fn)
        self._send(route, probe, [held])
        return True

    def _begin(self, route: Route, fn: Any) -> Probe:
        """Locked. A probe is about to be sent."""
        probe = route.begin(fn, time.perf_counter())
        self._places.out += 1
        self._heart.probes[probe] = None
        self._busy[route] = None
        return probe

    def _send(self, route: Route, probe: Probe, calls: list[Held]) -> None:
        """Let these calls be measured, now, one after the other."""
        out = dict.fromkeys(range(len(calls)))

        def gone(number: int) -> None:
            with self._desk.lock:
                out.pop(number, None)
                if out or route.running is not probe:
                    return
                route.running = None
                route.judging = True
                self._places.out -= 1
                self._heart.probes.pop(probe, None)
            probe.close()
            eager.enough(probe)
            self.stir(route)

        self._places.resize()
        for number, held in enumerate(calls):
            ended = partial(gone, number)
            try:
                call = WatchedCall(Probing(route, probe, ended), *held[1:5])
                self._desk.deliver(route, held, "probe", call, ended)
            except Exception as error:
                ended()
                held.fail(error)

    def _next_probes(self, route: Route) -> list[Held]:
        """Locked. What is to be measured next: where calls are short, several, in one go."""
        first = self._desk.take(route)
        if first is None:
            return []
        found = [first]
        most, count = route.probe_calls(), len(first.items)
        while count < most and (held := self._desk.take(route)) is not None:
            found.append(held)
            count += len(held.items)
        return found

    def glance(self, route: Route) -> None:
        """Tell a route, now and then, how long calls take where it cannot see them itself."""
        now = time.perf_counter()
        place = route.place
        if now < route.next_glance or place is None or place == "threads":
            return
        route.next_glance = now + EVERY
        if place != "cores":  # there it sees for itself
            family = route.families.get(place)
            if family is not None:
                route.seen = self._places.engine(place).expected(family)
            route.look(now)
        if place != "processes":
            self.reconsider(route, now)

    def reconsider(self, route: Route, now: float) -> None:
        """The amount of work is another than was thought."""
        figures, kind = route.figures, route.kind
        if figures is None or route.wanted:
            return
        if route.seen is not None and kind == "serial":
            figures = dataclasses.replace(figures, wall=max(route.seen, 1e-9))
        work = route.work()
        if not work.calls:
            return
        verdict = choose(figures, self._places.machine(), work, current=kind)
        if verdict.kind != kind:
            self._go_by(route, verdict, figures, now)

    def stir(self, route: Route) -> None:
        """Something about a route is to be seen to, by the heart."""
        with self._desk.lock:
            self._busy[route] = None
        if self._heart.start():
            self._heart.hurry()
        else:
            self._without_heart(route)

    def _without_heart(self, route: Route) -> None:
        """No thread can be started any more: nothing can be measured. Processes need none."""
        with self._desk.lock:
            self._busy.pop(route, None)
            if route.place is None:
                route.place = "processes" if self._places.processes else "cores"
        self._desk.release(route)
        self._desk.rest()

    def _beat(self) -> None:
        """In the heart's thread: see to what is going on."""
        for route in list(self._busy):
            try:
                self._see_to(route)
            except Exception as error:
                self._give_up(route, error)
        self._desk.rest()

    def _see_to(self, route: Route) -> None:
        now = time.perf_counter()
        with self._desk.lock:
            if route.anew and route.running is None:
                route.measure_anew(now)
        probe = route.probe
        running = route.running is not None
        if route.place is None:
            if (running or probe.calls) and route.due(now):
                with self._desk.lock:
                    if route.running is probe:  # who has the GIL meanwhile; see `gone`
                        eager.want(probe)
                self._decide(route, now)
        elif route.judging and not running:
            self._look_back(route, now)
        route.grow()
        if running and probe in self._heart.probes and probe.clear():
            self._heart.probes.pop(probe, None)
        if route.place is not None:
            self._places.resize()
            self._desk.release(route, self._room(route))
        elif not running and not self._is_disturbed(route, now):
            with self._desk.lock:
                calls = self._next_probes(route)
                route.releasing = bool(calls)
                if calls:
                    probe = self._begin(route, calls[0].fn)
            if calls:
                self._send(route, probe, calls)
                route.releasing = False
        if route.running is None and route.sample is not None and not route.held:
            route.pack_sample()
            route.sample = None  # nobody's arguments are to be held
        with self._desk.lock:
            judged = route.place is None or not route.judging
            if (
                judged
                and not route.is_starting
                and not route.held
                and route.probe not in self._heart.probes
            ):
                self._busy.pop(route, None)

    def _look_back(self, route: Route, now: float) -> None:
        """A probe of a route that has a place has ended: is that place right?"""
        with self._desk.lock:
            if route.misled():
                route.measure_anew(now)
            elif not route.probe.clear():
                route.ask_for_more()
            decided = route.place is not None and not route.wanted
        if decided:
            self._decide(route, now)
        route.judging = False  # only now: meanwhile nothing is sent that could not be held

    def _is_disturbed(self, route: Route, now: float) -> bool:
        """Whether there are calls of its own that still run, beside which none can be measured."""
        engine = self._places.get("threads")
        if engine is None or now > route.alone_by:
            return False
        found = engine.statistics()
        return found.queued + found.running > 0

    def _room(self, route: Route) -> float:
        """How many calls may be sent now."""
        if not route.is_starting:
            return math.inf
        found = self._places.engine("threads").statistics()
        return max(0, route.level - found.queued - found.running)

    def _decide(self, route: Route, now: float) -> None:
        machine, work = self._places.machine(), route.work()
        if not work.calls:
            return  # for the last call there is nothing to decide
        verdict, figures = route.assess(machine, work)
        if route.too_early(verdict, figures, now):
            return
        if verdict.kind == "processes" and route.sample is not None:
            try:
                seconds = self._places.pack_seconds(route, route.sample, chunks=work.chunks)
                figures = dataclasses.replace(figures, pack_in=seconds)
            except CannotPickle as error:
                figures = dataclasses.replace(figures, stays=str(error))
            verdict = choose(figures, machine, work, current=route.kind)
        self._go_by(route, verdict, figures, now)

    def _go_by(self, route: Route, verdict: Verdict, figures: Figures, now: float) -> None:
        if route.settle(verdict, figures, self._places.machine(), now):
            decision = Decision(
                route.name, verdict.kind, route.workers, verdict.why, figures, time.time()
            )
            self.decisions.append(decision)
            import logging

            logging.getLogger("lightwork").info("%s", decision)
        route.waiting = lambda: self._waiting(route)
        for stream in self._desk.streams.living():
            lane: Any = stream._engine
            if lane in route.lanes:
                stream.look_again()

    def _waiting(self, route: Route) -> int:
        engine = self._places.get(route.place)
        return len(route.held) + (engine.statistics().queued if engine is not None else 0)

    def _give_up(self, route: Route, error: Exception) -> None:
        """A bug of ours, or of code that pickles an argument: the calls are run all the same."""
        import logging

        logging.getLogger("lightwork").error("the probe of %s failed", route.name, exc_info=error)
        with self._desk.lock:
            self._busy.pop(route, None)
            route.judging = False
            if route.place is None:
                route.place = "cores"
        self._desk.release(route)
