"""Processes above and below: a parent that dies, tasks that fork, pools inside of pools."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lightwork import Pool, WorkerCrashed
from tests.contract.functions import identity, pid, square
from tests.contract.pools import eventually, make

from .world import script, shared_memory

METHODS = ("forkserver", "spawn", "fork")

DOOMED = """
import subprocess, sys, time
from lightwork import Pool
from tests.contract.functions import identity, square

def hang(how):
    if how == "child":
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    if how == "big":
        block = bytearray(30_000_000)
    print("hanging", flush=True)
    time.sleep(300)

pool = Pool("processes", 3, start_method=sys.argv[1])
assert len(pool.submit(identity, bytearray(5_000_000)).result()) == 5_000_000
kept = pool.submit(identity, bytearray(5_000_000)).result()
for how in ("child", "big", "plain"):
    pool.submit(hang, how)
for n in range(100):
    pool.submit(identity, bytearray(100_000))
if sys.argv[2] == "idle":
    print("hanging\\n" * 3, flush=True)
time.sleep(300)
"""


@pytest.mark.parametrize("method", METHODS)
def test_nothing_outlives_a_killed_parent(method: str, tmp_path: Path) -> None:
    before = shared_memory()
    with script(DOOMED, tmp_path, method, "busy") as one:
        for _ in range(3):
            assert one.line() == "hanging"
        assert len(one.others()) >= 4
        os.kill(one.process.pid, signal.SIGKILL)
        end = time.monotonic() + 2
        while one.others() and time.monotonic() < end:
            time.sleep(0.02)
        assert one.others() == {}
        assert list(one.temporary.iterdir()) == []
    assert shared_memory() == before


YOUNG = """
import os, signal, sys, threading, time
from lightwork import Pool
from tests.contract.functions import square

threading.Timer(float(sys.argv[2]), os.kill, (os.getpid(), signal.SIGKILL)).start()
while True:
    pool = Pool("processes", 3, start_method=sys.argv[1])
    for n in range(10):
        pool.submit(square, n)
    pool.shutdown()
"""


@pytest.mark.parametrize("method", METHODS)
def test_nothing_outlives_a_parent_killed_while_it_starts_workers(
    method: str, tmp_path: Path
) -> None:
    for delay in (0.0, 0.01, 0.03, 0.06, 0.1, 0.2):
        with script(YOUNG, tmp_path, method, str(delay)) as one:
            assert one.process.wait(30) == -signal.SIGKILL
            eventually(lambda: not one.others(), within=2)


# -- tasks that fork -------------------------------------------------------------------------------


def fork_and(what: str) -> int:
    child = os.fork()
    if child == 0:
        if what == "returns":
            return -1  # goes on as if it were the worker
        if what == "raises":
            raise ValueError("in the child")
        if what == "exits":
            sys.exit(0)
        if what == "exits at once":
            os._exit(0)
        if what == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(300)
    if what != "stays":
        os.waitpid(child, 0)
    return child


@pytest.mark.parametrize("what", ["returns", "raises", "exits", "exits at once", "dies", "stays"])
@pytest.mark.parametrize("method", METHODS)
def test_a_task_that_forks(method: str, what: str) -> None:
    with make(method, 2) as pool:
        children = [pool.submit(fork_and, what).result(30) for _ in range(3)]
        assert all(child > 0 for child in children)
        assert list(pool.map(square, range(200))) == [n * n for n in range(200)]
        mapped = list(pool.map(fork_and, [what] * 6))
        assert all(child > 0 for child in mapped)
        assert len(set(children + mapped)) == 9
    if what == "stays":
        for child in children + mapped:
            try:
                os.kill(child, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it went with its worker


def fork_and_die() -> None:
    if os.fork() == 0:
        time.sleep(300)
    print(end="", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("method", METHODS)
def test_a_worker_that_dies_though_its_child_lives(method: str) -> None:
    """The child holds the worker's channel open: the death is seen all the same, and soon."""
    with make(method, 2) as pool:
        for _ in range(3):
            begin = time.monotonic()
            error = pool.submit(fork_and_die).exception(30)
            assert isinstance(error, WorkerCrashed)
            assert error.signal == "SIGKILL"
            assert time.monotonic() - begin < 5
            assert pool.submit(square, 3).result(30) == 9


