"""When a route looks again: by figures and a clock that the test gives. No pool, no thread."""

from __future__ import annotations

import os
from typing import Any

import pytest

from lightwork import Pool, PoolClosed
from lightwork.measure.model import Figures, Machine, Verdict
from lightwork.measure.probe import Heart
from lightwork.options import TaskOptions
from lightwork.route import AGAIN, SOON, Route

from .work import bump, nap

MACHINE = Machine(cpus=2, most_threads=64, most_processes=4)


def settled(kind: str, figures: Figures) -> tuple[Route, list[Route]]:
    """A route that was decided at time 0, and what it has told since."""
    told: list[Route] = []
    route = Route(TaskOptions(), told.append)
    assert route.settle(Verdict(kind, 2, "because", ()), figures, MACHINE, 0.0)
    return route, told


def ran(route: Route, calls: int, wall: float, cpu: float) -> None:
    """Calls were seen to take so long, in threads."""
    route.watched.calls += calls
    route.watched.wall, route.watched.cpu = wall, cpu


WAITS = Figures(3, 0.1, 0.01, 0.01)
COMPUTES = Figures(3, 0.1, 1.0, 0.9)
RELEASES = Figures(3, 0.1, 1.0, 0.05)


def test_places_of_threads() -> None:
    assert settled("threads", WAITS)[0].place == "threads"
    assert settled("threads", RELEASES)[0].place == "cores"
    assert settled("processes", COMPUTES)[0].place == "processes"


def test_waiting_begins_with_some_threads_and_may_have_many() -> None:
    route, _ = settled("threads", WAITS)
    assert route.level == 32
    assert route.climb is not None
    assert settled("threads", RELEASES)[0].climb is None


def test_waiting_that_begins_to_compute_is_measured_anew() -> None:
    route, told = settled("threads", WAITS)
    ran(route, 20, 0.1, 0.001)
    route.look(SOON + 1)
    assert not told
    ran(route, 20, 0.1, 0.05)
    route.look(SOON + 2)
    assert route.anew
    assert told == [route]


def test_threads_that_share_a_gil_after_all_are_measured_anew() -> None:
    route, told = settled("threads", RELEASES)
    ran(route, 20, 0.1, 0.098)
    route.look(SOON + 1)
    assert not told
    ran(route, 20, 0.2, 0.1)  # each gets half of a core
    route.look(SOON + 2)
    assert route.anew


def test_nothing_is_made_of_a_few_calls() -> None:
    route, _ = settled("threads", RELEASES)
    ran(route, 3, 0.2, 0.02)
    route.look(SOON + 1)
    assert not route.anew


@pytest.mark.parametrize("seconds", [0.4, 0.02])
def test_elsewhere_other_times_are_a_drift(seconds: float) -> None:
    route, _ = settled("processes", COMPUTES)
    route.seen = seconds
    route.look(0.2)
    assert route.wanted


def test_elsewhere_it_looks_again_at_growing_intervals() -> None:
    route, _ = settled("processes", COMPUTES)
    route.seen = 0.1
    now, waits = 0.0, []
    for _ in range(4):
        begin = now
        while not route.wanted:
            now += AGAIN / 10
            route.look(now)
        waits.append(now - begin)
        assert not route.settle(Verdict("processes", 2, "still", ()), COMPUTES, MACHINE, now)
    assert waits == sorted(waits)
    assert waits[-1] > 3 * waits[0]


def test_measured_anew_it_has_no_place() -> None:
    route, _ = settled("threads", WAITS)
    probe = route.probe
    route.measure_anew()
    assert route.place is None
    assert route.probe is not probe


def test_names_are_the_users() -> None:
    route = Route(TaskOptions(), lambda _: None)

    class Wrapper:
        func = staticmethod(bump)

        def __call__(self, n: int) -> int:
            return bump(n)

    route.called(Wrapper())
    assert route.name == "bump"


def test_where_no_thread_can_be_started_processes_do_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As while the interpreter ends, on Python 3.12."""
    monkeypatch.setattr(Heart, "start", lambda self: False)
    with Pool() as pool:
        assert list(pool.map(bump, range(20))) == list(range(1, 21))
        assert pool.submit(os.getpid).result() != os.getpid()


def test_a_forked_child_has_a_closed_pool() -> None:
    with Pool() as pool:
        futures: list[Any] = [pool.submit(nap, 0.05) for _ in range(20)]
        child = os.fork()
        if not child:
            try:
                pool.submit(nap, 0)
            except PoolClosed:
                os._exit(0)
            os._exit(1)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert len([one.result() for one in futures]) == 20
