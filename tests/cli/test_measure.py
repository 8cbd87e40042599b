"""``lightwork advise``, ``bench``, ``doctor``: from outside, as a shell runs them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from lightwork.measure.doctor import examine
from tests.scripts import Ran, run_command

TOOLS = """
import time
def rest(seconds):
    time.sleep(seconds)
    return seconds
def fails(n):
    raise OSError("no such page")
def clock(n):
    return time.monotonic_ns()
def add(a, b):
    return a + b
def loud(n):
    print("computing", n)
    return n
def leaves(n):
    raise SystemExit(3)
def lock(n):
    import threading
    return threading.Lock()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tools.py").write_text(TOOLS)
    return tmp_path


def lightwork(folder: Path, *words: str) -> Ran:
    return run_command([sys.executable, "-m", "lightwork", *words], cwd=folder, timeout=110)


def test_advise(folder: Path) -> None:
    ran = lightwork(folder, "advise", "tools.py:rest", "0.02", "0.02", "0.02", "--calls", "100")
    assert ran.status == 0, ran.err
    assert ran.out.startswith("rest: threads")
    assert "for 100 calls" in ran.out
    assert "criterion" in ran.out


def test_advise_as_json(folder: Path) -> None:
    ran = lightwork(folder, "advise", "math:sqrt", "--range", "1:100", "--json", "--verify")
    found = json.loads(ran.out)
    assert found["kind"] == "serial"
    assert {one["kind"] for one in found["measured"]} >= {"serial", "threads"}


def test_a_function_that_fails(folder: Path) -> None:
    for command in ("advise", "bench"):
        ran = lightwork(folder, command, "tools.py:fails", "1")
        assert ran.status == 1
        assert ran.err.startswith("lightwork: the function failed: fails(1), index 0")
        assert "OSError: no such page" in ran.err
        assert "lightwork/measure" not in ran.err


def test_a_function_that_leaves(folder: Path) -> None:
    for command in ("advise", "bench"):
        ran = lightwork(folder, command, "tools.py:leaves", "1")
        assert ran.status == 1
        assert "SystemExit: 3" in ran.err


def test_what_the_function_prints_is_not_among_the_results(folder: Path) -> None:
    ran = lightwork(folder, "advise", "tools.py:loud", "1", "--json", "--verify")
    assert json.loads(ran.out)["function"] == "loud"
    ran = lightwork(folder, "bench", "tools.py:loud", "1", "--json", "-", "--workers", "1")
    assert json.loads(ran.out)["function"] == "loud"
    assert "computing 1" in ran.err


def test_results_that_cannot_travel(folder: Path) -> None:
    ran = lightwork(folder, "bench", "tools.py:lock", "1", "--workers", "1")
    assert ran.status == 1
    assert "cannot run in another process: lock(1), index 0" in ran.err
    assert "the result cannot be pickled" in ran.err
    assert "Traceback" not in ran.err
    words = ("--kinds", "threads", "--repeats", "1", "--workers", "1")
    ran = lightwork(folder, "bench", "tools.py:lock", "1", *words)
    assert ran.status == 0, ran.err
    assert "some results can be compared neither by == nor as bytes" in ran.out


def test_bench(folder: Path) -> None:
    words = ["tools.py:rest", "0.01", "0.01", "--workers", "1,2", "--kinds", "threads,processes"]
    ran = lightwork(folder, "bench", *words, "--repeats", "2", "--json", "out.json")
    assert ran.status == 0, ran.err
    shown = ("rest: 2 calls, 2 rounds", "all results were as in place", "efficiency", "Use ")
    for words_ in shown:
        assert words_ in ran.out
    found = json.loads((folder / "out.json").read_text())
    assert [row["workers"] for row in found["rows"]] == [1, 1, 2, 1, 2]
    only = lightwork(folder, "bench", "tools.py:add", "--star", "[1, 2]", "--json", "-")
    assert json.loads(only.out)["calls"] == 1


