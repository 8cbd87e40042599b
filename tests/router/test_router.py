"""``Pool()``: where functions go, that nothing is lost or run twice on the way, and that it ends.

What is asserted about places is what holds on any machine: waiting never goes to processes, what
cannot travel stays. Which of two near choices is taken is shown by ``benchmarks/choose.py``.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from lightwork import Failure, Pool, wait
from lightwork.decision import Decision
from lightwork.measure.gil import has_gil

from .work import bump, digest, fail_on_three, nap, nap_and_spin, roll, spin, where


def last(pool: Pool) -> Decision:
    """The only or the last decision; there is one by now."""
    assert pool.decisions, "nothing was decided"
    return pool.decisions[-1]


def test_waiting_goes_to_threads_many_more_than_cores() -> None:
    with Pool() as pool:
        found = list(pool.map(nap, [0.02] * 200))
        assert set(found) == {os.getpid()}
        assert last(pool).kind == "threads"
        assert last(pool).workers > 8
        assert "waits" in last(pool).why


def test_computing_goes_to_processes() -> None:
    with Pool() as pool:
        found = list(pool.map(spin, [0.02] * 60))
        decided = last(pool)
    if decided.kind == "processes":  # with one CPU there is nothing to gain
        assert len(set(found)) > 1
        assert "computes in Python" in decided.why


needs_gil = pytest.mark.skipif(not has_gil(), reason="without a GIL, threads compute")


@needs_gil
def test_what_waits_first_and_then_computes_goes_to_processes() -> None:
    """As a page that is fetched and parsed; while the first call waits, it looks like a sleeper."""
    with Pool() as pool:
        found = list(pool.map(nap_and_spin, [0.03] * 30))
        decided = last(pool)
    if os.cpu_count() != 1:
        assert decided.kind == "processes", pool.decisions
        assert len(set(found)) > 1


def test_a_first_call_that_goes_on_holds_up_no_workers() -> None:
    """And the switch interval is as it was, however the pool ends."""
    before = sys.getswitchinterval()
    with Pool() as pool:
        assert len(list(pool.map(spin, [0.3] * 4))) == 4
    assert sys.getswitchinterval() == before
    with Pool() as pool:
        futures = [pool.submit(spin, 1.0) for _ in range(3)]
        wait(futures, timeout=0.2)
        pool.kill_workers()
    assert sys.getswitchinterval() == before
    for thread in threading.enumerate():
        if thread.name.startswith("lightwork"):  # written off; it cannot be ended
            thread.join(60)


def test_chunks_are_long_as_soon_as_it_is_decided() -> None:
    """Not thousands of chunks of one call, sent before the engine knows how long calls take."""
    with Pool() as pool:
        results = pool.map(bump, range(200_000))
        assert next(results) == 1
        assert list(results) == list(range(2, 200_001))
        router = pool._shared.router
        assert router is not None
        tasks = sum(engine._scheduler.new_task() for engine in router.places)
    assert tasks < 2000


def test_tiny_work_is_run_in_place() -> None:
    me = threading.get_ident()
    with Pool() as pool:
        assert list(pool.map(bump, range(50))) == list(range(1, 51))
        where: Callable[[int], int] = lambda _: threading.get_ident()  # noqa: E731
        for _ in range(20):  # it may be found out when all of a map are on their way
            idents = list(pool.map(where, range(2000)))
            if idents[-1] == me:
                break
        assert last(pool).kind == "serial"
    assert idents[-1] == me


def test_submitted_tiny_work_does_not_block() -> None:
    with Pool() as pool:
        idents = {pool.submit(threading.get_ident).result() for _ in range(50)}
    assert threading.get_ident() not in idents


def test_side_by_side_each_in_its_place() -> None:
    with Pool() as pool:
        waiting = pool.map(nap, [0.02] * 50)
        hashing = pool.map(digest, [b"x" * 3_000_000] * 20)
        computing = pool.map(spin, [0.01] * 50)
        assert len(list(waiting)) == 50
        assert len(set(hashing)) == 1
        assert len(list(computing)) == 50
        places = {one.function: one.kind for one in pool.decisions}
    assert places["nap"] == "threads"
    assert places.get("digest") != "processes"


@pytest.mark.parametrize("how", ["map", "submit"])
def test_no_call_is_lost_or_made_twice(how: str) -> None:
    calls: list[int] = []
    lock = threading.Lock()  # so that it must stay here, and we can count

    def note(n: int) -> int:
        with lock:
            calls.append(n)
        return -n

    with Pool() as pool:
        if how == "map":
            found = list(pool.map(note, range(3000)))
        else:
            found = [one.result() for one in [pool.submit(note, n) for n in range(3000)]]
        decided = last(pool)
    assert found == [-n for n in range(3000)]
    assert Counter(calls) == Counter(range(3000))
    assert decided.kind != "processes"
    assert "it cannot go to a process" in decided.why


def test_what_changes_what_it_closes_over_stays() -> None:
    seen: list[int] = []

    def keep(n: int) -> None:
        spin(0.01)
        seen.append(n)

    with Pool() as pool:
        list(pool.map(keep, range(60)))
        decided = last(pool)
    assert sorted(seen) == list(range(60))
    assert decided.kind != "processes"
    # Whether a change was seen by then, or the code looks like it: a first call may be long.
    assert "it cannot go to a process" in decided.why


def test_an_argument_that_cannot_travel_runs_here() -> None:
    with Pool() as pool:
        list(pool.map(spin_of, [0.01] * 40))
        lock = threading.Lock()
        assert pool.submit(spin_of, 0.001, lock).result() == os.getpid()
        found = list(pool.map(spin_of, [0.001, 0.001], [lock, lock]))
        assert found == [os.getpid()] * 2


def spin_of(seconds: float, extra: Any = None) -> int:
    return spin(seconds)


@pytest.mark.parametrize("kind", ["auto", "serial"])
def test_indices_are_those_of_the_pool(kind: str) -> None:
    with Pool(kind) as pool:
        assert [pool.submit(where, n).result() for n in range(30)] == [(n, n) for n in range(30)]
        assert list(pool.map(where, range(500))) == [(n, n) for n in range(500)]
        found = pool.map(where, range(500), ordered=False, chunksize=7)
        assert sorted(found) == [(n, n) for n in range(500)]


def test_random_streams_do_not_depend_on_the_place() -> None:
    with Pool("serial") as one, Pool() as auto:
        expected = list(one.map(roll, range(40), seed=5))
        assert list(auto.map(roll, range(40), seed=5)) == expected


def test_policies_hold_wherever_it_runs() -> None:
    with Pool() as pool:
        found = list(pool.map(fail_on_three, range(30), on_error="return"))
        assert [isinstance(one, Failure) for one in found] == [n == 3 for n in range(30)]
        assert found[3].index == 3
        assert found[3].item == 3
        with pytest.raises(ValueError, match="three") as caught:
            list(pool.map(fail_on_three, range(30)))
        assert "lightwork" in "".join(caught.value.__notes__)


def test_held_calls_can_be_cancelled() -> None:
    go, began = threading.Event(), threading.Event()

    def hold(n: int) -> int:
        began.set()
        go.wait(30)
        go.set()
        return n

    with Pool(max_workers=1) as pool:
        futures = [pool.submit(hold, n) for n in range(20)]
        began.wait(30)
        assert futures[-1].cancel()
        assert futures[-1].cancelled()
        go.set()
        assert [one.result() for one in futures[:-1]] == list(range(19))


def test_closing_waits_for_what_is_held() -> None:
    with Pool() as pool:
        futures = [pool.submit(nap, 0.01) for _ in range(50)]
    assert all(one.done() and not one.cancelled() for one in futures)


def test_closing_with_cancel_lets_go_of_what_is_held() -> None:
    pool = Pool(max_workers=2)
    futures = [pool.submit(nap, 0.05) for _ in range(200)]
    pool.shutdown(cancel_futures=True)
    assert all(one.done() for one in futures)
    assert any(one.cancelled() for one in futures)


def test_killing_ends_it_while_something_is_held() -> None:
    go = threading.Event()
    pool = Pool()
    futures = [pool.submit(go.wait, 60) for _ in range(50)]
    pool.kill_workers()
    go.set()
    assert all(one.done() for one in futures)


def test_no_more_workers_than_asked_for() -> None:
    lock = threading.Lock()
    now = most = 0

    def count(n: int) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        nap(0.005)
        with lock:
            now -= 1

    with Pool(max_workers=3) as pool:
        list(pool.map(count, range(300)))
    assert most <= 3


def test_options_of_processes_mean_processes() -> None:
    with Pool(max_tasks_per_child=100) as pool:
        assert pool.kind == "processes"
        assert "max_tasks_per_child" in last(pool).why
        assert pool.submit(os.getpid).result() != os.getpid()


def test_each_decision_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="lightwork"), Pool() as pool:
        list(pool.map(nap, [0.02] * 40))
        told = [one.getMessage() for one in caplog.records]
        assert told == [str(one) for one in pool.decisions]
        assert told[0].startswith("nap: threads")


def test_a_kind_that_was_given_decides_nothing() -> None:
    with Pool("threads") as pool:
        list(pool.map(nap, [0.01] * 4))
        assert pool.decisions == []


def test_an_endless_input_is_not_read_ahead_without_bound() -> None:
    read = 0

    def count() -> Any:
        nonlocal read
        while True:
            read += 1
            yield read

    with Pool() as pool:
        results = pool.map(bump, count())
        assert [next(results) for _ in range(10)] == list(range(2, 12))
        results.close()
    assert read < 300_000


@needs_gil
def test_a_later_map_may_go_elsewhere() -> None:
    """Few calls are run in place; many of the same are thought about again."""
    with Pool() as pool:
        list(pool.map(spin, [0.0005] * 20))
        assert "processes" not in [one.kind for one in pool.decisions]
        list(pool.map(spin, [0.0005] * 4000))
        kinds = [one.kind for one in pool.decisions]
    cpus = len(os.sched_getaffinity(0))
    # Calls as short as these look like some that wait where others have the cores: see the probe.
    if cpus > 1 and os.getloadavg()[0] < 2 * cpus:
        assert kinds[-1] == "processes"


def test_nested_pools() -> None:
    def inner(n: int) -> int:
        with Pool() as pool:
            return sum(pool.map(bump, range(n)))

    with Pool() as pool:
        assert list(pool.map(inner, [3, 4, 5])) == [6, 10, 15]
