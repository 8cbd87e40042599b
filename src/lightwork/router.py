"""``kind="auto"``: several engines behind the face of one; each function runs where it runs best.

A router looks to the pool, to streams and to futures like an engine. It makes its engines when
they are first needed, and has a `Route` for each function (``route.py`` says how one lives). What
it decides is in `decisions`, and goes to the log, one line each at INFO.

Whoever submits holds the call, or sends it to the engine of its route's place. The `Judge` decides
what that is, and then releases what was held, in order; where no thread can be started for it any
more (while the interpreter ends), the submitter does that itself.

How a call may not be lost:

1. While a route has held calls, or is releasing them, new ones are held behind them, under the
   lock. The heart lets a route go only when it has found its queue empty, under the lock.
2. The engines are closed when nothing is held any more; until then ``wait_finished`` waits.
3. Whatever ends a probe, be it cancelled or refused, is heard of (`Hop`), and the next is sent.

The lock is held for moments, and nobody's code runs under it.
"""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from . import exits
from .core.scheduler import Statistics
from .engine import AtWork, Engine
from .errors import CannotPickle, PoolClosed
from .future import Future
from .hop import Hop, Ticket
from .judge import Judge
from .lane import Lane
from .options import TaskOptions
from .places import Places, pack
from .pump import slices
from .route import Held, Route
from .weak import WeakList

if TYPE_CHECKING:
    from .observe.history import History
    from .stream import Stream

__all__ = ["Router"]

NAP, NAP_EVERY = 1e-4, 64
"""Seconds that a submitter sleeps at each so many calls that are held."""


