"""The switch interval is short while somebody wants it, and as it was afterwards."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest
from lightwork.measure.gil import INTERVAL, Eager


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    before = sys.getswitchinterval()
    yield
    sys.setswitchinterval(before)


def interval() -> float:
    return round(sys.getswitchinterval(), 5)


def test_short_until_the_last_has_enough() -> None:
    sys.setswitchinterval(0.005)
    eager = Eager()
    eager.want("a")
    eager.want("b")
    eager.want("a")
    assert interval() == INTERVAL
    eager.enough("a")
    assert interval() == INTERVAL
    eager.enough("b")
    assert interval() == 0.005
    eager.enough("b")
    assert interval() == 0.005


def test_who_never_wanted_it_ends_nothing() -> None:
    sys.setswitchinterval(0.005)
    eager = Eager()
    eager.want("a")
    eager.enough("somebody else")
    assert interval() == INTERVAL


def test_a_shorter_interval_of_the_programs_stays() -> None:
    sys.setswitchinterval(1e-4)
    eager = Eager()
    eager.want("a")
    assert interval() == 1e-4
    eager.enough("a")
    assert interval() == 1e-4


def test_what_the_program_sets_meanwhile_stays() -> None:
    sys.setswitchinterval(0.005)
    eager = Eager()
    eager.want("a")
    sys.setswitchinterval(0.02)
    eager.enough("a")
    assert interval() == 0.02


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_the_interval_that_it_was() -> None:
    sys.setswitchinterval(0.005)
    eager = Eager()
    eager.want("a")
    child = os.fork()
    if not child:
        eager.forget()
        os._exit(0 if interval() == 0.005 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert interval() == INTERVAL
