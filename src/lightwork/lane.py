"""What a map has in the place of an engine, under ``kind="auto"``.

A stream asks its engine how much to read ahead, how many calls to put into a chunk, and hands it
the chunks. A lane answers for wherever the function runs now, which may change on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from .errors import CannotPickle
from .pump import slices
from .route import Held, Route

if TYPE_CHECKING:
    from .engine import Engine
    from .router import Router
    from .stream import Chunk, Stream

__all__ = ["Lane"]

IN_PLACE_AHEAD = 50.0
"""In place, the window of a map need not be ahead: it is as if calls took so many times as long."""


class _Packet:
    """Calls of a map that are on their way; packed already where their place is known."""

    __slots__ = ("call", "fn", "items", "place", "star")

    def __init__(self, fn: Callable[..., Any], items: list[Any], star: bool) -> None:
        self.fn = fn
        self.items = items
        self.star = star
        self.place: str | None = None
        self.call: Any = None

    @property
    def calls(self) -> int:
        """How many."""
        return len(self.items)

    @property
    def size(self) -> int:
        """Bytes of packed arguments."""
        return getattr(self.call, "size", 0)


class Lane:
    """What a stream has in the place of an engine: the calls of one map."""

    scattered = True

    def __init__(self, router: Router, route: Route, total: int | None) -> None:
        self.backend = self
        self.streams = router.streams
        self.check_open = router.check_open
        self.cancel = router.cancel
        self._router = router
        self._route = route
        self._total = total
        self._sent = 0

    def left(self) -> int | None:
        """How many calls are still to come, where it is known."""
        return None if self._total is None else max(0, self._total - self._sent)

    def workers(self) -> int:
        """How many work on it, as far as is known."""
        route = self._route
        return self._router.max_workers if route.place is None else max(1, route.level)

    def _engine(self) -> Engine | None:
        return self._router.places.get(self._route.place)

    def prepare_chunk(self, fn: Callable[..., Any], items: list[Any], star: bool) -> _Packet:
        """See Backend; never raises CannotPickle, for what cannot travel can run here."""
        packet = _Packet(fn, items, star)
        route, router = self._route, self._router
        self._sent += len(items)
        router.judge.glance(route)
        place = route.place
        if place in ("processes", "serial") and router.is_direct(route) and not route.wanted:
            engine = router.places.engine(place)
            try:
                packet.call = engine.backend.prepare_chunk(fn, items, star)
                packet.place = place
            except CannotPickle:
                packet.place = "cores"
        return packet

    def submit_chunk(self, packet: _Packet, chunk: Chunk, family: int, index: int) -> None:
        """See Engine."""
        route, router = self._route, self._router
        held = Held(chunk, packet.fn, packet.items, packet.star, None, index, None)
        if router.accept(route, held):
            place = packet.place
            if packet.call is not None and place is not None and place == route.place:
                router.deliver(route, held, place, packet.call, None)
            else:
                router.send(route, held, place if packet.call is None else None)

    def chunk_calls(self, family: int) -> int:
        """See Engine."""
        route, engine = self._route, self._engine()
        number = route.families.get(route.place or "")
        if engine is not None and number is not None and engine.expected(number) is not None:
            return engine.chunk_calls(number)
        # Also just after the decision, while the engine knows nothing yet: calls by the thousand
        # that are held, or sent, one by one would take longer than all of them.
        return route.probe_calls()

    def expected(self, family: int) -> float | None:
        """See Engine."""
        route, engine = self._route, self._engine()
        if route.place is None or route.figures is None:
            return None
        found = None
        if engine is not None and route.place in route.families:
            found = engine.expected(route.families[route.place])
        if found is None:
            found = route.figures.wall
        return found * IN_PLACE_AHEAD if route.place == "serial" else found

    def stir(self, stream: Stream) -> None:
        """See Engine. There is news of it, maybe from another engine than its consumer waits in."""
        engine = self._router.places.get("processes")
        if engine is not None:
            engine.stir(stream)

    def help(self, stream: Stream, timeout: float | None) -> None:
        """See Engine. Who waits reads the answers of processes; `stir` tells of the others'."""
        if self._route.place == "processes":
            engine = self._engine()
            if engine is not None:
                engine.help(stream, timeout)

    def moments(self, timeout: float | None) -> Iterator[float | None]:
        """See Engine."""
        engine = self._engine()
        return slices(timeout) if engine is None else engine.moments(timeout)

    def drive(self, seconds: float | None) -> bool:
        """See Engine."""
        engine = self._engine()
        return engine is not None and engine.drive(seconds)
