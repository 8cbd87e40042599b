"""Fits recover the parameters that made the points, and refuse when there are too few."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightwork.measure.scaling import Amdahl, TooFewPoints, Usl, fit_amdahl, fit_usl

SIZES = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32]
shares = st.floats(0, 1)


@given(shares, st.lists(st.sampled_from(SIZES), min_size=4, unique=True))
def test_amdahl_is_recovered(serial: float, sizes: list[int]) -> None:
    made = Amdahl(serial, 0.0)
    found = fit_amdahl([(n, made.speedup(n)) for n in sizes])
    assert found.serial == pytest.approx(serial, abs=1e-6)
    assert found.error < 1e-6


@given(shares, st.floats(0, 0.1), st.lists(st.sampled_from(SIZES), min_size=5, unique=True))
def test_usl_is_recovered(contention: float, crosstalk: float, sizes: list[int]) -> None:
    made = Usl(contention, crosstalk, 0.0)
    found = fit_usl([(n, made.speedup(n)) for n in sizes])
    assert found.contention == pytest.approx(contention, abs=1e-5)
    assert found.crosstalk == pytest.approx(crosstalk, abs=1e-6)
    assert found.error < 1e-5


@given(shares, st.floats(0, 0.05), st.integers(0, 1000))
def test_noise_moves_the_curve_by_about_itself(
    contention: float, crosstalk: float, seed: int
) -> None:
    made = Usl(contention, crosstalk, 0.0)
    chance = random.Random(seed)
    points = [(n, made.speedup(n) * chance.uniform(0.97, 1.03)) for n in SIZES]
    found = fit_usl(points)
    for n in SIZES:
        assert found.speedup(n) == pytest.approx(made.speedup(n), rel=0.15)


@given(st.lists(st.tuples(st.sampled_from(SIZES), st.floats(0.01, 100)), min_size=0, max_size=12))
def test_parameters_stay_where_they_make_sense(points: list[tuple[int, float]]) -> None:
    sizes = {n for n, _ in points if n > 1}
    if len(sizes) < 3:
        with pytest.raises(TooFewPoints, match="at least 3 pool sizes"):
            fit_usl(points)
        return
    found = fit_usl(points)
    assert 0 <= found.contention <= 1
    assert found.crosstalk >= 0
    assert found.peak >= 1
    assert 0 <= fit_amdahl(points).serial <= 1


def test_too_few_points_are_refused_in_words() -> None:
    with pytest.raises(TooFewPoints, match="and there is 1"):
        fit_amdahl([(1, 1.0), (2, 1.9)])
    with pytest.raises(TooFewPoints, match="and there are 2"):
        fit_usl([(1, 1.0), (2, 1.9), (4, 3.5)])


@pytest.mark.parametrize("point", [(0, 1.0), (2, 0.0), (2, math.inf), (math.nan, 1.0)])
def test_what_is_no_point_is_refused(point: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="not a point"):
        fit_amdahl([(1, 1.0), (2, 2.0), (4, 3.0), point])


def test_peaks_and_limits() -> None:
    assert Usl(0.05, 0.01, 0).peak == pytest.approx(math.sqrt(0.95 / 0.01))
    assert Usl(0.05, 0.0, 0).peak == math.inf
    assert Amdahl(0.25, 0).limit == 4
    assert Amdahl(0.0, 0).limit == math.inf
