"""``advise`` and ``sweep``: what they tell, and what they check."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from lightwork import MissingExtra, Sweep, advise, sweep
from lightwork.measure.gil import has_gil
from lightwork.measure.sweep import Row, WrongResults, _summary
from tests.router.work import nap, spin


def rest(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def test_waiting_is_advised_threads() -> None:
    advice = advise(nap, [0.02] * 20)
    assert advice.kind == "threads"
    assert advice.workers > 1
    assert "waits" in advice.why
    assert advice.evidence.calls <= 20
    text = str(advice)
    for words in ("nap: threads", "holding the GIL", "criterion", "task type", "communication"):
        assert words in text


def test_what_cannot_travel_is_not_advised_processes() -> None:
    lock = threading.Lock()

    def locked(n: int) -> int:
        with lock:
            spin(0.01)
        return n

    advice = advise(locked, range(10), calls=1000)
    assert advice.kind != "processes"
    assert "lock" in advice.evidence.stays
    if has_gil():
        assert "if it could go to a process: processes" in advice.changes


def test_only_some_items_are_read() -> None:
    read: list[int] = []

    def items() -> Any:
        for n in range(10_000):
            read.append(n)
            yield n

    advise(abs, items())
    assert len(read) <= 201


def test_calls_are_made_once_and_in_this_thread() -> None:
    idents: list[int] = []
    advice = advise(lambda n: idents.append(threading.get_ident()), range(10))
    assert idents == [threading.get_ident()] * 10
    assert "changed idents" in advice.evidence.stays


def test_verified_with_real_runs() -> None:
    advice = advise(nap, [0.005] * 10, verify=True)
    kinds = {kind for kind, _ in advice.measured}
    assert kinds == {"serial", "threads", "processes"}
    assert all(seconds > 0 for seconds in advice.measured.values())
    assert "measured" in str(advice)
    assert json.loads(json.dumps(advice.to_dict()))["kind"] == "threads"


def inverse(n: int) -> float:
    return 1 / n


def test_errors_and_emptiness() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        advise(inverse, [1, 0])
    assert caught.value.__notes__ == ["lightwork: inverse(0), index 1"]
    with pytest.raises(ValueError, match="at least one item"):
        advise(abs, [])


def test_more_cores_change_nothing_where_the_workers_are_bounded() -> None:
    advice = advise(nap, [0.01] * 4, calls=1000, max_workers=4)
    assert advice.workers == 4
    assert not [one for one in advice.changes if "cores" in one]


def test_star() -> None:
    assert advise(pow, [(2, 3), (4, 5)], star=True, verify=True).evidence.calls == 2


def test_sweep_measures_each_pool() -> None:
    told: list[tuple[int, int, str]] = []
    found = sweep(
        rest,
        [0.002] * 12,
        workers=(1, 2, 4),
        kinds=("threads", "processes"),
        repeats=2,
        on_progress=lambda *news: told.append(news),
    )
    assert [(row.kind, row.workers) for row in found.rows] == [
        ("serial", 1),
        *[(kind, n) for kind in ("threads", "processes") for n in (1, 2, 4)],
    ]
    for row in found.rows:
        assert row.low <= row.seconds <= row.high
        assert row.efficiency == pytest.approx(row.speedup / row.workers)
    assert found.best in found.rows
    assert [one.kind for one in found.fit] == ["threads", "processes"]
    assert "at least 3 pool sizes" in found.fit[0].text  # for the second law
    assert found.fit[0].amdahl is not None
    assert "round 2 of 2: 1 thread" in {what for _, _, what in told}
    assert told[-1][0] == told[-1][1] == len(found.rows) * 3
    assert "speed-up" in str(found)
    assert f"Use {found.why}" in str(found)
    assert json.loads(json.dumps(found.to_dict()))["calls"] == 12


def test_a_sweep_checks_results() -> None:
    with pytest.raises(WrongResults, match="item 0"):
        sweep(lambda _: time.monotonic_ns(), range(3), workers=(1,), kinds=("threads",))


def test_arrays_are_compared_as_bytes() -> None:
    numpy = pytest.importorskip("numpy")
    sweep(numpy.arange, [3, 4], workers=(1,), kinds=("threads",), repeats=1)


def test_what_cannot_be_compared_is_told() -> None:
    found = sweep(lambda _: threading.Lock(), [1], workers=(1,), kinds=("threads",), repeats=1)
    assert not found.compared
    assert "were not" in str(found)


@pytest.mark.parametrize(
    "wrong", [{"workers": ()}, {"repeats": 0}, {"kinds": ("dogs",)}, {"items": []}]
)
def test_a_sweep_of_nothing_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="needs at least|unknown kind"):
        sweep(abs, **({"items": [1]} | wrong))


def made(*rows: tuple[str, int, float]) -> Sweep:
    """A sweep of known times."""
    times = {(kind, workers): [seconds] * 3 for kind, workers, seconds in rows}
    return _summary("f", 100, times, dict.fromkeys(times, 0.01), 3, 4)


def test_the_fewest_workers_within_three_percent_are_best() -> None:
    found = made(
        ("serial", 1, 8.0),
        ("processes", 1, 8.1),
        ("processes", 2, 4.1),
        ("processes", 4, 2.05),
        ("processes", 8, 2.0),
    )
    assert found.best == Row("processes", 4, 2.05, 2.05, 2.05, 0.01, 8 / 2.05, 2 / 2.05)
    assert "4 processes" in found.why
    assert "a worker adds 1 ms" in found.why


def test_a_law_that_does_not_fit_says_so() -> None:
    times = {1: 8.0, 2: 1.0, 4: 9.0, 8: 1.0}
    rows = [("processes", n, seconds) for n, seconds in times.items()]
    assert "it does not tell much" in made(("serial", 1, 8.0), *rows).fit[0].text
    rows = [("processes", n, 8.0 / n) for n in times]
    assert "(misfit 0.0%)" in made(("serial", 1, 8.0), *rows).fit[0].text


def test_in_place_where_workers_cost_more_than_they_save() -> None:
    found = made(("serial", 1, 1.0), ("processes", 1, 2.0), ("processes", 2, 1.5))
    assert found.best.kind == "serial"
    assert found.why.startswith("in place (a call takes 10 ms; what workers cost is more")


@pytest.mark.leaves("descriptor")  # matplotlib keeps its fonts open
def test_a_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    found = made(
        ("serial", 1, 8.0),
        *[(kind, n, 8.0 / n**0.8) for kind in ("processes", "threads") for n in (1, 2, 4, 8)],
    )
    for name, start in (("a.png", b"\x89PNG"), ("a.svg", b"<?xml")):
        found.plot(tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(start)
    drawn = (tmp_path / "a.svg").read_text()
    for words in ("ideal", "use 8 processes", "processes, USL", "threads, median and spread of 3"):
        assert f"<!-- {words} -->" in drawn
    assert "<dc:date>" not in drawn


@pytest.mark.leaves("descriptor")
def test_a_plot_where_nothing_pays(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    made(("serial", 1, 1.0), ("threads", 2, 3.0)).plot(tmp_path / "a.svg")
    assert "<!-- use in place -->" in (tmp_path / "a.svg").read_text()


def test_without_matplotlib_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtra, match=r"lightwork\[plot\]"):
        made(("serial", 1, 1.0)).plot(tmp_path / "a.png")