def run_programs(_: int) -> str:
    found = subprocess.run(
        [sys.executable, "-c", "print('from a program')"],
        capture_output=True,
        text=True,
        check=True,
    )
    return found.stdout.strip()


def run_process(_: int) -> int:
    import multiprocessing

    with multiprocessing.get_context("fork").Pool(2) as inner:
        return sum(inner.map(square, range(10)))


@pytest.mark.parametrize("method", METHODS)
def test_tasks_may_start_processes(method: str) -> None:
    with make(method, 2) as pool:
        assert list(pool.map(run_programs, range(4))) == ["from a program"] * 4
        assert list(pool.map(run_process, range(4))) == [285] * 4


def test_the_processes_of_a_killed_task_die_with_it(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    with make("forkserver", 1) as pool:
        future = pool.submit(sleep_in_a_program, str(path))
        eventually(lambda: path.exists() and path.read_text().endswith("\n"))
        child = int(path.read_text())
        assert future.kill()
        eventually(lambda: not _lives(child))


def sleep_in_a_program(path: str) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    with open(path, "w") as file:
        file.write(f"{child.pid}\n")
    child.wait()


def _lives(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


# -- pools inside of pools -------------------------------------------------------------------------


def use_inner(kind: str) -> tuple[int, int]:
    with make(kind, None if kind == "forkserver" else 2) as inner:
        return sum(inner.map(square, range(100))), inner.max_workers


@pytest.mark.parametrize("inner", ["threads", "serial", *METHODS])
@pytest.mark.parametrize("outer", ["threads", *METHODS])
def test_pools_in_tasks(outer: str, inner: str) -> None:
    with make(outer, 2) as pool:
        found = list(pool.map(use_inner, [inner] * 4))
    assert [total for total, _ in found] == [328350] * 4
    if inner == "forkserver" and outer in METHODS:
        usable = len(os.sched_getaffinity(0))
        assert all(workers <= max(1, usable // 2) for _, workers in found)  # their share


def deep(levels: int) -> int:
    if levels == 0:
        return 1
    with Pool("processes", 1) as pool:
        return 1 + int(pool.submit(deep, levels - 1).result(60))


def test_pools_in_pools_in_pools() -> None:
    assert deep(4) == 5


_kept: Pool | None = None


def use_kept(n: int) -> int:
    """A pool that a worker makes once and never ends."""
    global _kept
    if _kept is None:
        _kept = Pool("processes", 1)
    return int(_kept.submit(square, n).result(30))


def test_a_pool_that_a_worker_keeps() -> None:
    with make("forkserver", 2) as pool:
        assert list(pool.map(use_kept, range(20))) == [n * n for n in range(20)]


# -- a parent that forks ---------------------------------------------------------------------------

FORKING = """
import os, sys
from lightwork import Pool
from tests.contract.functions import square

kind = sys.argv[1]
pool = Pool(kind, 2)
assert pool.submit(square, 3).result(20) == 9
for n in range(50):
    pool.submit(square, n)
child = os.fork()
if child == 0:
    try:
        pool.submit(square, 3)
    except RuntimeError as error:
        print("refused:", error, flush=True)
    pool.shutdown()
    with Pool(kind, 2) as mine:
        print("mine:", sum(mine.map(square, range(10))), flush=True)
    if sys.argv[2] == "exit":
        sys.exit(0)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print("parent:", sum(pool.map(square, range(100))), flush=True)
if sys.argv[3] == "shutdown":
    pool.shutdown()
print("end", flush=True)
"""


@pytest.mark.parametrize("kind", ["threads", "processes"])
@pytest.mark.parametrize("ending", ["exit", "_exit"])
@pytest.mark.parametrize("after", ["shutdown", "leave"])
def test_a_parent_that_forks(kind: str, ending: str, after: str, tmp_path: Path) -> None:
    with script(FORKING, tmp_path, kind, ending, after) as one:
        status, out, err = one.finish()
        lines = [line.split(":")[0] for line in out.splitlines()]
        assert lines == ["refused", "mine", "parent", "end"], (out, err)
        assert "mine: 285" in out
        assert "parent: 328350" in out
        assert status == 0, err
        eventually(lambda: not one.others())


def test_workers_that_were_forked_know_their_pid() -> None:
    with make("fork", 2) as pool:
        assert set(pool.map(pid, range(50))).isdisjoint({os.getpid()})
        assert pool.submit(identity, os.getpid()).result(20) == os.getpid()
