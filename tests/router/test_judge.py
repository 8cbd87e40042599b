"""One probe at a time, and each judged by its own figures: beside submitters that hurry."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from lightwork import Pool
from lightwork.hop import Hop
from lightwork.judge import Judge
from lightwork.measure.model import Figures, Verdict
from lightwork.options import TaskOptions
from lightwork.places import Places
from lightwork.route import Held, Route
from lightwork.weak import WeakList

from .work import bump

COMPUTES = Figures(9, 0.5e-3, 1.0, 1.0)


class Desk:
    """A router that runs nothing: it keeps what a probe is to run."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.streams: WeakList[Any] = WeakList()
        self.out: list[Callable[[], None]] = []

    def take(self, route: Route) -> Held | None:
        return None

    def deliver(
        self, route: Route, held: Held, place: str, call: Any, gone: Callable[[], None] | None
    ) -> None:
        assert place == "probe"
        assert gone is not None
        self.out.append(gone)

    def release(self, route: Route, most: float = 0.0) -> None:
        pass

    def rest(self) -> None:
        pass


def make() -> tuple[Judge, Desk, Places, Route]:
    """A judge whose heart does not beat, and a route in processes that wants a look."""
    desk = Desk()
    places = Places(lambda *_: pytest.fail("no engine is needed"), None, 2, True, [])
    judge = Judge(desk, places)
    judge.stir = lambda route: None  # type: ignore[method-assign]
    route = Route(TaskOptions(), lambda _: None)
    assert route.settle(Verdict("processes", 2, "because", ()), COMPUTES, places.machine(), 0.0)
    route.wanted = True
    return judge, desk, places, route


def running(route: Route) -> object:
    return route.running


def held() -> Held:
    return Held(None, bump, ((1,),), True, {}, 0, None)


def test_one_probe_is_out_however_many_submit() -> None:
    judge, desk, places, route = make()
    assert judge.look_again(route, held())
    first = route.probe
    route.wanted = True  # as it may be found to be at any time
    assert not judge.look_again(route, held())
    assert route.probe is first
    assert running(route) is first
    assert places.out == len(desk.out) == 1
    desk.out[0]()
    assert places.out == 0
    assert running(route) is None
    assert not judge.look_again(route, held())  # what has ended is to be judged first


def test_many_submitters_at_once() -> None:
    for _ in range(50):
        judge, desk, places, route = make()
        start, found = threading.Barrier(4), list[bool]()

        def submit(
            judge: Judge = judge,
            route: Route = route,
            start: threading.Barrier = start,
            found: list[bool] = found,
        ) -> None:
            start.wait(20)
            found.append(judge.look_again(route, held()))

        threads = [threading.Thread(target=submit) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(found) == [False, False, False, True]
        assert places.out == len(desk.out) == 1
        desk.out[0]()
        assert places.out == 0
        assert not judge._heart.probes


def test_what_is_not_clear_is_not_decided_by_the_next_probe() -> None:
    """A probe was too short; before that is written down, a submitter starts the next one."""
    judge, desk, _, route = make()
    assert judge.look_again(route, held())
    desk.out.pop()()
    decided: list[Route] = []
    judge._decide = lambda route, now: decided.append(route)  # type: ignore[method-assign]
    ask = route.ask_for_more

    def ask_and_submit() -> None:
        ask()
        assert not judge.look_again(route, held())

    route.ask_for_more = ask_and_submit  # type: ignore[method-assign]
    judge._look_back(route, 1.0)
    assert decided == []
    assert judge.look_again(route, held())  # now it is


def test_while_a_probe_is_out_no_other_is_wanted() -> None:
    judge, desk, _, route = make()
    assert judge.look_again(route, held())
    route.look(1e9)
    assert not route.wanted
    desk.out.pop()()
    route.look(1e9)
    assert not route.wanted


def test_calls_submitted_by_many_threads_leave_no_probe_behind() -> None:
    def work(pool: Pool) -> None:
        for _ in range(20):
            assert list(pool.map(bump, range(50))) == list(range(1, 51))

    with Pool() as pool:
        threads = [threading.Thread(target=work, args=(pool,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        router = pool._shared.router
        assert router is not None
    assert router.places.out == 0
    assert not router.judge._heart.probes


def test_a_probe_goes_on_until_the_last_of_its_calls_has_ended() -> None:
    """An engine tells of the calls of a chunk as they end; some may be cancelled."""

    class Target:
        told: ClassVar[list[Any]] = []
        _orphaned = _describe = None

        def _settle(self, *outcome: Any) -> None:
            self.told.append(outcome)

        def _cancelled(self, *place: Any) -> None:
            self.told.append(place)

    ended: list[bool] = []
    hop = Hop(Target(), object(), lambda: ended.append(True), 5)  # type: ignore[arg-type]
    hop._settle(0, [1, 2], None, None, 0.0)
    hop._settle(2, [3], None, None, 0.0)
    assert not ended
    hop._cancelled(3, 5)
    assert ended == [True]
    assert Target.told == [(0, [1, 2], None, None, 0.0), (2, [3], None, None, 0.0), (3, 5)]
