"""What a function closes over, and whether a change of it is seen."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from typing import Any

import pytest

from lightwork.measure.closed import Look, may_change, parts

TABLE = {1: 2, 3: 4}
KEPT: list[int] = []
COUNT = 0
LIMIT = 3


def reads(n: int) -> int:
    return TABLE.get(n, LIMIT)


def appends(n: int) -> None:
    KEPT.append(n)


def appends_below(n: int) -> None:
    appends(n)


def counts(n: int) -> None:
    global COUNT
    COUNT += n


def computes(n: int) -> int:
    flags = bytearray(n)
    flags[0] = 1
    return sum(flags)


def changes_argument(values: list[int]) -> None:
    values.append(1)


class Bag:
    def __init__(self) -> None:
        self.items: list[int] = []
        self.total = 0

    def put(self, n: int) -> None:
        self.items.append(n)

    def add(self, n: int) -> None:
        self.total += n

    def look(self, n: int) -> bool:
        return n in self.items

    def __call__(self, n: int) -> None:
        self.put(n)


def closure() -> Callable[[int], None]:
    total = 0

    def add(n: int) -> None:
        nonlocal total
        total += n

    return add


CHANGES: list[tuple[Any, str]] = [
    (appends, "KEPT"),
    (appends_below, "KEPT"),
    (counts, "COUNT"),
    (closure(), "total"),
    (Bag().put, "self"),
    (Bag().add, "self"),
    (Bag(), "self"),
    (KEPT.append, "self"),
    (functools.partial(lambda bag, n: bag.put(n), Bag()), "bound argument 0"),
]


@pytest.mark.parametrize(("fn", "name"), CHANGES)
def test_changes_are_seen(fn: Any, name: str) -> None:
    look = Look(fn, (5,))
    fn(5)
    assert look.changed() == name


@pytest.mark.parametrize("fn", [fn for fn, _ in CHANGES])
def test_code_that_changes_things_looks_like_it(fn: Any) -> None:
    partial = isinstance(fn, functools.partial)  # a method of an object is not looked into
    assert may_change(fn) or partial


@pytest.mark.parametrize(
    "fn", [reads, computes, math.sqrt, abs, time.sleep, Bag().look, functools.partial(pow, 2)]
)
def test_what_only_reads_is_let_go(fn: Any) -> None:
    look = Look(fn, (2,))
    if fn is not time.sleep:
        fn(2)
    assert look.changed() == ""
    assert not may_change(fn)


def test_arguments_count_too() -> None:
    values: list[int] = []
    look = Look(changes_argument, (values,))
    changes_argument(values)
    assert look.changed() == "argument 0"


def test_memory_of_arrays() -> None:
    numpy = pytest.importorskip("numpy")
    out = numpy.zeros(1000)

    def store(n: int) -> None:
        out[n] = 1.0

    assert may_change(store)
    look = Look(store, (7,))
    assert look.changed() == ""
    store(7)
    assert look.changed() == "out"


def test_names_of_parts() -> None:
    found = parts(appends_below)
    assert found["KEPT"] is KEPT
    assert found["appends"] is appends
