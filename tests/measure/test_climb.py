"""The search for the number of threads, against servers of known limits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lightwork.measure.climb import Climb


def search(climb: Climb, limit: float, wall: float = 0.1) -> list[int]:
    """Let it search beside a server that serves at most `limit` calls at once."""
    levels = [climb.level]
    for _ in range(50):
        if climb.steady:
            return levels
        levels.append(climb.seen(min(climb.level, limit) / wall, climb.level / wall))
    raise AssertionError(f"no end: {levels}")


def test_up_while_it_pays() -> None:
    climb = Climb(8, 64)
    assert search(climb, 1e9) == [8, 16, 32, 64, 64]


def test_stops_where_the_server_does() -> None:
    climb = Climb(8, 100)
    search(climb, 30)
    assert climb.level == 32


def test_down_where_more_give_nothing() -> None:
    climb = Climb(32, 64)
    search(climb, 8)
    assert climb.level == 8


@given(st.integers(1, 100), st.integers(1, 200), st.integers(1, 200), st.floats(1e-3, 10))
def test_ends_near_the_limit(level: int, most: int, limit: int, wall: float) -> None:
    """What it ends with is at most a step of the search from the best, and within its bounds."""
    climb = Climb(level, most)
    search(climb, limit, wall)
    assert 1 <= climb.level <= max(level, most)
    best = min(limit, max(level, most))
    assert min(climb.level, limit) >= best / 2
    assert climb.level <= max(2 * limit, 1)


@given(st.lists(st.floats(0, 1e6), min_size=60, max_size=60), st.integers(1, 64))
def test_ends_whatever_it_sees(rates: list[float], most: int) -> None:
    climb = Climb(min(8, most), most)
    for rate in rates:
        assert 1 <= climb.seen(rate, 1e6) <= most
    assert climb.steady
