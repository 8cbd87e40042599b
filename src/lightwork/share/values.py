"""`Value` and `Counter`: single numbers."""

from __future__ import annotations

from typing import Any, Self

from . import layout as at
from .blocks import Block, Shared
from .kinds import K_COUNTER, K_VALUE
from .locks import Lock, RLock
from .threads import slot_of

__all__ = ["Counter", "Value"]

_CODES = frozenset("bBhHiIlLqQfd?")


class Value(Shared):
    """One number in shared memory; used as `multiprocessing.Value` is.

    Args:
        code: a type code of `array` or ``"?"`` for a bool, or a type of `ctypes`. ``"q"`` is an
            integer of 64 bits, ``"d"`` a float.
        value: what it is at first.
        lock: a shared `Lock` or `RLock`; True: a new `RLock`; False: none.
        name: for error messages.

    Reading or setting ``value`` is one access to memory (0.1 us), which needs no lock and is never
    seen half done. A change that depends on what it was is ``add``, or made under the lock::

        with total.get_lock():
            total.value *= 2
    """

    def __init__(
        self, code: Any = "q", value: float = 0, *, lock: Lock | RLock | bool = True, name: str = ""
    ) -> None:
        if not isinstance(code, str):
            code = getattr(code, "_type_", None)
        if code not in _CODES:
            raise TypeError(f"not the code or ctypes type of a number: {code!r}")
        block = Block.create(K_VALUE)
        block.name = name
        if lock is True:
            lock = RLock(name)
        self._made(block, code, lock or None)
        self.value = value

    def _open(self, *extra: Any) -> None:
        self._code, self._lock = extra
        begin = (self._block.index * at.R_WORDS + at.R_OWN) * 8
        self._cell = self._block.commons.record_bytes[begin : begin + 8].cast(self._code)

    def _extra(self) -> tuple[Any, ...]:
        return self._code, self._lock

    @property
    def value(self) -> Any:
        """The number."""
        return self._cell[0]

    @value.setter
    def value(self, value: float) -> None:
        self._cell[0] = value

    def add(self, amount: float = 1) -> Any:
        """Add to it, under the lock; return what it is then."""
        with self.get_lock():
            self._cell[0] += amount
            return self._cell[0]

    def get_lock(self) -> Lock | RLock:
        """The lock that guards changes. Raises AttributeError: it was made without."""
        if self._lock is None:
            raise AttributeError("this value was made with lock=False")
        return self._lock  # type: ignore[no-any-return]

    def __enter__(self) -> bool:
        return self.get_lock().__enter__()

    def __exit__(self, *_: object) -> None:
        self.get_lock().release()

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}: {self.value}>"


class Counter(Shared):
    """A number that many threads and processes add to, without a lock.

    Args:
        value: what it is at first.
        name: for error messages.

    Each thread adds in a place of its own, with one store (0.3 us), so nobody waits, and a process
    that is killed has added or has not. ``value`` sums up all places (some us): every ``add`` that
    had returned is in it. To get numbers that nobody else gets, use `Value.add`.
    """

    def __init__(self, value: int = 0, name: str = "") -> None:
        block = Block.create(K_COUNTER, size=at.THREADS * 8, sparse=True)
        block.name = name
        self._made(block)
        self._start[0] = value

    def _open(self, *_: object) -> None:
        begin = self._block.index * at.R_WORDS * 8
        own = (at.R_OWN * 8 + begin, at.R_OWN * 8 + begin + 8)
        self._start = self._block.commons.record_bytes[own[0] : own[1]].cast("q")
        self._places = self._block.body.view.cast("q")
        self._commons = self._block.commons

    def add(self, amount: int = 1) -> None:
        """Add to it. May be negative."""
        self._places[slot_of(self._commons).number] += amount

    @property
    def value(self) -> int:
        """The sum of all that was added."""
        used = self._commons.header[at.H_THREADS]
        return int(self._start[0]) + sum(self._places[:used].tolist())

    def __int__(self) -> int:
        return self.value

    def __iadd__(self, amount: int) -> Self:
        self.add(amount)
        return self

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}: {self.value}>"
