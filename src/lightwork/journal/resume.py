"""A map that takes from a checkpoint what is there, and keeps what it adds.

How an item goes: it is read, its digest is taken, and the file is looked at. Is its result there,
it is handed out in its place, and never submitted. Else it is submitted as in any map; when it
ends, its result is kept, and only then it arrives at the consumer.
"""

from __future__ import annotations

import json
import traceback
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

from ..errors import CannotPickle, CheckpointError, PoolBroken, PoolClosed, TaskKilled
from ..stream import Chunk, Piece, Stream
from ..wire.pickling import dump_bytes, unpack
from .content import digest
from .file import Row, changed
from .recorder import Delivery, Recorder

if TYPE_CHECKING:
    from .checkpoint import Checkpoint

__all__ = ["Resumed"]

_BLOCK = 256
"""Rows that are read at once, and items that are looked up at once while there are rows."""

_MOST_AHEAD = 16_384
"""Items in the window at most. Each has its digest there, and its result while that is being kept,
half a kilobyte in all; and more rows than a commit or two takes in need not wait."""

_NOT_THEIR_FAULT = (CancelledError, PoolClosed, PoolBroken, TaskKilled, CheckpointError)
"""Errors that say nothing about the item: it has just not been run."""

_FROM_FILE = (0, None, 0.0, 0.0)


