"""SIGKILL of everything, at any moment: nothing that was handed out is run again, or differs."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.leaks import descendants
from tests.scripts import environment, run_command

ITEMS = 2000
KILLS = 50
MOST = 150
"""Bytes of an item's number a line that a run may note before it is killed: some 30 items."""

TOOLS = """
import os, time

def work(item):
    fd = os.open(os.environ["RAN"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    if os.fstat(fd).st_size >= int(os.environ.get("MOST", 10**9)):
        time.sleep(600)  # this run has done its share; so there is work for the next one
    os.write(fd, b"%d\\n" % item)
    os.close(fd)
    time.sleep(0.001)
    return {"square": item * item, "text": "x" * (item % 300)}
"""


def command(*more: str) -> list[str]:
    words = ["map", "tools.py:work", "--range", f"0:{ITEMS}", "--quiet", *more]
    return [sys.executable, "-m", "lightwork", *words]


def whole_lines(path: Path) -> list[bytes]:
    """What a reader may take as handed out."""
    return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


def ran(path: Path) -> set[int]:
    return {int(one) for one in path.read_bytes().split()} if path.exists() else set()


def kill(process: subprocess.Popen[bytes]) -> None:
    """The whole group at once; returns when the workers, who are in other groups, are gone too."""
    family = {one.pid: one.started for one in descendants(process.pid)}
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    end = time.monotonic() + 30
    while any(_lives(pid, started) for pid, started in family.items()):
        assert time.monotonic() < end, "workers outlive their parent"
        time.sleep(0.002)


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts programs in groups of their own; none of them outlives its test."""
    begun: list[subprocess.Popen[bytes]] = []

    def begin(words: list[str], **options: Any) -> subprocess.Popen[bytes]:
        begun.append(subprocess.Popen(words, start_new_session=True, **options))
        return begun[-1]

    yield begin
    for process in begun:
        if process.poll() is None:
            kill(process)


def _lives(pid: int, started: str) -> bool:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return fields[19] == started and fields[0] != "Z"


@pytest.mark.slow
@pytest.mark.timeout(1500)  # seconds of an idle machine, minutes of a busy one
@pytest.mark.parametrize("kind", ("processes", "threads"))
def test_fifty_kills(
    kind: str, tmp_path: Path, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    (tmp_path / "tools.py").write_text(TOOLS)
    undisturbed = run_command(
        command("-o", "undisturbed", "--kind", kind),
        cwd=tmp_path,
        env={"RAN": str(tmp_path / "ran-undisturbed")},
        timeout=300,
    )
    assert undisturbed.status == 0, undisturbed.err
    chance = random.Random(kind)
    out = tmp_path / "out.jsonl"
    handed: set[int] = set()
    lengths = []
    for number in range(KILLS):
        log = tmp_path / f"ran-{number}"
        process = start(
            command("-o", "out.jsonl", "--resume", "--kind", kind),
            cwd=tmp_path,
            env=environment({"RAN": str(log), "MOST": str(MOST)}),
        )
        if chance.random() < 0.2:  # while it starts, or takes in what there is
            time.sleep(chance.uniform(0, 0.3))
        else:  # soon after the first item has run
            while not log.exists() and process.poll() is None:
                time.sleep(0.001)
            time.sleep(chance.uniform(0, 0.03))
        assert process.poll() is None, "it has ended by itself"
        kill(process)
        assert not ran(log) & handed, "run again, though their results had been handed out"
        lines = whole_lines(out)
        assert [json.loads(line)["index"] for line in lines] == list(range(len(lines)))
        handed |= set(range(len(lines)))
        lengths.append(len(lines))
    assert lengths == sorted(lengths), "what was handed out was taken back"
    assert 0 < lengths[-1] < ITEMS
    log = tmp_path / "ran-last"
    last = run_command(
        command("-o", "out.jsonl", "--resume", "--kind", kind),
        cwd=tmp_path,
        env={"RAN": str(log)},
        timeout=300,
    )
    assert last.status == 0, last.err
    assert out.read_bytes() == (tmp_path / "undisturbed").read_bytes()
    assert not ran(log) & handed
    # And now there is nothing left to run.
    again = run_command(
        command("-o", "again", "--checkpoint", "out.jsonl.checkpoint", "--kind", kind),
        cwd=tmp_path,
        env={"RAN": str(tmp_path / "ran-again")},
        timeout=300,
    )
    assert again.status == 0, again.err
    assert (tmp_path / "again").read_bytes() == out.read_bytes()
    assert not (tmp_path / "ran-again").exists()


SCRIPT = """
import itertools, os, sys, time
from lightwork import Pool

def work(item):
    time.sleep(0.001)
    with open(sys.argv[2], "a") as log:
        log.write(f"{item}\\n")
    return item * item

with Pool(sys.argv[3], 2) as pool:
    for n, square in enumerate(pool.map(work, itertools.count(), checkpoint=sys.argv[1])):
        assert square == n * n
        os.write(1, b"%d\\n" % n)
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ("processes", "threads", "serial"))
def test_a_script_that_is_killed(
    kind: str, tmp_path: Path, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    chance = random.Random(kind)
    handed: set[int] = set()
    for number in range(10):
        log, out = tmp_path / f"ran-{number}", tmp_path / f"out-{number}"
        with open(out, "wb") as stream:
            process = start(
                [sys.executable, "script.py", "run.db", str(log), kind],
                cwd=tmp_path,
                env=environment(),
                stdout=stream,
            )
        wanted = len(handed) + chance.randrange(200)
        while len(whole_lines(out)) <= wanted and process.poll() is None:
            time.sleep(0.01)
        assert process.poll() is None
        kill(process)
        assert not ran(log) & handed
        printed = [int(line) for line in whole_lines(out)]
        assert printed == list(range(len(printed)))
        handed |= set(printed)
    assert len(handed) > 200
