"""A container that each process has a copy of, and a log of changes that keeps the copies equal.

The log is an extent: a snapshot of the whole, then the changes since, in order. Whoever changes
something brings its own copy up to date, changes it, and adds the change to the log; END, stored
last, says how far the log goes. So a process that is killed has made its change or has not.
Whoever reads looks at END first: if nothing was added since, the own copy is right, and nobody else
is asked.

A log that is full is replaced by a bigger one that begins with a new snapshot; the word that says
where the log is changes last. It is at least four times as big as the snapshot, so the cost of that
is a small constant for each change.

*What is kept.* Plain immutable values as they are; shared objects as they are; all else as its
pickle, and each who reads it gets a new copy. So nobody can change a copy behind the log's back.

*Locks.* The guard, between processes, is held while the log is written or read; the local one,
inside, while this process's copy is touched. A reader whose copy is right takes the local one only.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from ..errors import OwnerDied
from ..wire.pickling import dump_bytes, unpack
from . import layout as at
from .blocks import Block, Shared
from .commons import Commons
from .kinds import K_LOG, K_MUTEX
from .locks import RLock
from .memory import PAGE, LocalSemaphore, Mapping, punch
from .mutex import Mutex

__all__ = ["Logged", "free_log", "freeze", "thaw"]

_WHERE, _IN_BLOCK = at.R_OWN, at.R_OWN + 1  # words of the record
_END = 0  # the word of the log
_DATA = 64
_CODE_BITS = 6
_GROWS_TO = 1 << 18
"""Bytes: logs of small containers double up to here, so that they are replaced rarely."""

_ATOMS = frozenset({int, float, str, bool, type(None), complex})
_SHORT_BYTES = 1 << 10


class Frozen:
    """The pickle of a value that might be changed by whoever gets it."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __reduce__(self) -> tuple[Any, ...]:
        return Frozen, (self.data,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Frozen) and bool(thaw(self) == thaw(other))

    __hash__ = None  # type: ignore[assignment]


def freeze(value: Any) -> Any:
    """A value as it is kept. Raises CannotPickle."""
    kind = type(value)
    if kind in _ATOMS or (kind is bytes and len(value) <= _SHORT_BYTES):
        return value
    if kind is tuple and _ATOMS.issuperset(map(type, value)):
        return value
    if isinstance(value, Shared):
        return value
    return Frozen(dump_bytes(value, what="the value"))


def thaw(kept: Any) -> Any:
    """The value, for the user. Raises CannotUnpickle."""
    return unpack(kept.data, what="the value") if type(kept) is Frozen else kept


class _Guard(RLock):
    """The guard of a container, which asks it what to do when a holder has died."""

    __slots__ = ("died",)
    died: Callable[[], None]

    def _take_over(self) -> None:
        self.died()

    def __enter__(self) -> bool:
        return self.acquire()


