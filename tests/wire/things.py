"""Importable objects that behave badly, or not plainly, when they travel."""

from __future__ import annotations

import enum
import threading
from typing import Any

import numpy as np


class Bomb(BaseException):
    """What no one expects."""


HARM: dict[str, BaseException] = {
    "error": ValueError("boom"),
    "exit": SystemExit(3),
    "bomb": Bomb("boom"),
    "recursion": RecursionError("deep"),
    "memory": MemoryError(),
    "stop": StopIteration(1),
    "assertion": AssertionError(),
}


def do_harm(how: str) -> Any:
    raise HARM[how]


class BadReduce:
    """Does harm when it is pickled."""

    def __init__(self, how: str) -> None:
        self.how = how

    def __reduce__(self) -> Any:
        return do_harm(self.how)


class BadState(BadReduce):
    """Does harm when its state is asked for."""

    __reduce__ = object.__reduce__

    def __getstate__(self) -> Any:
        return do_harm(self.how)


class BadLoad:
    """Does harm when it is rebuilt."""

    def __init__(self, how: str) -> None:
        self.how = how

    def __reduce__(self) -> Any:
        return do_harm, (self.how,)


class BadSetState:
    """Does harm when its state is given back."""

    def __init__(self, how: str) -> None:
        self.how = how

    def __setstate__(self, state: dict[str, Any]) -> None:
        do_harm(state["how"])


class Holder:
    """Holds anything."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


class Slotted:
    """Holds one thing, without a dictionary."""

    __slots__ = ("held",)

    def __init__(self, held: Any) -> None:
        self.held = held


class Liar:
    """Its reduction is nonsense."""

    def __reduce__(self) -> Any:
        return 7


class Color(enum.Enum):
    """For values that are told apart by identity."""

    RED = 1
    BLUE = "blue"


class Listy(list[Any]):
    """Looks like a plain list."""


LOCK = threading.Lock()
ARRAY = np.arange(100_000)


def uses_lock() -> bool:
    """Importable, so its global need not travel."""
    return LOCK.locked()


def double(x: Any) -> Any:
    """An importable function."""
    return 2 * x


class Tool:
    """Methods to call."""

    def __init__(self, factor: int = 2) -> None:
        self.factor = factor

    def times(self, x: int) -> int:
        return self.factor * x

    @classmethod
    def made(cls, x: int) -> Tool:
        return cls(x)

    @staticmethod
    def plain(x: int) -> int:
        return x + 1

    def __call__(self, x: int) -> int:
        return self.factor * x
