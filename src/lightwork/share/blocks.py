"""Objects that travel by reference: `Shared`, the base of all that the user sees.

A pickle of a shared object says where it is: the family, the number of its record, and the record's
generation, so that a later object in the same place is not taken for it. Opened in a process that
has the object already, it gives the very same object.

*On its way.* An object may be in a pickle only: its maker has sent it and let go of it, or ended,
and its receiver has not opened it yet. So each pickle has a *ticket*, which keeps the object until
it is opened the first time. Nobody can know that a pickle was thrown away (a cancelled task's);
such an object is freed an hour after it was pickled.

*Freed.* When the last object for it is gone in the last process that used it. A process that
was killed lets go of nothing; the next `Commons.sweep` does it in its place.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar

from . import flights
from . import layout as at
from .commons import Commons
from .families import find, home
from .living import milliseconds
from .memory import PAGE, Mapping, pages

__all__ = ["Block", "Reference", "Shared", "rebuild"]


class Reference(NamedTuple):
    """Where an object is; what travels."""

    family: int
    record: int
    generation: int
    ticket: int
    where: tuple[tuple[int, int], ...]


class Block:
    """A record, and the extent that may belong to it, as one object of this process's uses them.

    Attributes:
        commons, index: where.
        cells: the record, in words of 64 bits.
        address: of the record.
    """

    __slots__ = (
        "__weakref__",
        "_body",
        "address",
        "cells",
        "commons",
        "generation",
        "index",
    )

    def __init__(self, commons: Commons, index: int) -> None:
        """For a record that is counted as used by this object; see `create` and `attach`."""
        self.commons = commons
        self.index = index
        begin = index * at.R_WORDS
        self.cells = commons.records[begin : begin + at.R_WORDS]
        self.generation: int = self.cells[at.R_GENERATION]
        self.address = commons.address + at.RECORDS_AT + begin * 8
        self._body: Mapping | None = None

    @classmethod
    def create(cls, kind: int, *, size: int = 0, sparse: bool = False) -> Block:
        """A new record in the family's commons, with an extent of `size` bytes, all zero.

        `sparse`: its memory is taken page by page, when it is touched.

        Raises OSError: there is no memory.
        """
        where = home()
        where.sweep()
        with where:
            made = cls(where, where.new_record(kind))
            if size:
                made._reserve(size)
        if size:
            made._fill(sparse)
        return made

    def create_child(self, kind: int) -> Block:
        """A record that lives and dies with this one; three at most."""
        with self.commons as commons:
            made = Block(commons, commons.new_record(kind, self.index))
            for at_child in range(at.R_CHILDREN, at.R_CHILDREN + at.R_MOST_CHILDREN):
                if not self.cells[at_child]:
                    self.cells[at_child] = made.index + 1
                    return made
        raise ValueError("a record has three children at most")

    def child(self, number: int) -> Block:
        """The object for the record's child number 0, 1 or 2."""
        with self.commons as commons:
            index = self.cells[at.R_CHILDREN + number] - 1
            commons.use(index, commons.records[index * at.R_WORDS])
            return Block(commons, index)

    def _reserve(self, size: int) -> None:
        self.cells[at.R_EXTENT] = self.commons.reserve_locked(size)
        self.cells[at.R_SIZE] = pages(size)

    def _fill(self, sparse: bool) -> None:
        """Take the extent's memory now, so that touching it cannot fail; or its last page only."""
        start, size = self.cells[at.R_EXTENT], self.cells[at.R_SIZE]
        if sparse:
            start, size = start + size - PAGE, PAGE
        os.posix_fallocate(self.commons.fd, start, size)

    @property
    def body(self) -> Mapping:
        """The extent, mapped at its first use."""
        if self._body is None:
            cells = self.cells
            self._body = Mapping(self.commons.fd, cells[at.R_SIZE], cells[at.R_EXTENT])
        return self._body

    @property
    def name(self) -> str:
        """The name that the user gave it, shortened."""
        return self.text(at.R_NAME, at.R_NAME_BYTES)

    @name.setter
    def name(self, name: str) -> None:
        self.set_text(at.R_NAME, at.R_NAME_BYTES, name)

    def text(self, word: int, size: int) -> str:
        """A text of `size` bytes at most in the record."""
        begin = (self.index * at.R_WORDS + word) * 8
        raw = bytes(self.commons.record_bytes[begin : begin + size])
        return raw.rstrip(b"\0").decode(errors="replace")

    def set_text(self, word: int, size: int, text: str) -> None:
        """Store it, shortened."""
        begin = (self.index * at.R_WORDS + word) * 8
        raw = text.encode(errors="replace")[:size].ljust(size, b"\0")
        self.commons.record_bytes[begin : begin + size] = raw

    def reference(self) -> Reference:
        """A reference with a ticket, for one pickle."""
        with self.commons as commons:
            ticket = flights.issue(self.cells)
            self.cells[at.R_FLIGHT] = milliseconds()
        where = ((commons.pid, commons.fd), (commons.root_pid, commons.root_fd))
        return Reference(commons.number, self.index, self.generation, ticket, where)

    @classmethod
    def attach(cls, reference: Reference) -> Block:
        """The object for what a reference says; its ticket is used up.

        Raises ReferenceError: it is gone.
        """
        commons = find(reference.family, reference.where)
        with commons:
            commons.use(reference.record, reference.generation)
            made = cls(commons, reference.record)
            flights.opened(made.cells, reference.ticket)
        return made

    def __del__(self) -> None:
        commons = getattr(self, "commons", None)
        if commons is not None:
            commons.drop(self.index)