class Logged(Shared):
    """The base of `List` and `Dict`. A subclass says what a copy is, and how changes are
    applied."""

    _copy: Any

    def _begin(self, name: str) -> None:
        block = Block.create(K_LOG)
        block.name = name
        self._new_guard(Mutex.make(block.create_child(K_MUTEX)))
        self._copy = self._empty()
        self._log = _new_log(block.commons, _snapshot(self._kept()), 0)
        block.cells[_WHERE] = self._log.code
        self._made(block)

    def _open(self, *_: object) -> None:
        self._cells = self._block.cells
        self._commons = self._block.commons
        if not hasattr(self, "_guard"):
            self._new_guard(self._block.child(0))
            self._log = None  # type: ignore[assignment]
        self._renew()
        _all[id(self)] = self

    def _new_guard(self, block: Block) -> None:
        self._guard = _Guard.__new__(_Guard)
        self._guard._block = block
        self._guard._open()
        self._guard.died = self._holder_died

    def _renew(self) -> None:
        """Forget the copy: nobody knows its state."""
        self._local_memory = LocalSemaphore()
        self._local = self._local_memory.sem
        self._code = self._at = 0

    # -- for subclasses --------------------------------------------------------------------------

    def _empty(self) -> Any:
        raise NotImplementedError

    def _apply(self, change: tuple[Any, ...]) -> Any:
        """Make a change in the copy; returns what the user is to get, still frozen.

        It must not run code of the user's, and give the same result in every process.
        """
        raise NotImplementedError

    def _read(self, look: Callable[[Any], Any]) -> Any:
        """`look` at the copy, brought up to date; it must not run code of the user's."""
        local = self._local
        local.acquire()
        try:
            log = self._log
            if self._code and self._code == self._cells[_WHERE] and log.words[_END] == self._at:
                return look(self._copy)
        finally:
            local.release()
        with self._guard:
            local.acquire()
            try:
                self._catch_up()
                return look(self._copy)
            finally:
                local.release()

    def _glance(self, look: Callable[[Any], Any]) -> Any:
        """`look` at the copy, brought up to date if that can be at once; None if it cannot be seen.

        Never waits, and takes nothing over from the dead: for ``repr``, which error messages and
        debuggers call at any time, in any thread. Who only prints is not the one to be told.
        """
        up_to_date = self._guard.take_if_free()
        try:
            if not self._local.acquire(False):
                return None
            try:
                if up_to_date:
                    self._catch_up()
                return look(self._copy) if self._code else None
            finally:
                self._local.release()
        finally:
            if up_to_date:
                self._guard.release()

    def _change(self, *change: Any) -> Any:
        """Make one change, here and in the log."""
        return self._decide(lambda _: change)

    def _decide(self, decide: Callable[[Any], tuple[Any, ...] | None]) -> Any:
        """Let `decide` look at the copy, and make the change that it returns, if any.

        What `decide` raises leaves everything as it was.
        """
        with self._guard:
            local = self._local
            local.acquire()
            try:
                self._catch_up()
                change = decide(self._copy)
                if change is None:
                    return None
                entry = _dump(change)
                done = False
                try:
                    result = self._apply(change)
                    self._add(entry)
                    done = True
                finally:
                    if not done:
                        self._code = 0
                return result
            finally:
                local.release()

    # -- the log ---------------------------------------------------------------------------------

    def _catch_up(self) -> None:
        """With both locks: bring the copy up to date."""
        where = self._cells[_WHERE]
        if self._code != where:
            self._code = 0
            self._log = _Log(self._commons, where)
            self._at = _DATA
            snapshot, self._at = self._log.entry(_DATA)
            self._copy = self._restore(pickle.loads(snapshot))
            self._code = where
        log = self._log
        end = log.words[_END]
        while self._at < end:
            data, behind = log.entry(self._at)
            self._code = 0  # what is interrupted here is read anew
            self._apply(pickle.loads(data))
            self._at = behind
            self._code = where

    def _kept(self) -> Any:
        """The copy, as a snapshot has it."""
        return self._copy

    def _restore(self, snapshot: Any) -> Any:
        return snapshot

    def _add(self, entry: bytes) -> None:
        """With both locks, and the copy changed already: commit the change."""
        log = self._log
        size = 8 + (len(entry) + 7 & ~7)
        if self._at + size <= log.size:
            log.put(self._at, entry)
            log.words[_END] = self._at + size
            self._at += size
            return
        snapshot = _snapshot(self._kept())
        made = _new_log(self._commons, snapshot, log.size)
        self._cells[_WHERE] = made.code
        punch(self._commons.fd, *log.extent())
        self._log, self._code, self._at = made, made.code, made.words[_END]

    # -- more than one operation -----------------------------------------------------------------

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep all others out while several operations are done: ``with it.locked(): ...``.

        If the process dies in the block, the next one to do anything with the container, but for
        looking at what it has in its own memory, gets `OwnerDied`, once: single operations are
        complete, but those of the block may not all have been done.
        """
        with self._guard:
            outermost = not self._cells[_IN_BLOCK]
            self._cells[_IN_BLOCK] = 1
            try:
                yield
            finally:
                if outermost:
                    self._cells[_IN_BLOCK] = 0

    def _holder_died(self) -> None:
        self._code = 0
        if self._cells[_IN_BLOCK]:
            self._cells[_IN_BLOCK] = 0
            self._guard.release()
            raise OwnerDied(f"a process died inside of a locked() block of {Shared.__repr__(self)}")


class _Log:
    """One log, mapped in this process."""

    __slots__ = ("_view", "code", "offset", "size", "words")

    def __init__(self, commons: Commons, code: int) -> None:
        self.code = code
        self.size = PAGE << (code & (1 << _CODE_BITS) - 1)
        self.offset = code >> _CODE_BITS << 12
        self._view = Mapping(commons.fd, self.size, self.offset).view
        self.words = self._view.cast("Q")

    def extent(self) -> tuple[int, int]:
        """Where it is in the file, and its size."""
        return self.offset, self.size

    def entry(self, where: int) -> tuple[bytes, int]:
        """The entry there, and where the next one is."""
        length = self.words[where >> 3]
        data = self._view[where + 8 : where + 8 + length].tobytes()
        return data, where + 8 + (length + 7 & ~7)

    def put(self, where: int, data: bytes) -> None:
        """Write an entry there."""
        length = len(data)
        self.words[where >> 3] = length
        self._view[where + 8 : where + 8 + length] = data


def _new_log(commons: Commons, snapshot: bytes, before: int) -> _Log:
    size = max(4 * len(snapshot), min(2 * before, _GROWS_TO), PAGE)
    order = (-(-size // PAGE) - 1).bit_length()
    offset = commons.reserve(PAGE << order)
    os.posix_fallocate(commons.fd, offset, PAGE << order)
    made = _Log(commons, offset >> 12 << _CODE_BITS | order)
    made.put(_DATA, snapshot)
    made.words[_END] = _DATA + 8 + (len(snapshot) + 7 & ~7)
    return made


def _dump(change: tuple[Any, ...]) -> bytes:
    return pickle.dumps(change, 5)


def _snapshot(copy: Any) -> bytes:
    file = io.BytesIO()
    pickle.Pickler(file, 5).dump(copy)
    return file.getvalue()


def free_log(commons: Commons, index: int) -> None:
    """Give back the log of a container that is freed."""
    code = commons.records[index * at.R_WORDS + _WHERE]
    if code:
        punch(commons.fd, code >> _CODE_BITS << 12, PAGE << (code & (1 << _CODE_BITS) - 1))


_all: weakref.WeakValueDictionary[int, Logged] = weakref.WeakValueDictionary()


def _after_fork() -> None:
    for one in list(_all.values()):
        one._renew()


os.register_at_fork(after_in_child=_after_fork)
