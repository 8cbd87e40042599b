"""Ctrl-C and SIGTERM: finished results are kept, nothing is left, and nobody waits for a call.

Calls take ten minutes, and the test is over before: so they were ended.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.leaks import descendants
from tests.scripts import environment

KINDS = ("processes", "threads", "serial")

TOOLS = '''
import os, time

def work(item):
    """[seconds, folder]: leaves a mark when it starts."""
    seconds, folder = item
    open(os.path.join(folder, f"started-{seconds}-{time.monotonic_ns()}"), "w").close()
    time.sleep(seconds)
    return seconds
'''

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    (tmp_path / "tools.py").write_text(TOOLS)
    processes = []

    def begin(*words: str, items: list[float]) -> subprocess.Popen[str]:
        lines = "".join(json.dumps([one, str(tmp_path)]) + "\n" for one in items)
        (tmp_path / "items").write_text(lines)
        process = subprocess.Popen(
            [sys.executable, "-m", "lightwork", "map", "tools.py:work", "--jsonl", "items", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env=environment(),
            start_new_session=True,
        )
        processes.append(process)
        return process

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


def wait_for(folder: Path, pattern: str, count: int = 1) -> None:
    """Wait until so many tasks have left their marks."""
    end = time.monotonic() + 60
    while len(list(folder.glob(pattern))) < count:
        assert time.monotonic() < end, list(folder.iterdir())
        time.sleep(0.005)


def finish(process: subprocess.Popen[str]) -> tuple[list[Any], str]:
    """The results and what was said; checks that no worker is left."""
    family = {one.pid: one.started for one in descendants(process.pid)}
    out, err = process.communicate(timeout=90)
    end = time.monotonic() + 20
    while left := [pid for pid, started in family.items() if _lives(pid, started)]:
        assert time.monotonic() < end, f"left behind: {left}"
        time.sleep(0.01)
    assert "Traceback" not in err
    return [json.loads(line) for line in out.splitlines()], err


def _lives(pid: int, started: str) -> bool:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return fields[19] == started and fields[0] != "Z"


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupt_ends_it(kind: str, start: Start, tmp_path: Path) -> None:
    process = start("--kind", kind, "--workers", "6", items=[600.0] * 8)
    wait_for(tmp_path, "started-600*", 1 if kind == "serial" else 6)
    process.send_signal(signal.SIGINT)
    found, err = finish(process)
    assert process.returncode == 130
    assert found == []
    assert err.splitlines()[-1] == "lightwork: interrupted; finished results are kept"
    assert len(err.splitlines()) == 2, err  # the summary, and that


@pytest.mark.parametrize("kind", ("processes", "threads"))
def test_finished_results_are_kept_also_behind_a_gap(
    kind: str, start: Start, tmp_path: Path
) -> None:
    process = start("--kind", kind, "--workers", "2", items=[600.0, 0.01, 0.02, 500.0])
    wait_for(tmp_path, "started-500*")
    process.send_signal(signal.SIGINT)
    found, err = finish(process)
    assert process.returncode == 130
    assert [(one["index"], one["result"]) for one in found] == [(1, 0.01), (2, 0.02)]
    assert "2 done in " in err


def test_a_second_interrupt_ends_it_at_once(start: Start, tmp_path: Path) -> None:
    process = start("--kind", "processes", "--workers", "2", items=[600.0] * 2)
    wait_for(tmp_path, "started-600*", 2)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    finish(process)
    # The second one may hit Python's own way out, which ends by the signal: 130 to a shell, too.
    assert process.returncode in (130, -signal.SIGINT)


@pytest.mark.parametrize("kind", KINDS)
def test_sigterm_lets_running_calls_finish(kind: str, start: Start, tmp_path: Path) -> None:
    process = start("--kind", kind, "--workers", "2", items=[1.0] + [0.5] * 200)
    wait_for(tmp_path, "started-1*")
    process.send_signal(signal.SIGTERM)
    found, err = finish(process)
    assert process.returncode == 143
    assert found[0]["result"] == 1.0
    assert all("result" in one for one in found)
    assert len(found) < 201  # only what ran, not what was waiting
    assert "failed" not in err
    assert err.splitlines()[-1] == "lightwork: terminated; finished results are kept"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ("processes", "threads"))
def test_sigterm_has_an_end(kind: str, start: Start, tmp_path: Path) -> None:
    process = start("--kind", kind, "--workers", "2", items=[600.0, 0.01, 600.0])
    wait_for(tmp_path, "started-600*", 2)
    process.send_signal(signal.SIGTERM)
    found, _ = finish(process)
    assert process.returncode == 143
    assert [one["result"] for one in found] == [0.01]


def test_an_interrupt_while_waiting_for_input(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "lightwork", "map", "math:sqrt", "--jsonl", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("4\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["result"] == 2.0
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