class Resumed(Stream):
    """See `stream.Stream`. Item numbers count from `start`."""

    def __init__(self, checkpoint: Checkpoint, start: int, *args: Any) -> None:
        self._checkpoint = checkpoint  # kept, for the pool has only a weak hold of it
        self._recorder: Recorder = checkpoint.recorder()
        self._recorder.acquire()
        try:
            super().__init__(*args)
        except BaseException:
            self._recorder.release()
            raise
        self.seen = start
        self._whole = checkpoint.whole
        self._as_json = checkpoint.results == "json"
        self._rows: deque[Row] = deque()  # read ahead
        self._next_row = start
        self._digests: dict[int, bytes] = {}  # of items that have not ended
        self._found: dict[int, bytes | str] = {}  # results for items that were just read
        self._failed: CheckpointError | None = None
        self._released = False

    # -- items -----------------------------------------------------------------------------------

    def _window(self) -> int:
        window = super()._window()
        return window if self._options.buffersize is not None else min(window, _MOST_AHEAD)

    def _read(self, calls: int) -> Sequence[Any]:
        if self._row_at(self.seen) is not None and self._options.buffersize is None:
            calls = max(calls, _BLOCK)
        items = super()._read(calls)
        if not items and self._input_error is None and self._whole:
            if self._row_at(self.seen) is not None:
                self._input_error = self._other(f"goes on behind the last item, {self.seen - 1}")
            return items
        for at, item in enumerate(items, self.seen):
            try:
                self._look_up(at, item)
            except (CannotPickle, CheckpointError) as error:
                self._items, self._input_error = None, error  # raised in its place
                return items[: at - self.seen]
        return items

    def _look_up(self, at: int, item: object) -> None:
        mine = digest(item)
        row = self._row_at(at)
        if row is not None and row.position == at:
            if row.item != mine:
                raise self._other(f"is of other items: number {at} is not the one that it was")
            if row.done:
                self._found[at] = row.value
                return
        self._digests[at] = mine

    def _other(self, why: str) -> CheckpointError:
        return changed(self._recorder.file.path, why)

    def _row_at(self, position: int) -> Row | None:
        """The first row from there on. Positions only grow."""
        rows, recorder = self._rows, self._recorder
        while rows and rows[0].position < position:
            rows.popleft()
        if not rows and max(position, self._next_row) < recorder.file.end:
            with recorder.reading:
                rows.extend(recorder.file.rows(max(position, self._next_row), _BLOCK))
            self._next_row = rows[-1].position + 1 if rows else recorder.file.end
        return rows[0] if rows else None

    def _submit(self, items: Sequence[Any]) -> None:
        """Hand out what the file has, submit the rest, in order."""
        if not self._found:
            self._submit_some(items)
            return
        begin, base = 0, self.seen
        for at in range(1, len(items) + 1):
            there = base + begin in self._found
            if at == len(items) or (base + at in self._found) != there:
                (self._hand_out if there else self._submit_some)(items[begin:at])
                begin = at

    def _submit_some(self, items: Sequence[Any]) -> None:
        # They may be more than a chunk, having been read with those that the file has.
        while items:
            calls = self._options.chunksize or self._engine.chunk_calls(self._family)
            super()._submit(items[:calls])
            items = items[calls:]

    def _new_chunk(self, start: int, items: Sequence[Any], size: int = 0) -> Chunk:
        self._recorder.expect(len(items))
        return super()._new_chunk(start, items, size)

    def _hand_out(self, items: Sequence[Any]) -> None:
        start = self.seen
        self.seen += len(items)
        self._ahead += len(items)
        chunk = super()._new_chunk(start, items)
        values: list[Any] = []
        errors: dict[int, BaseException] = {}
        for at in range(len(items)):
            try:
                values.append(self._decoded(self._found.pop(start + at)))
            except Exception as error:  # the class of the result has changed, or is gone
                values.append(None)
                errors[at] = error
        chunk.left = 0
        super()._arrive(Piece(chunk, 0, values, errors or None, _FROM_FILE))

    # -- results ---------------------------------------------------------------------------------

    def _arrive(self, piece: Piece) -> None:
        rows: list[Row] = []
        values = list(piece.values)
        errors = dict(piece.errors or {})
        for place, value in enumerate(piece.values):
            at = piece.lo + place
            position = piece.chunk.start + at
            mine = self._digests.pop(position, b"")
            error = errors.get(at)
            if error is None:
                try:
                    stored = self._encoded(value)
                except Exception as failure:
                    error = errors[at] = failure
                else:
                    rows.append(Row(position, mine, 1, stored))
                    if self._as_json:
                        values[place] = self._decoded(stored)  # the same in each run
            if isinstance(error, Exception) and not isinstance(error, _NOT_THEIR_FAULT):
                rows.append(Row(position, mine, 0, _told(error, piece.run)))
        piece = piece._replace(values=values, errors=errors or None)

        def then(error: CheckpointError | None) -> None:
            if error is None:
                Stream._arrive(self, piece)
            else:
                self._fail(error)

        self._recorder.put(len(values), Delivery(rows, then))

    def _fail(self, error: CheckpointError) -> None:
        """What could not be kept is not handed out: the map ends here."""
        with self._arrived:
            self._failed = error
            self._items = None
            self._tell()

    def _tell(self) -> None:
        super()._tell()
        # The recorder's thread tells it, too: the consumer may be waiting for the workers.
        self._engine.stir(self)

    def take(self) -> Piece | object | None:
        """See Stream."""
        piece = super().take()
        if piece is None and self._failed is not None:
            raise self._failed
        return piece

    def _encoded(self, value: object) -> bytes | str:
        if not self._as_json:
            return dump_bytes(value, what="the result")
        try:
            return _to_json(value)
        except (TypeError, ValueError, RecursionError) as error:
            raise TypeError(f"the checkpoint keeps JSON, and the result is none: {error}") from None

    def _decoded(self, stored: bytes | str) -> Any:
        if isinstance(stored, str):
            return json.loads(stored)
        return unpack(stored, what="the result in the checkpoint")

    # -- the end ---------------------------------------------------------------------------------

    def _go_on(self) -> None:
        super()._go_on()
        if self._closed:
            self._release()

    def close(self) -> None:
        """See Stream. What runs is kept when it ends, unless another map wants the file."""
        super().close()
        if self._closed:
            self._release()

    def _release(self) -> None:
        if not self._released:
            self._released = True
            self._recorder.release()


_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def _told(error: BaseException, run: Sequence[Any]) -> str:
    """An error as JSON, for those who look into the file."""
    kind = type(error)
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return json.dumps(
        {
            "type": module + kind.__qualname__,
            "message": _text(error),
            "attempts": run[0],
            "traceback": "".join(_lines(error)),
        }
    )


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as trouble:  # a __str__ that raises must not hide the failure
        return f"<its str() raises {type(trouble).__name__}>"


def _lines(error: BaseException) -> Iterable[str]:
    try:
        return traceback.format_exception(error)
    except Exception:
        return ()
