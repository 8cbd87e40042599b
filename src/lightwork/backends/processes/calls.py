"""Calls as they wait in the parent: pickled when they were submitted, in the submitter's thread.

Four forms. One call, with its arguments. *Singles*: several of these. A *plain* chunk: one blob
with the arguments of many calls that consist of builtin atoms and containers only, so that
rebuilding them runs nobody's code and cannot fail. An *each* chunk: a blob for each call, so that
what goes wrong in one (an object whose ``__setstate__`` raises, or ends the process) is charged
to that one.

Limitations: big buffers (`Packed.buffers`) are not copied until the call is written to a worker,
so a change of the array in between is seen by the call. Items of one plain chunk that refer to the
same list share it in the worker, as they do in the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...wire.functions import FunctionTable, Shipped
from ...wire.pickling import Packed, pack, pack_plain
from .messages import EACH, INLINE, PLAIN, SINGLE, SINGLES, Cargo

__all__ = ["Call", "Chunk", "PlainChunk", "Single", "Singles", "chunk", "combine", "single"]

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


class Singles:
    """Calls that were submitted in a row: small, plain, and of one function."""

    __slots__ = ("function", "items", "size")
    plain = True
    star = False

    def __init__(self, function: Shipped, items: list[bytes]) -> None:
        self.function = function
        self.items = items
        self.size = sum(map(len, items))

    @property
    def calls(self) -> int:
        """How many."""
        return len(self.items)

    def encode(self, lo: int, hi: int, cargo: Cargo) -> Payload:
        """The payload of calls `lo` to `hi`."""
        return SINGLES, tuple(self.items[lo:hi])

    def forget(self, lo: int, hi: int) -> None:
        """The calls `lo` to `hi` have ended: hold their arguments no longer."""
        self.items[lo:hi] = [b""] * (hi - lo)


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


Call = Single | Singles | PlainChunk | Chunk


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


def combine(calls: Sequence[Single]) -> list[tuple[Single | Singles, int]]:
    """Put neighbours together that are small, plain, and of one function."""
    combined: list[tuple[Single | Singles, int]] = []
    start = 0
    while start < len(calls):
        first = calls[start]
        items: list[bytes] = []
        for call in calls[start:]:
            packed = call.packed
            if (
                call.function is not first.function
                or not call.plain
                or not isinstance(packed, bytes)
                or len(packed) > INLINE
            ):
                break
            items.append(packed)
        if len(items) > 1:
            combined.append((Singles(first.function, items), len(items)))
        else:
            combined.append((first, 1))
        start += combined[-1][1]
    return combined


def chunk(
    table: FunctionTable, fn: Callable[..., Any], items: Sequence[Any], star: bool
) -> PlainChunk | Chunk:
    """Pickle the calls ``fn(item)``, or ``fn(*item)`` with `star`. Raises CannotPickle."""
    function = table.ship(fn)
    data = pack_plain(items)
    if data is not None:
        return PlainChunk(function, data, len(items), star)
    return Chunk(function, [pack(item, what="the argument") for item in items], star)
