"""``kind="auto"``: several engines behind the face of one; each function runs where it runs best.

A router looks to the pool, to streams and to futures like an engine. It makes its engines when
they are first needed, and has a `Route` for each function (``route.py`` says how one lives). What
it decides is in `decisions`, and goes to the log, one line each at INFO.

Who does what:

* Whoever submits holds the call, or sends it to the engine of its route's place.
* One thread, the *heart* of the probe, is there while something is being measured or is held. It
  decides, and releases what was held, in order. Where no thread can be started any more (while
  the interpreter ends), the submitter does that itself.

How a call may not be lost:

1. While a route has held calls, or is releasing them, new ones are held behind them, under the
   lock. The heart lets a route go only when it has found its queue empty, under the lock.
2. The engines are closed when nothing is held any more; until then ``wait_finished`` waits.
3. Whatever ends a probe, be it cancelled or refused, is heard of (`Hop`), and the next is sent.

The lock is held for moments, and nobody's code runs under it.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from .backends.local import WatchedCall
from .core.scheduler import Statistics
from .decision import Decision
from .engine import Engine
from .errors import CannotPickle, PoolClosed
from .future import Future
from .hop import Hop, Ticket
from .lane import PROBE_CHUNK, PROBE_MOST, Lane
from .measure.gil import eager
from .measure.model import Figures, Verdict, choose
from .measure.probe import Heart
from .options import TaskOptions
from .places import Places, pack
from .pump import slices
from .route import EVERY, Held, Probing, Route

if TYPE_CHECKING:
    from .observe.history import History
    from .stream import Stream

__all__ = ["Router"]

NAP, NAP_EVERY = 1e-4, 64
"""Seconds that a submitter sleeps at each so many calls that are held."""

MANY_DECISIONS = 1000
"""Decisions that are remembered."""


class Router:
    """Runs each function on the engine where it runs best.

    Args:
        make: makes an engine: of a kind, for so many workers, called so.
        max_workers: how many workers of a kind there may be; None: as many as pay.
        cpus: cores that this process may use.
        processes: whether worker processes can be had.
    """

    kind = "auto"
    history: History | None = None  # it shows one engine: see ``assembly.PoolOptions``

    def __init__(
        self,
        make: Callable[[str, int, str], Engine],
        *,
        max_workers: int | None,
        cpus: int,
        processes: bool = True,
    ) -> None:
        self.backend = self  # it prepares calls for itself
        self.decisions: deque[Decision] = deque(maxlen=MANY_DECISIONS)
        self.streams: weakref.WeakSet[Stream] = weakref.WeakSet()
        self._lock = threading.RLock()
        self._routes: list[Route] = []
        self.places = Places(make, max_workers, cpus, processes, self._routes)
        self._busy: dict[Route, None] = {}  # to be seen to by the heart
        self._submitted = 0
        self._held = 0
        self._closed: str | None = None
        self._cancelling = False
        self._quiet = threading.Event()  # closed, and nothing is held
        self._heart = Heart(self._beat, lambda: bool(self._busy or self._heart.probes))
        _routers.add(self)

    # -- what an engine can do, for the pool ------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether no more tasks are taken."""
        return self._closed is not None

    def check_open(self) -> None:
        """Raise PoolClosed when no more tasks are taken."""
        if self._closed is not None:
            raise PoolClosed(f"cannot schedule new futures: {self._closed}")

    def remembered(self) -> None:
        """See Engine. Nothing."""

    def add_family(self, options: TaskOptions) -> int:
        """A function with its options; return its number."""
        with self._lock:
            self._routes.append(Route(options, self._stir))
            return len(self._routes) - 1

    def prepare(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """As of a backend; where it goes is not known yet, so nothing is packed."""
        return fn, args, kwargs

    def submit(self, call: Any, future: Future, family: int) -> None:
        """See Engine."""
        fn, args, kwargs = call
        route = self._routes[family]
        with self._lock:
            future._index = index = self._submitted
            self._submitted += 1
            future._family = family
            held = Held(future, fn, (args,), True, kwargs, index, None)
            direct = self._take_up(route, held)
        self._go_on(route, direct)
        if direct:
            self.glance(route)
            self.send(route, held)

    def accept(self, route: Route, held: Held) -> bool:
        """Take calls that are new. Returns whether they are to be sent at once; else they are held.

        Raises PoolClosed.
        """
        with self._lock:
            direct = self._take_up(route, held)
        self._go_on(route, direct)
        return direct

    def _take_up(self, route: Route, held: Held) -> bool:
        """Locked. See `accept`."""
        self.check_open()
        if route.name == "?":
            route.called(held.fn)
        if self.is_direct(route):
            return True
        self._hold(route, held)
        return False

    def _go_on(self, route: Route, direct: bool) -> None:
        """After `_take_up`, without the lock: let the others do what is to be done."""
        if not direct:
            self._stir(route)
            if not len(route.held) % NAP_EVERY:
                # Who submits without pause has the GIL: each step of the others would take the
                # switch interval of 5 ms, and meanwhile more would be held.
                time.sleep(NAP)

    def lane(self, family: int, total: int | None) -> Lane:
        """The engine for one map of this family, of so many calls, if that is known."""
        route = self._routes[family]
        lane = Lane(self, route, total)
        route.lanes.add(lane)
        if self.is_direct(route):
            self._reconsider(route, time.perf_counter())  # it may be much more, or less, this time
        return lane

    def cancel(self, tasks: Iterable[int]) -> None:
        """Let these not start, as far as they have not."""
        for task in tasks:
            if not isinstance(task, Ticket):
                continue  # of a future that was sent on meanwhile
            engine: Any = task.engine
            if engine is not self:
                engine.cancel([int(task)])
                continue
            with self._lock:
                held, task.held = task.held, None
                task.cancelled = True
            if held is not None:
                self._held -= 1
                held.target._cancelled(0, len(held.items))

    def cancel_future(self, future: Future) -> None:
        """Let this call not start, if it is still held."""
        if isinstance(future._task, Ticket):
            self.cancel([future._task])

    def kill_future(self, future: Future) -> bool:
        """What is held does not run: it is to be cancelled."""
        return False

    def is_running(self, future: Future) -> bool:
        """What is held does not run."""
        return False

    def help(self, future: Future, timeout: float | None) -> None:
        """A caller waits for a future that was held a moment ago."""
        engine: Any = future._engine
        if engine is not None and engine is not self:
            engine.help(future, timeout)

    def stir(self, future: Future) -> None:
        """A held future was finished by somebody else. It will run all the same."""

    def resize(self, workers: int) -> None:
        """So many workers of each kind, from now on."""
        self.places.bound = workers
        self.places.resize()

    def statistics(self) -> Statistics:
        """The sums over all engines; what is held counts as queued."""
        found = [engine.statistics() for engine in list(self.places)]
        names = [field.name for field in dataclasses.fields(Statistics)]
        sums = {name: sum(getattr(one, name) for one in found) for name in names}
        sums["queued"] += self._held
        return Statistics(**sums)

    # -- ending ------------------------------------------------------------------------------------

    def close(self, *, cancel: bool, why: str = "the pool was shut down") -> None:
        """See Engine."""
        if not cancel and self._closed is None:
            for stream in list(self.streams):
                stream.feed_rest()
        with self._lock:
            self._closed = self._closed or why
            self._cancelling = self._cancelling or cancel
        if cancel:
            self._cancel_held()
        self._close_engines()

    def _cancel_held(self) -> None:
        with self._lock:
            held = [one for route in self._routes for one in route.held]
        self.cancel([one.ticket for one in held])

    def _close_engines(self) -> None:
        """Once nothing is held any more."""
        with self._lock:
            if self._closed is None or any(route.held or route.releasing for route in self._routes):
                return
            engines = list(self.places)
        for engine in engines:
            engine.close(cancel=self._cancelling, why=self._closed)
        self._quiet.set()

    def drop(self) -> None:
        """The pool was forgotten: close soon. Safe in a finaliser."""
        self._closed = self._closed or "the pool was dropped"
        if any(route.held or route.releasing for route in self._routes):
            return  # who releases it closes the engines
        self._quiet.set()
        for engine in list(self.places):
            engine.drop()

    def abort(self, why: str) -> None:
        """See Engine."""
        self._closed = self._closed or why
        self._cancelling = True
        self._cancel_held()
        for engine in list(self.places):
            engine.abort(why)
        self._quiet.set()

    def wait_finished(self, timeout: float | None = None) -> bool:
        """See Engine."""
        me = threading.current_thread()
        engines = list(self.places)
        inside = any(engine.backend.inside() or engine._pump.thread is me for engine in engines)
        if inside or self._heart.thread is me:
            return self._quiet.is_set() and all(engine._finished.is_set() for engine in engines)
        until = None if timeout is None else time.monotonic() + timeout
        if not self.wait_quiet(timeout):
            return False
        for engine in list(self.places):
            left = None if until is None else max(0.0, until - time.monotonic())
            if not engine.wait_finished(left):
                return False
        heart = self._heart.thread
        if heart is not None:
            heart.join(timeout)
        return True

    def wait_quiet(self, timeout: float | None) -> bool:
        """Wait until it is closed, and holds nothing any more."""
        for moment in slices(timeout, divide=True):
            if self._quiet.wait(moment):
                return True
        return self._quiet.is_set()

    @property
    def max_workers(self) -> int:
        """How many workers a kind has at most, or by default."""
        return self.places.bound or self.places.cpus

    # -- calls -------------------------------------------------------------------------------------

    @staticmethod
    def is_direct(route: Route) -> bool:
        """Whether its calls need not be held."""
        return route.place is not None and not route.held and not route.releasing

    def _hold(self, route: Route, held: Held) -> None:
        """Locked."""
        ticket = Ticket(-1)
        ticket.engine = self
        held = held._replace(ticket=ticket)
        ticket.held = held
        held.target._carved(ticket)
        route.held.append(held)
        self._held += 1

    def _take(self, route: Route) -> Held | None:
        """Locked. The first call that is held and not cancelled."""
        while route.held:
            held = route.held.popleft()
            if not held.ticket.cancelled:
                held.ticket.held = None
                self._held -= 1
                return held
        return None

    def send(self, route: Route, held: Held, place: str | None = None) -> None:
        """To the engine of a place, the route's own by default.

        Raises PoolClosed and PoolBroken.
        """
        if route.wanted and route.running is None and self.places.bound != 1:
            self._send_probe(route, held)
            return
        # It may be measured anew since a moment ago: then this one is not waited for.
        place = place or route.place or "cores"
        if place == "serial" and not route.lanes:
            place = "cores"  # ``submit`` does not block on work
        call: Any = None
        if place == "processes":
            try:
                call = pack(self.places.engine(place), held)
            except CannotPickle:
                place = "cores"  # this one cannot travel; it can run here
        elif place == "serial":
            call = pack(self.places.engine(place), held)
        if call is None:
            call = route.local(held)
        self.deliver(route, held, place, call, None)

    def deliver(
        self, route: Route, held: Held, place: str, call: Any, gone: Callable[[], None] | None
    ) -> None:
        """Hand a call, as the engine of its place wants it, to that engine."""
        engine = self.places.engine(place)
        family = self.places.family(route, place)
        target = held.target
        route.submitted += len(held.items)
        if isinstance(target, Future):
            target._engine = engine
            if gone is None:
                engine.submit(call, target, family, held.index)
                return
        hop: Any = Hop(target, engine, gone)
        engine.submit_chunk(call, hop, family, held.index)

    def _send_probe(self, route: Route, *calls: Held) -> None:
        """Let these calls be measured, now, one after the other."""
        with self._lock:
            if route.place is not None:
                route.fresh()
            probe = route.probe
            route.begin(calls[0].fn, probe, time.perf_counter())
            self.places.out += 1
            self._heart.probes[probe] = None
            self._busy[route] = None
        out = dict.fromkeys(range(len(calls)))

        def gone(number: int) -> None:
            with self._lock:
                out.pop(number, None)
                if out or route.running is not probe:
                    return
                route.running = None
                route.judging = True
                self.places.out -= 1
                self._heart.probes.pop(probe, None)
            probe.close()
            eager.enough(probe)
            self._stir(route)

        self.places.resize()
        for number, held in enumerate(calls):
            ended = partial(gone, number)
            try:
                call = WatchedCall(Probing(route, probe, ended), *held[1:5])
                self.deliver(route, held, "probe", call, ended)
            except Exception as error:
                ended()
                _fail(held, error)

    def _next_probes(self, route: Route) -> list[Held]:
        """Locked. What is to be measured next: where calls are short, several, in one go."""
        first = self._take(route)
        if first is None:
            return []
        found = [first]
        if route.probe.calls:
            wall = route.probe.figures().wall
            most = min(int(PROBE_CHUNK / wall), 8 * route.probe.calls, PROBE_MOST)
            count = len(first.items)
            while count < most and (held := self._take(route)) is not None:
                found.append(held)
                count += len(held.items)
        return found

    def _send_or_fail(self, route: Route, held: Held) -> None:
        """What cannot be sent ends with the reason."""
        try:
            # This thread has others to see to: nothing is run in it.
            self.send(route, held, "cores" if route.place == "serial" else None)
        except Exception as error:
            _fail(held, error)

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
                route.seen = self.places.engine(place).expected(family)
            route.look(now)
        if place != "processes":
            self._reconsider(route, now)

    def _reconsider(self, route: Route, now: float) -> None:
        """The amount of work is another than was thought."""
        figures, kind = route.figures, route.kind
        if figures is None or route.wanted:
            return
        if route.seen is not None and kind == "serial":
            figures = dataclasses.replace(figures, wall=max(route.seen, 1e-9))
        work = route.work()
        if not work.calls:
            return
        verdict = choose(figures, self.places.machine(), work, current=kind)
        if verdict.kind != kind:
            self._go_by(route, verdict, figures, now)

    # -- the heart ---------------------------------------------------------------------------------

    def _stir(self, route: Route) -> None:
        """Something about a route is to be seen to, by the heart."""
        with self._lock:
            self._busy[route] = None
        if self._heart.start():
            self._heart.hurry()
        else:
            self._without_heart(route)

    def _without_heart(self, route: Route) -> None:
        """No thread can be started any more: nothing can be measured. Processes need none."""
        with self._lock:
            self._busy.pop(route, None)
            if route.place is None:
                route.place = "processes" if self.places.processes else "cores"
        self._release(route)
        if self._closed is not None:
            self._close_engines()

    def _beat(self) -> None:
        """In the heart's thread: see to what is going on."""
        for route in list(self._busy):
            try:
                self._see_to(route)
            except Exception as error:
                self._give_up(route, error)
        if self._closed is not None:
            self._close_engines()

    def _see_to(self, route: Route) -> None:
        now = time.perf_counter()
        if route.anew and route.running is None:
            with self._lock:
                route.measure_anew()
        probe = route.probe
        running = route.running is not None
        if route.place is None:
            if (running or probe.calls) and route.due(now):
                with self._lock:
                    if route.running is probe:  # who has the GIL meanwhile; see `gone`
                        eager.want(probe)
                self._decide(route, now)
        elif route.judging and not running:
            if probe.clear():
                self._decide(route, now)
            else:
                route.wanted = True  # the next call is to be another probe
            route.judging = False
        if running and probe in self._heart.probes and probe.clear():
            self._heart.probes.pop(probe, None)
        if route.place is not None:
            self._release(route)
            self.places.resize()
        elif not running:
            with self._lock:
                calls = self._next_probes(route)
                route.releasing = bool(calls)
            if calls:
                self._send_probe(route, *calls)
                route.releasing = False
        if route.running is None and route.sample is not None and not route.held:
            route.pack_sample()
            route.sample = None  # nobody's arguments are to be held
        with self._lock:
            judged = route.place is None or not route.judging
            if judged and not route.held and probe not in self._heart.probes:
                self._busy.pop(route, None)

    def _decide(self, route: Route, now: float) -> None:
        machine, work = self.places.machine(), route.work()
        if not work.calls:
            return  # for the last call there is nothing to decide
        verdict, figures = route.assess(machine, work)
        if route.too_early(verdict, figures, now):
            return
        if verdict.kind == "processes" and route.sample is not None:
            try:
                seconds = self.places.pack_seconds(route, route.sample, chunks=work.chunks)
                figures = dataclasses.replace(figures, pack_in=seconds)
            except CannotPickle as error:
                figures = dataclasses.replace(figures, stays=str(error))
            verdict = choose(figures, machine, work, current=route.kind)
        self._go_by(route, verdict, figures, now)

    def _go_by(self, route: Route, verdict: Verdict, figures: Figures, now: float) -> None:
        if route.settle(verdict, figures, self.places.machine(), now):
            decision = Decision(
                route.name, verdict.kind, route.level, verdict.why, figures, time.time()
            )
            self.decisions.append(decision)
            import logging

            logging.getLogger("lightwork").info("%s", decision)
        route.waiting = lambda: self._waiting(route)
        for stream in list(self.streams):
            lane: Any = stream._engine
            if lane in route.lanes:
                stream.look_again()

    def _waiting(self, route: Route) -> int:
        engine = self.places.get(route.place)
        return len(route.held) + (engine.statistics().queued if engine is not None else 0)

    def _release(self, route: Route) -> None:
        """Send on what was held, in order."""
        while True:
            with self._lock:
                held = self._take(route)
                route.releasing = held is not None
            if held is None:
                return
            self._send_or_fail(route, held)

    def _give_up(self, route: Route, error: Exception) -> None:
        """A bug of ours, or of code that pickles an argument: the calls are run all the same."""
        import logging

        logging.getLogger("lightwork").error("the probe of %s failed", route.name, exc_info=error)
        with self._lock:
            self._busy.pop(route, None)
            route.judging = False
            if route.place is None:
                route.place = "cores"
        self._release(route)

    def orphan(self, why: str) -> None:
        """In a forked child: our threads are not here, and the engines have closed themselves."""
        self._lock = threading.RLock()
        self.places.forget()
        self._heart.forget()
        eager.forget()
        self._busy.clear()
        self._closed = why
        for route in self._routes:
            while route.held:
                held = route.held.popleft()
                if not held.ticket.cancelled:
                    held.target._orphaned(PoolClosed(why))
        self._quiet = threading.Event()
        self._quiet.set()


def _fail(held: Held, error: Exception) -> None:
    """These calls end with `error`."""
    count = len(held.items)
    errors: dict[int, BaseException] = dict.fromkeys(range(count), error)
    held.target._settle(0, [None] * count, errors, (0, None, 0.0, 0.0), time.monotonic())


# -- the end of the program, and forks -------------------------------------------------------------

_routers: weakref.WeakSet[Router] = weakref.WeakSet()


def _at_exit() -> None:
    """Let go of all that is held, before the engines are ended (``exits``)."""
    routers = list(_routers)
    interrupted = getattr(sys, "last_type", None)
    try:
        if interrupted is not None and issubclass(interrupted, KeyboardInterrupt):
            raise KeyboardInterrupt
        for router in routers:
            router.close(cancel=False, why="the interpreter is shutting down")
        for router in routers:
            router.wait_quiet(None)
    except KeyboardInterrupt:
        for router in routers:
            router.abort("the program was interrupted")


def _after_fork_in_child() -> None:
    parent = os.getppid()
    for router in list(_routers):
        router.orphan(f"this pool belongs to process {parent}, which forked this one")


# Hooks run last in, first out: this one before that of ``exits``, which the pool has loaded.
threading._register_atexit(_at_exit)  # type: ignore[attr-defined]
os.register_at_fork(after_in_child=_after_fork_in_child)
