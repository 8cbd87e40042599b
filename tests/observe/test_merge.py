"""Reports of pools with ``kind="auto"``: the histories of their engines, as one."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lightwork import Pool
from lightwork.observe.history import History
from lightwork.observe.merge import merged
from lightwork.observe.monitor import pools


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def spin(seconds: float) -> float:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
    return seconds


def fail(n: int) -> int:
    raise ValueError(n)


def result(family: int, index: int, started: float, seconds: float, calls: int = 1) -> Any:
    target = SimpleNamespace(_describe=lambda offset: (nap, ((offset,), {}), index + offset))
    entry = SimpleNamespace(_index=index, _base=0, _family=family, _target=target)
    return entry, (1, 1, 0, calls, [None] * calls, None, started, seconds), None


def two(clock: Clock) -> tuple[History, History]:
    """Threads with a worker that began second, and processes with two, one of which died."""
    threads, processes = History("p-threads", "threads", clock), History("p", "processes", clock)
    threads.functions = {0: "nap"}
    processes.functions = {0: "spin", 1: "nap"}
    processes.starting(1)
    processes.ready(1)
    clock.now = 101.0
    threads.starting(1)
    threads.ready(1)
    clock.now = 102.0
    processes.starting(2)
    processes.gone(2, "killed by SIGKILL")
    processes.sample(5, 1)
    threads.answered(1, [result(0, 0, 101.5, 0.25)])
    clock.now = 103.0
    threads.sample(2, 3)
    processes.answered(1, [result(0, 10, 102.5, 0.5), result(1, 20, 103.0, 0.125)])
    clock.now = 104.0
    processes.sample(0, 1)
    return threads, processes


def test_workers_have_numbers_by_their_starts_and_know_their_kinds() -> None:
    whole = merged(two(Clock()), "p", "auto", 99.0)
    assert list(whole.workers) == [1, 2, 3]
    assert [whole.workers[n].kind for n in (1, 2, 3)] == ["processes", "threads", "processes"]
    assert [whole.workers[n].number for n in (1, 2, 3)] == [1, 2, 3]
    assert list(whole.worker) == [2, 1, 1]
    assert {slow.worker for slow in whole.slowest} == {1, 2}
    assert [event.what for event in whole.events] == ["worker 3 killed by SIGKILL"]


def test_sums_and_spans_are_those_of_all() -> None:
    whole = merged(two(Clock()), "p", "auto", 99.0)
    assert (whole.begun, whole.calls, whole.first, whole.last) == (99.0, 3, 101.5, 103.125)
    assert whole.functions == {0: "nap", 1: "spin"}
    assert whole.by_family == {0: [2, 0.375, 0], 1: [1, 0.5, 0]}
    assert list(whole.family) == [0, 1, 0]
    assert list(whole.index) == [0, 10, 20]
    assert sum(whole.durations.values()) == 3
    assert whole.slowest[0] == min(whole.slowest)  # a heap


def test_the_queue_is_the_sum_of_what_each_had_seen_last() -> None:
    whole = merged(two(Clock()), "p", "auto", 99.0)
    assert [tuple(one) for one in whole.samples] == [
        (102.0, 5, 1),
        (103.0, 7, 4),
        (104.0, 2, 4),
    ]


def test_of_nothing_it_is_nothing() -> None:
    whole = merged([], "p", "auto", 99.0)
    assert (whole.calls, whole.workers, whole.samples) == (0, {}, [])


def test_a_traced_pool_chooses_as_any_other(tmp_path: Path) -> None:
    with Pool(trace=True, name="mixed") as pool:
        waiting = pool.map(nap, [0.02] * 60)
        computing = pool.map(spin, [0.02] * 30)
        assert len(list(waiting)) == 60
        assert len(list(computing)) == 30
        failing = pool.submit(fail, 1)
        assert isinstance(failing.exception(), ValueError)
        decided = {one.function: one.kind for one in pool.decisions}
        report = pool.report()
    assert decided["nap"] == "threads"
    assert (report.kind, report.name, report.calls, report.failed) == ("auto", "mixed", 91, 1)
    by_name = {one.name: one for one in report.functions}
    assert {name: one.calls for name, one in by_name.items()} == {"nap": 60, "spin": 30, "fail": 1}
    assert by_name["fail"].failed == 1
    kinds = {one.kind for one in report.workers}
    assert "threads" in kinds
    assert decided["spin"] in kinds
    assert sum(one.calls for one in report.workers) == 91
    report.to_trace(tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert sum(event.get("cat") == "call" for event in events) == 91
    assert "worker 1 (threads)" in {
        event["args"]["name"] for event in events if event["name"] == "thread_name"
    }
    report.to_html(tmp_path / "page.html")


def test_before_anything_ran_there_is_a_report() -> None:
    with Pool(trace=True) as pool:
        assert pool.report().calls == 0
        assert pool.report().workers == ()


def test_a_monitored_pool_shows_the_workers_of_all_kinds() -> None:
    with Pool(monitor=True, name="mixed-monitor") as pool:
        assert len(list(pool.map(spin, [0.02] * 30))) == 30
        future = pool.submit(nap, 0.5)
        shown: list[dict[str, Any]] = []
        while not future.done() and not any(one["call"] for one in shown):
            (found,) = [one for _, one in pools() if one.get("name") == "mixed-monitor"]
            shown = found["workers"]
        future.result()
        kinds = {one.kind for one in pool.decisions}
    assert found["kind"] == "auto"
    assert {one["kind"] for one in shown} >= kinds - {"serial"}
    (at_work,) = [one for one in shown if one["call"]]
    assert at_work["call"] == "nap(0.5)"
    assert at_work["seconds"] is not None
    assert all(one["pid"] for one in shown if one["kind"] == "processes")
    assert not [one for _, one in pools() if one.get("name") == "mixed-monitor"]
