"""The model: laws that hold for any figures, and verdicts that nobody would argue with."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightwork.measure.model import (
    KINDS,
    Figures,
    Machine,
    Work,
    choose,
    forecast,
    forecasts,
    human,
    needed,
)

walls = st.floats(1e-7, 100)
shares = st.floats(0, 1)


@st.composite
def figures(draw: st.DrawFn) -> Figures:
    cpu = draw(shares)
    small = st.floats(0, 0.1)
    return Figures(
        calls=draw(st.integers(1, 100)),
        wall=draw(walls),
        cpu=cpu,
        gil=draw(shares) * cpu,
        bytes_in=draw(st.floats(0, 1e9)),
        bytes_out=draw(st.floats(0, 1e9)),
        pack_in=draw(small),
        pack_out=draw(small),
        stays=draw(st.sampled_from(["", "it says no"])),
    )


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    cpus = draw(st.integers(1, 64))
    return Machine(
        cpus=cpus,
        gil=draw(st.booleans()),
        most_threads=draw(st.integers(1, 128)),
        most_processes=draw(st.integers(1, 2 * cpus)),
        processes=draw(st.booleans()),
        booted=draw(st.floats(0, 1)),
    )


works = st.builds(
    Work,
    st.one_of(st.just(math.inf), st.integers(1, 10**9).map(float)),
    st.booleans(),
    st.booleans(),
)


@given(figures(), machines(), works, st.sampled_from(KINDS), st.integers(1, 200))
def test_no_resource_is_busy_for_more_than_all_of_the_time(
    one: Figures, machine: Machine, work: Work, kind: str, workers: int
) -> None:
    found = forecast(one, machine, kind, workers, work)
    calls = 1 if math.isinf(work.calls) else work.calls
    least = calls * one.wall / (1 if kind == "serial" else workers)
    least = max(least, calls * one.cpu * one.wall / machine.cpus if kind != "serial" else 0)
    if kind == "threads" and machine.gil:
        least = max(least, calls * one.gil * one.wall)
    assert found.seconds >= least * (1 - 1e-9)
    assert found.limit
    assert found.speedup <= max(workers, 1) * (1 + 1e-9)


@given(figures(), machines(), works, st.sampled_from(["threads", "processes"]))
def test_the_needed_number_is_about_as_good_as_any(
    one: Figures, machine: Machine, work: Work, kind: str
) -> None:
    most = machine.most_threads if kind == "threads" else machine.most_processes
    number = needed(one, machine, kind, work)
    assert 1 <= number <= most
    found = forecast(one, machine, kind, number, work).seconds
    for other in {1, 2, most}:
        if other <= most:
            assert found <= forecast(one, machine, kind, other, work).seconds * 1.2


@given(figures(), machines(), works, st.sampled_from([None, *KINDS]))
def test_the_choice_is_near_the_best_forecast(
    one: Figures, machine: Machine, work: Work, current: str | None
) -> None:
    verdict = choose(one, machine, work, current=current)
    kinds = {found.kind for found in verdict.forecasts}
    assert verdict.kind in kinds
    if one.stays or not machine.processes:
        assert "processes" not in kinds
    assert ("serial" in kinds) == (work.chunks and work.in_place)
    chosen = next(found for found in verdict.forecasts if found.kind == verdict.kind)
    best = min(found.seconds for found in verdict.forecasts)
    assert chosen.seconds <= best * 1.15 * 1.3 * (1 + 1e-9)
    assert verdict.workers == chosen.workers
    assert verdict.why


@given(figures(), machines(), works)
def test_a_choice_stands(one: Figures, machine: Machine, work: Work) -> None:
    """Asked again from where it has put a function, it leaves it there."""
    first = choose(one, machine, work)
    assert choose(one, machine, work, current=first.kind).kind == first.kind


@given(figures(), machines(), st.floats(0.8, 1.2))
def test_a_choice_does_not_flap(one: Figures, machine: Machine, noise: float) -> None:
    """Figures that are a little off do not send a function back and forth."""
    work = Work(chunks=False)
    first = choose(one, machine, work).kind
    other = replace(one, cpu=min(1.0, one.cpu * noise), gil=min(one.gil * noise, one.cpu * noise))
    other = replace(other, gil=min(other.gil, other.cpu))
    second = choose(other, machine, work, current=first).kind
    if second != first:  # then it was for good
        assert choose(one, machine, work, current=second).kind in (first, second)
        again = choose(other, machine, work, current=second).kind
        assert again == second


TWO = Machine(cpus=2, most_threads=64, most_processes=4)


@pytest.mark.parametrize(
    ("one", "work", "kind"),
    [
        (Figures(1, 0.1, 0.01, 0.01), Work(), "threads"),  # waits
        (Figures(1, 0.1, 1.0, 0.9), Work(), "processes"),  # computes in Python
        (Figures(1, 0.1, 1.0, 0.05), Work(), "threads"),  # lets go of the GIL
        (Figures(1, 0.1, 1.0, 0.9, stays="a lock"), Work(calls=100), "serial"),
        (Figures(1, 0.1, 1.0, 0.9, stays="a lock"), Work(chunks=False), "threads"),
        (Figures(9, 1e-7, 1.0, 1.0), Work(calls=1000), "serial"),  # too small
        (Figures(9, 1e-4, 1.0, 1.0), Work(calls=100), "serial"),
        (Figures(9, 1e-4, 1.0, 1.0), Work(calls=100_000), "processes"),
        (Figures(9, 1e-4, 1.0, 1.0), Work(calls=1, chunks=False), "threads"),
        (Figures(1, 0.01, 1.0, 0.9, bytes_in=1e8, pack_in=0.05), Work(calls=1000), "serial"),
    ],
)
def test_verdicts(one: Figures, work: Work, kind: str) -> None:
    verdict = choose(one, TWO, work)
    assert verdict.kind == kind, verdict.why


def test_without_a_gil_threads_compute() -> None:
    free = replace(TWO, gil=False)
    assert choose(Figures(1, 0.1, 1.0, 0.9), free, Work()).kind == "threads"


def test_half_waiting_calls_get_more_processes_than_cores() -> None:
    verdict = choose(Figures(1, 0.1, 0.5, 0.5), TWO, Work(calls=1000))
    assert (verdict.kind, verdict.workers) == ("processes", 4)


def test_threads_follow_the_ratio_of_waiting_to_computing() -> None:
    assert needed(Figures(1, 0.1, 0.1, 0.05), TWO, "threads") in range(17, 21)
    assert needed(Figures(1, 0.1, 0.001, 0.001), TWO, "threads") in range(60, 65)
    assert needed(Figures(1, 0.1, 1.0, 0.02), TWO, "threads") == 2


def test_what_stays_is_named() -> None:
    one = Figures(1, 0.1, 1.0, 0.9, stays="it holds a lock")
    assert "it holds a lock" in choose(one, TWO, Work()).why
    assert {found.kind for found in forecasts(one, TWO)} == {"serial", "threads"}


@given(st.floats(1e-9, 1e4))
def test_seconds_for_people(seconds: float) -> None:
    text, unit = human(seconds).split()
    factor = {"s": 1.0, "ms": 1e-3, "us": 1e-6}[unit]
    assert float(text) * factor == pytest.approx(seconds, rel=0.01)
