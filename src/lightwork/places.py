"""Where a router can run calls: engines, made when they are first needed, and their sizes.

``"threads"`` is for calls that wait, ``"cores"`` threads for calls that compute, ``"probe"`` a
thread for each probe that is out, ``"processes"`` and ``"serial"`` what they say.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from .engine import Engine
from .measure.gil import has_gil
from .measure.model import Machine

if TYPE_CHECKING:
    from .route import Held, Route

__all__ = ["Places", "pack"]

MOST_THREADS = 128
"""Threads for calls that wait, at most, where the user has set no bound."""

BOOTING = 0.15
"""Seconds after which a fork server is taken to be there."""

_loaded = time.monotonic()
"""When the way to worker processes was first taken, as far as is known here."""

SAMPLES = 32
"""Items that are packed together to see what each takes in a chunk."""


class Places:
    """See above.

    Args:
        make: makes an engine: of a kind, for so many workers, called so.
        bound: how many workers of a kind there may be; None: as many as pay.
        cpus: cores that this process may use.
        processes: whether worker processes can be had.
        routes: the functions that want workers somewhere.
    """

    def __init__(
        self,
        make: Callable[[str, int, str], Engine],
        bound: int | None,
        cpus: int,
        processes: bool,
        routes: list[Route],
    ) -> None:
        self.bound = bound
        self.cpus = cpus
        self.processes = processes
        self.out = 0  # probes that are running
        self.remembers = self.timed = False  # what engines are told when they are made
        self._make = make
        self._routes = routes
        self._engines: dict[str, Engine] = {}
        self._sizes: dict[str, int] = {}
        self._making = threading.RLock()  # importing and opening take a while

    def __iter__(self) -> Iterator[Engine]:
        return iter(list(self._engines.values()))

    def get(self, place: str | None) -> Engine | None:
        """The engine of a place, if it was needed before."""
        return self._engines.get(place) if place is not None else None

    def engine(self, place: str) -> Engine:
        """The engine of a place."""
        engine = self._engines.get(place)
        if engine is None:
            with self._making:
                engine = self._engines.get(place)
                if engine is None:
                    kind = place if place in ("processes", "serial") else "threads"
                    size = self._sizes[place] = self._size(place)
                    engine = self._make(kind, size, place)
                    if self.remembers:
                        engine.remember()
                    if self.timed:
                        engine.time_calls()
                    self._engines[place] = engine
        return engine

    def family(self, route: Route, place: str) -> int:
        """The number of a function in the engine of a place."""
        family = route.families.get(place)
        if family is None:
            engine = self.engine(place)
            with self._making:
                family = route.families.get(place)
                if family is None:
                    family = engine.add_family(route.options)
                    if engine.history is not None:
                        engine.history.functions[family] = route.name
                    route.families[place] = family
        return family

    def _size(self, place: str) -> int:
        """How many workers a place is to have."""
        if place == "serial":
            return 2**31
        if place == "probe":
            return max(1, self.out)
        levels = [one.level for one in list(self._routes) if one.place == place]
        level = max(levels, default=1 if place == "threads" else self.cpus)
        if place == "processes":
            level = max(level, self.cpus)
            # A first call that goes on has a core: with as many workers as cores beside it, few
            # long calls would not be dealt out well. But nobody leaves for it.
            firsts = [one for one in list(self._routes) if one.place == place and one.is_first]
            level = max(1, level - len(firsts), min(level, self._sizes.get(place, 0)))
        if self.bound is not None:
            # A probe that runs beside the others is one of the workers that were asked for.
            level = max(1, min(level, self.bound) - self.out)
        return level

    def resize(self) -> None:
        """Let each place have the workers that it is to have now."""
        for place, engine in list(self._engines.items()):
            size = self._size(place)
            if size != self._sizes.get(place):
                self._sizes[place] = size
                engine.resize(size)

    def machine(self) -> Machine:
        """What there is, for the model."""
        processes = self._engines.get("processes")
        booted = 0.0
        if processes is not None and (found := processes.statistics()).idle + found.busy:
            booted = 1.0
        elif time.monotonic() - _loaded > BOOTING:
            booted = 0.9
        return Machine(
            cpus=self.cpus,
            gil=has_gil(),
            most_threads=self.bound or MOST_THREADS,
            most_processes=self.bound or 2 * self.cpus,
            processes=self.processes,
            booted=booted,
        )

    def pack_seconds(
        self, route: Route, sample: tuple[tuple[Any, ...], dict[str, Any]], *, chunks: bool
    ) -> float:
        """What a call really takes to be packed, its function included, in this thread's time.

        Raises CannotPickle.
        """
        args, kwargs = sample
        backend = self.engine("processes").backend
        many = SAMPLES if chunks and not kwargs and route.small else 1
        seconds = 0.0
        for _ in range(2):  # most functions are only packed the first time
            begin = time.thread_time()
            if many > 1:
                backend.prepare_chunk(route.fn, [args] * many, True)
            else:
                backend.prepare(route.fn, args, kwargs)
            seconds = time.thread_time() - begin
        return seconds / many

    def forget(self) -> None:
        """After a fork, in the child: a lock may be held by a thread that is not here."""
        self._making = threading.RLock()


def pack(engine: Engine, held: Held) -> Any:
    """The call in the form of this engine. Raises CannotPickle."""
    if held.kwargs is None:
        return engine.backend.prepare_chunk(held.fn, list(held.items), held.star)
    return engine.backend.prepare(held.fn, held.items[0], held.kwargs)
