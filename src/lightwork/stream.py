"""``map``: a lazy, windowed stream of results on top of an engine.

The consumer's thread reads the inputs, a window ahead of what it has consumed, packs them into
chunks whose size follows what calls are measured to take, and submits each chunk as one task.
Workers answer in pieces, so a result is handed out as soon as it and those before it are there,
whatever chunk it is in. Nothing else runs: no thread of its own, no polling.

A stream is driven by its consumer. While nobody asks, at most the window is worked on; that is
what keeps memory flat with endless inputs and slow readers. Two things go beyond the window,
because users of ``concurrent.futures`` rely on them:

* A map that is forgotten before anybody asked it for a result is run for its effects: it goes on
  alone, its results dropped, fed by the threads that bring them.
* When the pool is shut down (without ``cancel_futures``), what maps have not read is read and
  submitted, if nobody has asked them yet, or if their input has a length. What is left of an
  input without a length that somebody was reading is not read any more: it may be endless.
"""

from __future__ import annotations

import contextlib
import operator
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from itertools import chain, islice, repeat
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import CannotPickle, LightworkError
from .future import Failure
from .options import _number, _whole

if TYPE_CHECKING:
    from .engine import Engine

__all__ = ["Chunk", "Map", "MapOptions", "Stream"]

AHEAD = 0.5
"""Seconds of work of all workers that the window aims to hold."""

MOST_AHEAD = 100_000
"""Items in the window at most, however short their calls are."""

MOST_BYTES = 256 * 2**20
"""Bytes of packed arguments in the window at most (beyond two chunks a worker)."""

END = object()

ON_ERROR = ("raise", "return", "skip", "group")


class MapOptions(NamedTuple):
    """How a map behaves; see ``Pool.map``."""

    ordered: bool = True
    on_error: str | Callable[[Failure], object] = "raise"
    chunksize: int | None = None
    buffersize: int | None = None
    timeout: float | None = None

    def check(self) -> None:
        """Raise ValueError or TypeError, naming the option, unless all are what they should be."""
        if self.timeout is not None:
            _number("timeout", self.timeout, least=-float(2**62))
        if self.chunksize is not None:
            _whole("chunksize", self.chunksize, least=1)
        if self.buffersize is not None:
            _whole("buffersize", self.buffersize, least=1)
        on_error = self.on_error
        if not callable(on_error) and on_error not in ON_ERROR:
            raise ValueError(
                f"on_error must be one of {', '.join(ON_ERROR)} or a callable, not {on_error!r}"
            )


class Piece(NamedTuple):
    """Outcomes of the items from `lo` on of a chunk."""

    chunk: Chunk
    lo: int
    values: Sequence[Any]
    errors: dict[int, BaseException] | None
    run: tuple[int, int | None, float, float]


class _Range(Iterator[Any]):
    """What is left of a ``range``: it is read in pieces that are ranges themselves, and travel as
    such."""

    def __init__(self, items: range) -> None:
        self._rest = items

    def take(self, count: int) -> range:
        """The next `count` of them, or as many as there are."""
        rest = self._rest
        self._rest = rest[count:]
        return rest[:count]

    def __next__(self) -> int:
        for item in self.take(1):
            return item
        raise StopIteration


class Chunk:
    """Consecutive items of a map, submitted as one task. The engine's target."""

    __slots__ = (
        "items",
        "left",
        "next",
        "pieces",
        "size",
        "start",
        "stream",
        "tasks",
    )

    def __init__(self, stream: Stream, start: int, items: Sequence[Any], size: int) -> None:
        self.stream = stream
        self.start = start  # the index of its first item
        self.items = items
        self.size = size  # bytes of packed arguments
        self.next = 0  # items handed out
        self.left = len(items)  # items without an outcome
        self.pieces: dict[int, Piece] = {}  # by the position of their first item
        self.tasks: list[int] = []  # it, and what was carved out of it

    def _settle(
        self,
        lo: int,
        values: Sequence[Any],
        errors: dict[int, BaseException] | None,
        run: tuple[int, int | None, float, float],
        now: float,
    ) -> None:
        self.left -= len(values)
        self.stream._arrive(Piece(self, lo, values, errors, run))

    def _cancelled(self, lo: int, hi: int) -> None:
        errors: dict[int, BaseException] = {at: CancelledError() for at in range(lo, hi)}
        self._settle(lo, [None] * (hi - lo), errors, (0, None, 0.0, 0.0), 0.0)

    def _orphaned(self, error: BaseException) -> None:
        stream = self.stream
        stream._arrived = threading.Condition(threading.Lock())
        stream._feeding = threading.Lock()
        stream._items, stream._input_error, stream._ahead = None, error, 0

    def _has_listeners(self) -> bool:
        return self.stream._alone  # then what arrives makes it read its inputs

    def _carved(self, task: int) -> None:
        self.tasks.append(task)

    def _describe(self, offset: int) -> tuple[Callable[..., Any], object, int]:
        stream = self.stream
        item = self.items[offset]
        return stream.fn, ((item if stream.star else (item,)), {}), self.start + offset


