"""``Pool.report()``: figures that add up, hints that fit, files that others can read."""

from __future__ import annotations

import json
import re
import threading
from array import array
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lightwork import Pool, Retry
from lightwork.backends.base import Result
from lightwork.core.scheduler import Statistics
from lightwork.observe import history as history_module
from lightwork.observe.history import History
from lightwork.observe.page import bars
from lightwork.observe.report import Report, make_report
from lightwork.observe.words import seconds_text
from tests.observe import tasks

KINDS = ("processes", "threads", "serial")


@pytest.mark.parametrize("kind", KINDS)
def test_a_run(kind: str, tmp_path: Path) -> None:
    with Pool(kind, 2, trace=True, name="mine") as pool:
        list(pool.map(tasks.fail_at_seven, range(50), on_error="return"))
        pool.submit(tasks.nap, 0.2).result()
    report = pool.report()
    assert (report.name, report.kind, report.calls, report.failed) == ("mine", kind, 51, 1)
    assert report.slowest[0].function == "nap"
    assert report.slowest[0].item == "0.2"
    assert report.slowest[0].seconds >= 0.2
    assert {one.name: (one.calls, one.failed) for one in report.functions} == {
        "fail_at_seven": (50, 1),
        "nap": (1, 0),
    }
    assert sum(one.calls for one in report.workers) == 51
    assert sum(count for _, _, count in report.durations) == 51
    for one in report.workers:
        times = (one.starting, one.working, one.wire, one.waiting)
        assert min(times) >= 0
        assert sum(times) == pytest.approx(one.ended - one.began, rel=0.05, abs=0.01)
    assert 0 < report.utilisation <= 1
    assert report.hints
    assert f"mine: 51 calls, 1 failed in {seconds_text(report.seconds)}" in str(report)
    assert json.loads(json.dumps(report.to_dict()))["calls"] == 51
    check_trace(report, tmp_path / "run.json")
    report.to_html(tmp_path / "run.html")
    page = (tmp_path / "run.html").read_text()
    assert not re.search(r"(src|href)\s*=|url\(|@import|https?://(?!www\.w3\.org/2000/svg)", page)


def check_trace(report: Report, path: Path) -> None:
    """What the format asks of each kind of event."""
    report.to_trace(path)
    found = json.loads(path.read_text())
    assert set(found) == {"displayTimeUnit", "traceEvents"}
    spans = 0
    names = {}
    for event in found["traceEvents"]:
        assert isinstance(event["name"], str)
        assert event["pid"] == report.pid
        if event["ph"] == "M":
            names[event["tid"]] = event["args"]["name"]
            continue
        assert event["ts"] >= 0
        assert event["ph"] in ("X", "C", "i")
        if event["ph"] == "X":
            assert event["dur"] >= 0
            assert event["tid"] in names
            spans += event["args"].get("calls", 1) if event["cat"] == "call" else 0
        elif event["ph"] == "C":
            assert all(isinstance(value, int) for value in event["args"].values())
        else:
            assert event["s"] in ("t", "p")
    assert spans == report.calls


def test_crashes_and_retries(tmp_path: Path) -> None:
    with Pool("processes", 1, trace=True) as pool:
        careful = pool.options(retry=Retry(2), on_crash="retry")
        assert careful.submit(tasks.die_once, str(tmp_path / "mark")).result()
        assert isinstance(careful.submit(tasks.fail_at_seven, 7).exception(), ValueError)
        assert pool.submit(tasks.fail_at_seven, 7).exception() is not None
    report = pool.report()
    assert report.died == 1
    assert report.retried == 2
    assert report.failed == 2
    assert [one.how for one in report.workers] == ["crashed", "retired"]
    told = [one.what for one in report.events]
    assert "worker 1 crashed" in told
    assert sum("attempt 2" in one for one in told) == 2
    check_trace(report, tmp_path / "run.json")


