"""Calls as they wait in the parent: pickled when they were submitted, in the submitter's thread.

Three forms. One call, with its arguments. A *plain* chunk: one blob with the arguments of many
calls that consist of builtin atoms and containers only, so that rebuilding them runs nobody's
code and cannot fail. An *each* chunk: a blob for each call, so that what goes wrong in one (an
object whose ``__setstate__`` raises, or ends the process) is charged to that one.

Limitations: big buffers (`Packed.buffers`) are not copied until the call is written to a worker,
so a change of the array in between is seen by the call. Items of one plain chunk that refer to the
same list share it in the worker, as they do in the caller.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...wire.functions import FunctionTable, Shipped
from ...wire.pickling import Packed, pack, pack_plain
from .messages import EACH, PLAIN, SINGLE, Cargo

__all__ = ["Call", "Chunk", "PlainChunk", "Single", "chunk", "single"]

Payload = tuple[int, Any]
"""The form (see messages), and what it is opened with."""


class Single:
    """One call: the pickled ``(args, kwargs)``."""

    __slots__ = ("function", "packed", "plain", "size")
    calls = 1
    star = False

    def __init__(self, function: Shipped, packed: Packed) -> None:
        self.function = function
        self.plain = packed.plain
        # Most are plain bytes; to keep only these is one object less for the collector to visit.
        self.packed: Packed | bytes
        if packed.buffers:
            self.packed, self.size = packed, _size(packed)
        else:
            self.packed = packed.data
            self.size = len(packed.data)

    def encode(self, lo: int, hi: int, cargo: Cargo) -> Payload:
        """The payload of calls `lo` to `hi`."""
        packed = self.packed
        return SINGLE, cargo.blob(packed) if isinstance(packed, bytes) else cargo.item(packed)


class PlainChunk:
    """Consecutive calls of a map, with plain arguments: one pickled list."""

    __slots__ = ("calls", "data", "function", "size", "star")
    plain = True

    def __init__(self, function: Shipped, data: bytes, calls: int, star: bool) -> None:
        self.function = function
        self.data = data
        self.calls = calls
        self.star = star
        self.size = len(data)

    def encode(self, lo: int, hi: int, cargo: Cargo) -> Payload:
        """The payload of calls `lo` to `hi`."""
        return PLAIN, (cargo.item(Packed(self.data, (), True)), lo, hi)


class Chunk:
    """Consecutive calls of a map, each pickled by itself."""

    __slots__ = ("function", "items", "size", "star")
    plain = False

    def __init__(self, function: Shipped, items: list[Packed], star: bool) -> None:
        self.function = function
        self.items = items
        self.star = star
        self.size = sum(map(_size, items))

    @property
    def calls(self) -> int:
        """How many."""
        return len(self.items)

    def encode(self, lo: int, hi: int, cargo: Cargo) -> Payload:
        """The payload of calls `lo` to `hi`."""
        return EACH, tuple([cargo.item(one) for one in self.items[lo:hi]])


Call = Single | PlainChunk | Chunk


def _size(packed: Packed) -> int:
    size = len(packed.data)
    for buffer in packed.buffers:
        size += buffer.raw().nbytes
    return size


def single(
    table: FunctionTable, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Single:
    """Pickle one call. Raises CannotPickle."""
    return Single(table.ship(fn), pack((args, kwargs), what="the arguments"))


def chunk(
    table: FunctionTable, fn: Callable[..., Any], items: list[Any], star: bool
) -> PlainChunk | Chunk:
    """Pickle the calls ``fn(item)``, or ``fn(*item)`` with `star`. Raises CannotPickle."""
    function = table.ship(fn)
    data = pack_plain(items)
    if data is not None:
        return PlainChunk(function, data, len(items), star)
    return Chunk(function, [pack(item, what="the argument") for item in items], star)