class Stream:
    """The machinery of one map. All methods but those named ``_x`` are the consumer's."""

    def __init__(
        self,
        engine: Engine,
        fn: Callable[..., Any],
        run: Callable[..., Any],
        items: Iterable[Any],
        star: bool,
        family: int,
        options: MapOptions,
        workers: Callable[[], int],
    ) -> None:
        self.fn = fn  # as the user knows it
        self.star = star
        self.seen = 0  # items read
        self.failures: list[Failure] = []  # on_error="group": raised together at the end
        self.on_progress: Callable[[int, int], None] | None = None  # items, and failed ones
        self._run_fn = run
        self._engine = engine
        self._scattered = engine.scattered
        self._family = family
        self._options = options
        self._workers = workers
        self._items: Iterator[Any] | None = _Range(items) if type(items) is range else iter(items)
        self._input_error: BaseException | None = None
        self._chunks: deque[Chunk] = deque()  # not fully handed out, in order
        self._ready: deque[Piece] = deque()  # unordered: arrived pieces
        self._open: dict[Chunk, None] = {}  # submitted, not fully handed out
        self._ahead = 0  # items submitted and not handed out
        self._bytes = 0
        self._arrived = threading.Condition(threading.Lock())
        self._news = self._seen = 0
        self._waiting = False
        self._feeding = threading.Lock()  # by the consumer, or, when it goes on alone, by anyone
        self._sized = operator.length_hint(items, -1) >= 0
        self.asked = False
        self._alone = False
        self._notify: Callable[[], None] | None = None
        self._deadline = None if options.timeout is None else time.monotonic() + options.timeout
        self._closed = False
        engine.streams.add(self)

    # -- from whichever thread settles ---------------------------------------------------------

    def _arrive(self, piece: Piece) -> None:
        with self._arrived:
            if self._closed:
                return
            if self._alone:
                self._ready.append(piece)
            elif self._options.ordered:
                chunk = piece.chunk
                chunk.pieces[piece.lo] = piece
                # Others are found when it is their turn: the consumer is not woken for them.
                # 1. We store a piece, and see another chunk in front. 2. The consumer takes that
                # out, and then looks for the piece: it is there.
                with contextlib.suppress(IndexError):  # it has just taken the last one out
                    if self._chunks[0] is not chunk:
                        return
            else:
                self._ready.append(piece)
            self._tell()
        if self._alone:
            self._go_on()

    def _tell(self) -> None:
        self._news += 1
        if self._waiting:
            self._arrived.notify_all()
        elif self._scattered:
            self._engine.stir(self)  # the consumer may wait in another engine than this is from
        if self._notify is not None:
            self._notify()

    def look_again(self) -> None:
        """The engine expects other things of the calls than before: the window may be wider."""
        with self._arrived:
            if not self._closed:
                self._tell()

    # -- without a consumer ------------------------------------------------------------------------

    def go_on_alone(self) -> None:
        """Nobody will ask: run all items for their effects. Their errors are dropped too."""
        with self._arrived:
            if self._closed:
                return
            self._alone = True
            for chunk in self._chunks:
                self._ready.extend(chunk.pieces.values())
                chunk.pieces.clear()
        self._go_on()

    def _go_on(self) -> None:
        """Drop what has arrived, and feed. By whichever thread; one does it for all."""
        while self._alone and not self._closed:
            news = self._news
            if not self._feeding.acquire(blocking=False):
                return  # 1. who feeds looks at the news again after letting go: see `while`
            try:
                while self._ready:
                    self._take_piece(self._ready.popleft())
                self._feed()
                if self._items is None and not self._ahead:
                    self._closed = True
            finally:
                self._feeding.release()
            if news == self._news:
                return

    def feed_rest(self) -> None:
        """The pool is being shut down: submit what is left, if it is known to be wanted."""
        if self._alone or not self.asked or self._sized:
            with self._feeding:
                self._feed(everything=True)

    # -- feeding -----------------------------------------------------------------------------------

    def _window(self) -> int:
        """How many items may be ahead of the consumer now."""
        if self._options.buffersize is not None:
            return self._options.buffersize
        workers = self._workers()
        mean = self._engine.expected(self._family)
        if mean is None:
            return 2 * workers * (self._options.chunksize or 1)
        wanted = int(AHEAD * workers / max(mean, 1e-7))
        return max(min(wanted, MOST_AHEAD), 4 * workers * (self._options.chunksize or 1))

    def feed(self) -> None:
        """Read and submit items until the window is full or the inputs end."""
        if self._items is not None:
            with self._feeding:
                self._feed()

    def _feed(self, *, everything: bool = False) -> None:
        if self._items is None or self._closed:
            return
        window = self._window()
        least = 2 * self._workers()
        while self._items is not None and (  # type: ignore[redundant-expr]  # `_read` ends it
            everything or self._ahead < window
        ):
            if not everything and self._bytes > MOST_BYTES and len(self._open) >= least:
                return
            calls = self._options.chunksize or self._engine.chunk_calls(self._family)
            if not everything:
                room = window - self._ahead
                if calls > room and self._ahead and self._options.buffersize is None:
                    return  # wait until a whole chunk fits: many small ones would cost more
                calls = min(calls, room)
            items = self._read(calls)
            if items:
                self._submit(items)
            if calls == 1:
                window = self._window()  # the first answers change it quickly

    def _read(self, calls: int) -> Sequence[Any]:
        """The next items; at the end of the inputs, and at their errors, none."""
        assert self._items is not None
        items: Sequence[Any] = []
        try:
            self._engine.check_open()
            if isinstance(self._items, _Range):
                items = self._items.take(calls)
            else:
                items = read = list[Any]()
                read.extend(islice(self._items, calls))  # keeps what came before an error
        except Exception as error:
            self._items = None
            self._input_error = error  # raised in its place, behind the results before it
        else:
            if not items:
                self._items = None
        return items

    def _submit(self, items: Sequence[Any]) -> None:
        start = self.seen
        self.seen += len(items)
        self._ahead += len(items)
        try:
            call = self._engine.backend.prepare_chunk(self._run_fn, items, self.star)
        except CannotPickle as error:
            if len(items) > 1:  # find the one, let the others go
                self.seen -= len(items)
                self._ahead -= len(items)
                for item in items:
                    self._submit([item])
                return
            chunk = self._new_chunk(start, items)
            chunk._settle(0, [None], {0: error}, (0, None, 0.0, 0.0), time.monotonic())
            return
        chunk = self._new_chunk(start, items, getattr(call, "size", 0))
        try:
            self._engine.submit_chunk(call, chunk, self._family, start)
        except LightworkError as error:  # closed, or broken
            errors: dict[int, BaseException] = dict.fromkeys(range(len(items)), error)
            chunk._settle(0, [None] * len(items), errors, (0, None, 0.0, 0.0), time.monotonic())

    def _new_chunk(self, start: int, items: Sequence[Any], size: int = 0) -> Chunk:
        chunk = Chunk(self, start, items, size)
        self._open[chunk] = None
        self._bytes += size
        if self._options.ordered:
            self._chunks.append(chunk)
        return chunk

    # -- taking ------------------------------------------------------------------------------------

    def take(self) -> Piece | object | None:
        """The next piece; None when none is there yet; END behind the last. Never blocks."""
        self.feed()
        piece = self._next()
        if piece is not None:
            return piece
        if self._items is None and not self._ahead:
            if self._input_error is not None:
                error, self._input_error = self._input_error, None
                raise error
            return END
        return None

    def _next(self) -> Piece | None:
        if not self._options.ordered:
            if not self._ready:
                return None
            piece = self._ready.popleft()
            self._take_piece(piece)
            return piece
        if not self._chunks:
            return None
        chunk = self._chunks[0]
        found = chunk.pieces.pop(chunk.next, None)
        if found is not None:
            self._take_piece(found)
            if chunk.next >= len(chunk.items):
                self._chunks.popleft()
        return found

    def _take_piece(self, piece: Piece) -> None:
        """The piece is with the consumer now."""
        chunk = piece.chunk
        chunk.next += len(piece.values)
        self._ahead -= len(piece.values)
        if chunk.next >= len(chunk.items):
            del self._open[chunk]
            self._bytes -= chunk.size

    def wait(self) -> Piece | object:
        """The next piece, or END behind the last. Raises TimeoutError at the map's deadline."""
        while True:
            seen = self._news
            piece = self.take()
            if piece is not None:
                return piece
            timeout = None
            if self._deadline is not None:
                timeout = self._deadline - time.monotonic()
                if timeout <= 0:
                    raise TimeoutError(
                        f"map() was not finished within timeout={self._options.timeout:g} s"
                    )
            self._seen = seen
            self._engine.help(self, timeout)
            if self.done():
                continue
            moment = next(self._engine.moments(timeout))
            if self._engine.drive(moment):
                continue
            with self._arrived:
                if self._news == seen:  # else something came between looking and locking
                    self._waiting = True
                    try:
                        self._arrived.wait(moment)
                    finally:
                        self._waiting = False

    def done(self) -> bool:
        """Whether something has arrived since the consumer last looked (see ``pump``)."""
        return self._news != self._seen

    def outcomes(self, piece: Piece) -> tuple[Sequence[Any], BaseException | None]:
        """What to hand out for a piece, and the error to raise behind it, if any."""
        errors = piece.errors
        if self.on_progress is not None:
            self.on_progress(len(piece.values), len(errors) if errors else 0)
        if not errors:
            return piece.values, None
        on_error = self._options.on_error
        if on_error == "raise":
            first = min(errors)
            return piece.values[: first - piece.lo], errors[first]
        values: list[Any] = []
        for at, value in enumerate(piece.values, piece.lo):
            error = errors.get(at)
            if error is None:
                values.append(value)
            elif on_error != "skip":
                failure = Failure(
                    exception=error,
                    item=piece.chunk.items[at],
                    index=piece.chunk.start + at,
                    attempts=piece.run[0],
                    worker=piece.run[1],
                )
                if on_error == "group":
                    self.failures.append(failure)
                else:
                    values.append(failure if isinstance(on_error, str) else on_error(failure))
        return values, None

    def raise_group(self) -> None:
        """Behind the last result: raise what ``on_error="group"`` has collected."""
        if self.failures:
            raise _group(self.failures)

    def close(self) -> None:
        """Cancel what has not started; forget the rest. May be called again."""
        if self._closed or self._alone:
            return
        self._closed = True
        self._items = None
        tasks = [task for chunk in self._open for task in chunk.tasks if chunk.left]
        self._ready.clear()
        if tasks:
            self._engine.cancel(reversed(tasks))