class Router:
    """Runs each function on the engine where it runs best.

    Args:
        make: makes an engine: of a kind, for so many workers, called so.
        name: of the pool.
        max_workers: how many workers of a kind there may be; None: as many as pay.
        cpus: cores that this process may use.
        processes: whether worker processes can be had.
    """

    kind = "auto"
    history: History | None = None  # each engine has one; see `remembered`

    def __init__(
        self,
        make: Callable[[str, int, str], Engine],
        *,
        name: str,
        max_workers: int | None,
        cpus: int,
        processes: bool = True,
    ) -> None:
        self.backend = self  # it prepares calls for itself
        self.streams: WeakList[Stream] = WeakList()
        self.lock = threading.RLock()
        self._routes: list[Route] = []
        self.places = Places(make, max_workers, cpus, processes, self._routes)
        self.judge = Judge(self, self.places)
        self.decisions = self.judge.decisions
        self._submitted = 0
        self._held = 0
        self._closed: str | None = None
        self._cancelling = False
        self._quiet = threading.Event()  # closed, and nothing is held
        self.at_end: list[Callable[[], None]] = []  # called once, when all is over
        self._ending: dict[Router | Engine, None] | None = None  # those that are to end yet
        self._name = name
        self._begun = time.monotonic()
        exits.register(self, first=True)

    # -- what an engine can do, for the pool ------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether no more tasks are taken."""
        return self._closed is not None

    def check_open(self) -> None:
        """Raise PoolClosed when no more tasks are taken."""
        if self._closed is not None:
            raise PoolClosed(f"cannot schedule new futures: {self._closed}")

    def remember(self) -> None:
        """See Engine."""
        self.places.remembers = True

    def time_calls(self) -> None:
        """See Engine."""
        self.places.timed = True

    def remembered(self) -> tuple[History, Statistics, float] | None:
        """See Engine: all engines' histories, as one. What is held has no part in it yet."""
        if not self.places.remembers:
            return None
        from .observe.merge import merged

        found = [one for engine in self.places if (one := engine.remembered()) is not None]
        history = merged([one[0] for one in found], self._name, self.kind, self._begun)
        return history, self.statistics(), time.monotonic()

    def running(self) -> list[AtWork]:
        """See Engine: the workers of all engines."""
        return [one for engine in self.places for one in engine.running()]

    def add_family(self, options: TaskOptions) -> int:
        """A function with its options; return its number."""
        with self.lock:
            self._routes.append(Route(options, self.judge.stir))
            return len(self._routes) - 1

    def prepare(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """As of a backend; where it goes is not known yet, so nothing is packed."""
        return fn, args, kwargs

    def submit(self, call: Any, future: Future, family: int) -> None:
        """See Engine."""
        fn, args, kwargs = call
        route = self._routes[family]
        with self.lock:
            future._index = index = self._submitted
            self._submitted += 1
            future._family = family
            held = Held(future, fn, (args,), True, kwargs, index, None)
            direct = self._take_up(route, held)
        self._go_on(route, direct)
        if direct:
            self.judge.glance(route)
            self.send(route, held)

    def accept(self, route: Route, held: Held) -> bool:
        """Take calls that are new. Returns whether they are to be sent at once; else they are held.

        Raises PoolClosed.
        """
        with self.lock:
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
            self.judge.stir(route)
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
            self.judge.reconsider(
                route, time.perf_counter()
            )  # it may be much more, or less, this time
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
            with self.lock:
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
            for stream in self.streams.living():
                stream.feed_rest()
        with self.lock:
            self._closed = self._closed or why
            self._cancelling = self._cancelling or cancel
        if cancel:
            self._cancel_held()
        self.rest()

    def _cancel_held(self) -> None:
        with self.lock:
            held = [one for route in self._routes for one in route.held]
        self.cancel([one.ticket for one in held])

    def rest(self) -> None:
        """Close the engines once nothing is held any more, if no more calls are taken."""
        with self.lock:
            if self._closed is None or any(route.held or route.releasing for route in self._routes):
                return
            engines = list(self.places)
        self._see_the_end()
        for engine in engines:
            engine.close(cancel=self._cancelling, why=self._closed)
        self._quiet.set()

    def _see_the_end(self) -> None:
        """The engines are about to be ended: `at_end` is for when they all have. Takes no lock."""
        if self._ending is not None:
            return
        engines = list(self.places)
        self._ending = dict.fromkeys([self, *engines])
        for engine in engines:
            engine.at_end.append(partial(self._has_ended, engine))
        self._has_ended(self)

    def _has_ended(self, one: Router | Engine) -> None:
        assert self._ending is not None
        self._ending.pop(one, None)
        while self.at_end and not self._ending:
            self.at_end.pop()()

    def drop(self) -> None:
        """The pool was forgotten: close soon. Safe in a finaliser."""
        self._closed = self._closed or "the pool was dropped"
        if any(route.held or route.releasing for route in self._routes):
            return  # who releases it closes the engines
        self._quiet.set()
        self._see_the_end()
        for engine in list(self.places):
            engine.drop()

    def abort(self, why: str) -> None:
        """See Engine."""
        self._closed = self._closed or why
        self._cancelling = True
        self._cancel_held()
        self._see_the_end()
        for engine in list(self.places):
            engine.abort(why)
        self._quiet.set()

    def wait_finished(self, timeout: float | None = None) -> bool:
        """See Engine."""
        me = threading.current_thread()
        engines = list(self.places)
        inside = any(engine.backend.inside() or engine._pump.thread is me for engine in engines)
        if inside or self.judge.thread is me:
            return self.finished
        until = None if timeout is None else time.monotonic() + timeout
        if not self.wait_quiet(timeout):
            return False
        for engine in list(self.places):
            left = None if until is None else max(0.0, until - time.monotonic())
            if not engine.wait_finished(left):
                return False
        heart = self.judge.thread
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
    def finished(self) -> bool:
        """Whether all is over."""
        return self._quiet.is_set() and all(engine.finished for engine in self.places)

    @property
    def max_workers(self) -> int:
        """How many workers a kind has at most, or by default."""
        return self.places.bound or self.places.cpus

    # -- calls -------------------------------------------------------------------------------------

    @staticmethod
    def is_direct(route: Route) -> bool:
        """Whether its calls need not be held."""
        if route.place is None or route.is_starting:
            return False
        return not route.held and not route.releasing

    def _hold(self, route: Route, held: Held) -> None:
        """Locked."""
        ticket = Ticket(-1)
        ticket.engine = self
        held = held._replace(ticket=ticket)
        ticket.held = held
        held.target._carved(ticket)
        route.hold(held)
        self._held += 1

    def take(self, route: Route) -> Held | None:
        """Locked. The first call that is held and not cancelled."""
        while route.held:
            held = route.let_go()
            if not held.ticket.cancelled:
                held.ticket.held = None
                self._held -= 1
                return held
        return None

    def send(self, route: Route, held: Held, place: str | None = None) -> None:
        """To the engine of a place, the route's own by default.

        Raises PoolClosed and PoolBroken.
        """
        if route.wanted and self.places.bound != 1 and self.judge.look_again(route, held):
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
        hop: Any = Hop(target, engine, gone, len(held.items))
        engine.submit_chunk(call, hop, family, held.index)

    def _send_or_fail(self, route: Route, held: Held) -> None:
        """What cannot be sent ends with the reason."""
        try:
            # This thread has others to see to: nothing is run in it.
            self.send(route, held, "cores" if route.place == "serial" else None)
        except Exception as error:
            held.fail(error)

    def release(self, route: Route, most: float = math.inf) -> None:
        """Send on what was held, in order, so many at most."""
        while most > 0:
            most -= 1
            with self.lock:
                held = self.take(route)
                route.releasing = held is not None
            if held is None:
                return
            self._send_or_fail(route, held)

    def orphan(self, why: str) -> None:
        """In a forked child: our threads are not here, and the engines have closed themselves."""
        self.lock = threading.RLock()
        self.places.forget()
        self.judge.forget()
        self._closed = why
        for route in self._routes:
            while route.held:
                held = route.let_go()
                if not held.ticket.cancelled:
                    held.target._orphaned(PoolClosed(why))
        self._quiet = threading.Event()
        self._quiet.set()