S = TypeVar("S", bound="Shared")

_living: weakref.WeakValueDictionary[tuple[int, int, int], Shared] = weakref.WeakValueDictionary()
_opening = threading.RLock()


class Shared:
    """The base of all shared objects: one that is passed to another process is the same there.

    Subclasses make their block in ``__init__``, and give `_open` what is known of it; `_open` is
    also called for an object that came in a pickle.
    """

    if TYPE_CHECKING:
        _block: Block
    else:
        __slots__ = ()  # so that those who count every nanosecond can have slots of their own

    def _made(self, block: Block, *extra: Any) -> None:
        """At the end of ``__init__``: begin to use the block."""
        self._block = block
        self._open(*extra)
        with _opening:
            _living[_key(block)] = self

    def _open(self, *extra: Any) -> None:
        """Get ready what this process needs for using ``self._block``."""

    def _extra(self) -> tuple[Any, ...]:
        """What `_open` is to be given on the other side."""
        return ()

    def _forget(self) -> None:
        """Be done with it before this object is gone."""
        with _opening:
            _living.pop(_key(self._block), None)
        del self._block

    def __reduce__(self) -> tuple[Any, ...]:
        return rebuild, (type(self), self._block.reference(), self._extra())

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __repr__(self) -> str:
        name = self._block.name
        called = f" {name!r}" if name else ""
        return f"<share.{type(self).__name__}{called} number {self._block.index}>"


def _key(block: Block) -> tuple[int, int, int]:
    return block.commons.number, block.index, block.generation


def rebuild(cls: type[S], reference: Reference, extra: tuple[Any, ...]) -> S:
    """Open a pickled shared object. Raises ReferenceError: it is gone."""
    reference = Reference(*reference)
    with _opening:
        block = Block.attach(reference)  # first, so that its ticket is used up in any case
        known = _living.get(_key(block))
        if isinstance(known, cls):
            return known
        made = cls.__new__(cls)
        made._block = block
        made._open(*extra)
        _living[_key(block)] = made
        return made


def _after_fork() -> None:
    global _opening
    _opening = threading.RLock()


os.register_at_fork(after_in_child=_after_fork)