def test_bench_draws(folder: Path) -> None:
    pytest.importorskip("matplotlib")
    words = ["math:sqrt", "--range", "0:5", "--workers", "1,2", "--repeats", "1"]
    ran = lightwork(folder, "bench", *words, "--plot", "out.svg")
    assert ran.status == 0, ran.err
    assert "<svg" in (folder / "out.svg").read_text()
    ran = lightwork(folder, "bench", *words, "--plot", "out.nosuch")
    assert ran.status == 2
    assert "must end in .png, .svg or .pdf" in ran.err


def test_bench_checks_results(folder: Path) -> None:
    ran = lightwork(folder, "bench", "tools.py:clock", "1", "--workers", "1", "--quiet")
    assert ran.status == 1
    assert "the result for item 0 is not what it was in place" in ran.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["bench", "math:sqrt", "1", "--workers", "2,x"], "whole number"),
        (["bench", "math:sqrt", "1", "--kinds", "dogs"], "unknown kind 'dogs'"),
        (["bench", "math:sqrt", "--range", "3:3"], "no item"),
        (["bench", "math:sqrt"], "there are none"),
        (["bench", "math:sqrt", "1", "--json", "nosuch/a.json"], "its folder is not there"),
        (["bench", "math:sqrt", "1", "--plot", "nosuch/a.png"], "its folder is not there"),
        (["advise", "math:sqrt", "--range", "3:3"], "no item"),
        (["advise", "math:sqrt", "--range", "3"], "must be A:B"),
        (["advise", "nosuch:f", "1"], "no module 'nosuch'"),
        (["advise", "math:nosuch", "1"], "has no 'nosuch'"),
        (["advise", "math:pow", "--star", '{"x": 1}'], "give lists"),
        (["doctor", "--nosuch"], "unrecognized"),
        (["demo", "squaresx"], "did you mean 'squares'?"),
        (["demo", "sharing"], "did you mean 'sharing-lock' or 'sharing-rlock' or"),
        (["demo", "--source"], "needs the NAME"),
    ],
)
def test_wrong_use(folder: Path, words: list[str], said: str) -> None:
    ran = lightwork(folder, *words)
    assert ran.status == 2, ran.err
    assert said in ran.err


@pytest.mark.parametrize("command", ["advise", "bench", "demo", "doctor"])
def test_help(folder: Path, command: str) -> None:
    ran = lightwork(folder, command, "--help")
    assert ran.status == 0
    assert f"lightwork {command}" in ran.out


def test_doctor(folder: Path) -> None:
    ran = lightwork(folder, "doctor", "--json")
    found = json.loads(ran.out)
    assert ran.status == (1 if found["problems"] else 0)
    assert found["facts"]["a worker process"]["started"].startswith("yes")


def test_doctor_for_eyes(folder: Path) -> None:
    text = lightwork(folder, "doctor").out
    for words in ("processors", "GIL", "/dev/shm", "descriptors", "optional parts"):
        assert words in text


def test_the_doctor_sees_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "proc/self/cgroup": "0::/box\n",
        "proc/self/mountinfo": "1 1 0:1 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
        "sys/fs/cgroup/box/cpu.max": "50000 100000\n",
        "sys/fs/cgroup/box/memory.max": "268435456\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("LIGHTWORK_MAX_WORKERS", "many")
    report = examine(str(tmp_path), try_workers=False)
    assert any("allows 0.5 of one processor" in one for one in report.problems)
    assert any("LIGHTWORK_MAX_WORKERS='many'" in one for one in report.problems)
    assert report.facts["system"]["memory"] == "at most 256 MiB"
    assert report.facts["system"]["/dev/shm"].startswith("not there")
    assert "wrong\n" in str(report)


def test_the_threads_of_blas_are_counted() -> None:
    pytest.importorskip("numpy")
    threadpoolctl = pytest.importorskip("threadpoolctl")
    facts = examine(try_workers=False).facts["native threads"]
    for one in threadpoolctl.threadpool_info():
        assert f"{one['num_threads']} threads" in facts.values()


def test_a_healthy_system_is_told_so() -> None:
    report = examine(try_workers=False)
    if not report.problems:
        assert str(report).endswith("nothing is wrong")