def test_calls_that_crash_are_in_the_hints(tmp_path: Path) -> None:
    with Pool("processes", 1, trace=True) as pool:
        assert pool.submit(tasks.die_once, str(tmp_path / "mark")).exception() is not None
        pool.submit(abs, 1).result()
    report = pool.report()
    assert report.crashed == 1
    assert "One call ended with its worker" in report.hints[0]
    assert "calls: 1 crashed; workers that died: 1" in str(report)


def test_while_it_runs_and_without_a_history() -> None:
    with Pool("threads", 1, trace=True) as pool:
        assert pool.report().hints == ("No call has ended yet.",)
        pool.submit(abs, 1).result()
        assert pool.report().calls == 1
        assert pool.options(timeout=5).report().calls == 1
    with Pool("threads", 1) as pool:
        with pytest.raises(RuntimeError, match="trace=True"):
            pool.report()


def test_many_threads_and_pieces(tmp_path: Path) -> None:
    """Every call is counted once, whatever is taken back, divided and merged."""
    with Pool("processes", 3, trace=True) as pool:
        total = 0
        for count in (1, 10, 1000, 20_000):
            total += count
            assert len(list(pool.map(abs, range(count)))) == count
        futures = [pool.submit(abs, n) for n in range(200)]
        assert [one.result() for one in futures] == list(range(200))
        total += 200
    report = pool.report()
    assert report.calls == total
    check_trace(report, tmp_path / "run.json")
    rows = bars(report, report._history)
    assert sum(sum(row["calls"]) for row in rows) == total


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Story:
    """Tells a history what could have happened."""

    def __init__(self, kind: str = "processes", workers: int = 2) -> None:
        self.clock = Clock()
        self.history = History("told", kind, self.clock)
        self.history.functions[1] = "work"
        self.number = 0
        for worker in range(1, workers + 1):
            self.history.starting(worker)
        self.clock.now += 0.01
        for worker in range(1, workers + 1):
            self.history.ready(worker)
        self.workers = workers

    def call(self, worker: int, sent: float, started: float, seconds: float) -> None:
        """Times are counted from 1000."""
        target = SimpleNamespace(_describe=lambda at: (abs, ((self.number,), {}), self.number))
        entry = SimpleNamespace(_index=self.number, _base=0, _family=1, _target=target)
        self.number += 1
        self.clock.now = 1000 + sent
        self.history.sent(worker)
        self.clock.now = 1000 + started + seconds
        result = Result(self.number, 1, 0, 1, [None], None, 1000 + started, seconds)
        self.history.answered(worker, [(entry, result, None)])

    def report(self, cpus: int = 4, **counts: int) -> Report:
        zero: dict[str, Any] = dict.fromkeys(Statistics.__dataclass_fields__, 0)
        return make_report(
            self.history.snapshot(),
            Statistics(**{**zero, **counts}),
            self.clock.now,
            max_workers=self.workers,
            cpus=cpus,
        )


def test_where_the_time_goes() -> None:
    story = Story(workers=1)
    story.call(1, sent=0.01, started=0.02, seconds=0.1)  # 10 ms on the wire
    story.call(1, sent=0.32, started=0.33, seconds=0.1)  # 200 ms without anything to do
    (worker,) = story.report().workers
    assert worker.starting == pytest.approx(0.01)
    assert worker.working == pytest.approx(0.2)
    assert worker.waiting == pytest.approx(0.2)
    assert worker.wire == pytest.approx(0.02)
    assert worker.utilisation == pytest.approx(0.2 / 0.42)


def hint(report: Report) -> str:
    return report.hints[0]


def test_small_calls() -> None:
    story = Story()
    for n in range(1000):
        at = 0.02 + n * 0.001
        for worker in (1, 2):
            story.call(worker, at - 0.0019, at, 0.0001)
    assert hint(story.report()).startswith("The calls are small: 100 us each, beside 901 us")


def test_a_wire_that_takes_the_time() -> None:
    story = Story()
    for n in range(20):
        for worker in (1, 2):
            story.call(worker, 0.01, 0.1 + n * 0.1, 0.04)
    assert hint(story.report()).startswith("The wire is what takes time")
    assert "2 workers share 1 CPUs" in hint(story.report(cpus=1))