class Map(Iterator[Any]):
    """What ``Pool.map`` returns: an iterator over the results.

    It may be iterated from one thread at a time. Closing it, or forgetting it, cancels the items
    that have not started.
    """

    def __init__(self, stream: Stream, bar: Any = None) -> None:
        self._generator = _lists(stream, bar)
        next(self._generator)  # enter it, so that closing or forgetting it runs its `finally`
        # chain runs in C: handing out one item of a long list costs a tenth of a generator's step
        self._chain: Iterator[Any] = chain.from_iterable(self._generator)
        self._stream = stream
        stream.feed()

    def __iter__(self) -> Iterator[Any]:  # noqa: PYI034 - the chain shares our state
        self._stream.asked = True
        return self._chain

    def __next__(self) -> Any:
        self._stream.asked = True
        return next(self._chain)

    def close(self) -> None:
        """Cancel the items that have not started. The iterator ends here."""
        self._generator.close()
        self._chain = iter(())

    def __del__(self) -> None:
        stream = getattr(self, "_stream", None)
        if stream is not None and not stream.asked:
            stream.go_on_alone()


def _lists(stream: Stream, bar: Any) -> Generator[Iterable[Any], None, None]:
    """The results, as they can be had, in groups; the first is empty."""
    try:
        yield ()
        while True:
            piece = stream.wait()
            if piece is END:
                break
            values, error = stream.outcomes(piece)  # type: ignore[arg-type]
            piece = None
            yield _handing_over(values)
            values = ()
            if error is not None:
                try:
                    raise error
                finally:
                    del error  # no cycle of exception and frame
        stream.raise_group()
    finally:
        stream.close()
        if bar is not None:
            bar.close()


_SMALL = (int, float, bool, type(None))


def _handing_over(values: Sequence[Any]) -> Iterable[Any]:
    """Iterate over `values`, holding none that was handed out: a result may be large. In C."""
    if len(values) > 1 and type(values[0]) in _SMALL:
        return values  # nearly always all are; what came in one message fits into memory together
    waiting = values if type(values) is list else list(values)
    waiting.reverse()
    return map(waiting.pop, repeat(-1, len(waiting)))


def _group(failures: list[Failure]) -> BaseExceptionGroup[BaseException]:
    count = len(failures)
    text = f"{count} of the map's items failed: index " + ", ".join(
        str(failure.index) for failure in failures[:10]
    )
    return BaseExceptionGroup(
        text + (", ..." if count > 10 else ""), [failure.exception for failure in failures]
    )