def test_too_few_workers() -> None:
    story = Story()
    for n in range(40):
        story.history.sample(500 - n, 2)
        for worker in (1, 2):
            story.call(worker, 0.01, 0.011 + n * 0.1, 0.0999)
    assert "more workers would help; this process may use 4 CPUs" in hint(story.report())
    assert "Nothing stands out: workers were at work 100 %" in hint(story.report(cpus=2))


def test_too_many_workers() -> None:
    story = Story()
    for n in range(20):
        for worker in (1, 2):
            story.call(worker, 0.1 + n, 0.1001 + n, 0.1)
    assert "Workers waited" in hint(story.report())
    assert "fewer workers would do" in hint(story.report())


def test_a_straggler() -> None:
    story = Story()
    for n in range(10):
        story.call(1, 0.01, 0.011 + n * 0.1, 0.0999)
    story.call(2, 0.01, 0.011, 3.0)
    assert hint(story.report()).startswith("One straggler: work(11), index 10, took 3 s")
    story = Story()
    for n in range(10):
        story.call(1, 0.01, 0.011 + n * 0.1, 0.0999)
        story.call(2, 0.01, 0.011 + n * 0.1, 0.0999)
    story.call(2, 1.1, 1.1, 3.0)  # handed in late: no straggler
    assert "straggler" not in " ".join(story.report().hints)


def test_starts_that_cost() -> None:
    story = Story()
    story.history.begun -= 1
    for worker in story.history.workers.values():
        worker.started -= 1
    story.call(1, 0.01, 0.011, 0.3)
    story.call(2, 0.01, 0.011, 0.3)
    assert "Starting workers took" in hint(story.report())


def test_memory_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_module, "MOST_SPANS", 100)
    story = Story()
    for n in range(5000):
        story.history.sample(n, 1)
        story.call(1 + n % 2, 0.01, 0.011 + n * 0.001, 0.001)
    assert len(story.history.starts) == 100
    assert len(story.history.samples) < history_module.MOST_SAMPLES
    assert [one.at for one in story.history.samples] == sorted(
        one.at for one in story.history.samples
    )
    report = story.report()
    assert report.calls == 5000
    assert not report.complete
    assert len(report.slowest) == history_module.SLOWEST
    columns = [one for one in vars(story.history).values() if isinstance(one, array)]
    assert sum(one.itemsize for one in columns) == 37


def test_long_runs_are_thinned_out_in_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    from lightwork.observe import page

    story = Story()
    for n in range(3000):
        story.call(1 + n % 2, 0.01, 0.011 + n * 0.001, 0.001)
    report = story.report()
    assert sum(len(row["start"]) for row in bars(report, report._history)) == 3000
    monkeypatch.setattr(page, "MOST_BARS", 100)
    rows = bars(report, report._history)
    assert sum(len(row["start"]) for row in rows) <= 110
    assert sum(sum(row["calls"]) for row in rows) == 3000


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 us"),
        (1.5e-6, "1.5 us"),
        (0.000123456, "123 us"),
        (0.0123, "12.3 ms"),
        (1.0, "1 s"),
        (59.94, "59.9 s"),
        (125.4, "2 min 05 s"),
        (3725.0, "1 h 02 min"),
    ],
)
def test_durations_in_words(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


def test_items_are_shown_without_running_code_of_the_users() -> None:
    class Trap:
        def __repr__(self) -> str:
            raise AssertionError("not under the lock")

    with Pool("threads", 1, trace=True) as pool:
        list(pool.map(type, [Trap(), "x" * 1000, ("a", 1), 5, [Trap()], b"b"]))
        list(pool.map(max, [1], [2]))
        pool.submit(dict, a=Trap()).result()
    shown = {one.item for one in pool.report().slowest}
    assert shown == {
        "<Trap>",
        repr("x" * 57) + "...",
        "('a', 1)",
        "5",
        "<list>",
        "b'b'",
        "1, 2",
        "...",
    }
    assert threading.active_count() >= 1
