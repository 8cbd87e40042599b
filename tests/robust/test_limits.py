"""A world without descriptors, memory, or processes to give."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from pathlib import Path
from typing import Any, NoReturn

import pytest

from lightwork import PoolBroken
from tests.contract.functions import identity, square
from tests.contract.pools import make

from .world import descriptors, script

STARVE = """
import os, resource, sys, threading
from lightwork import LightworkError, Pool
from tests.contract.functions import identity, square

stage, spare = sys.argv[1], int(sys.argv[2])
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

def starve():
    '''Leave `spare` descriptors.'''
    used = max(int(name) for name in os.listdir("/proc/self/fd"))
    for fd in range(3, used):  # fill the holes below the limit
        try:
            os.fstat(fd)
        except OSError:
            os.dup2(0, fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + spare, hard))

def feed():
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

def attempt(pool):
    try:
        found = [one.result(20) for one in [pool.submit(square, n) for n in range(20)]]
        assert found == [n * n for n in range(20)], found
        found = list(pool.map(identity, [bytearray(200_000)] * 6))
        assert len(found) == 6
        print("worked", flush=True)
    except (LightworkError, OSError) as error:
        print("refused:", type(error).__name__, str(error)[:100], flush=True)

if stage == "cold":
    starve()
    try:
        pool = Pool("processes", 2)
    except (LightworkError, OSError) as error:
        print("refused at once:", type(error).__name__, flush=True)
        pool = None
elif stage == "server":  # a fork server is there, the pool is new
    with Pool("processes", 1) as warm:
        warm.submit(square, 1).result(20)
    starve()
    pool = Pool("processes", 2)
else:  # one worker is there, more are wanted
    pool = Pool("processes", 4)
    pool.submit(square, 1).result(20)
    starve()
if pool is not None:
    attempt(pool)
    feed()
    pool.shutdown()
feed()
with Pool("processes", 2) as pool:
    attempt(pool)
print("end", threading.active_count(), flush=True)
"""


@pytest.mark.parametrize("stage", ["cold", "server", "warm"])
def test_no_descriptors(stage: str, tmp_path: Path) -> None:
    for spare in (0, 1, 2, 3, 5, 8, 12, 20):
        with script(STARVE, tmp_path, stage, str(spare)) as one:
            status, out, err = one.finish()
            lines = out.splitlines()
            assert status == 0, (spare, out, err)
            assert lines[-2:] == ["worked", "end 1"], (spare, out, err)
            assert "Traceback" not in err, (spare, err)
            assert not one.others(), spare


def _full(*_: Any) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _fill_worker() -> None:
    from lightwork.wire import segments

    segments.Arena.write = _full  # type: ignore[assignment, method-assign]


def test_shared_memory_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """Big buffers go the other way then: slower, and right."""
    numpy = pytest.importorskip("numpy")
    from lightwork.wire import segments

    array = numpy.arange(2_000_000.0)
    monkeypatch.setattr(segments.Arena, "write", _full)
    with make("forkserver", 2, initializer=_fill_worker) as pool:
        for _ in range(3):
            assert numpy.array_equal(pool.submit(identity, array).result(60), array)
        for found in pool.map(identity, [array] * 5):
            assert numpy.array_equal(found, array)
        monkeypatch.undo()
        assert numpy.array_equal(pool.submit(identity, array).result(60), array)


def test_memfd_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even the first page for a worker can be had: an error, not a hang; then it recovers."""

    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "memfd_create", refuse)
    with make("forkserver", 2) as pool:
        begin = time.monotonic()
        with contextlib.suppress(PoolBroken, OSError):
            assert pool.submit(square, 3).result(60) == 9
        assert time.monotonic() - begin < 30
    monkeypatch.undo()
    with make("forkserver", 2) as pool:
        assert pool.submit(square, 3).result(60) == 9


NO_PROCESSES = """
import resource
from lightwork import PoolBroken, Pool
from tests.contract.functions import square

resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
pool = Pool("processes", 2)
try:
    print(pool.submit(square, 3).result(50))
except (PoolBroken, OSError) as error:
    print("refused", type(error).__name__)
pool.shutdown()
print("end")
"""


@pytest.mark.skipif(os.geteuid() == 0, reason="root is not bound by RLIMIT_NPROC")
def test_no_processes(tmp_path: Path) -> None:
    with script(NO_PROCESSES, tmp_path) as one:
        status, out, err = one.finish()
        assert status == 0, err
        assert out.splitlines()[-1] == "end"


@pytest.mark.parametrize("kind", ["threads", "forkserver"])
def test_a_hundred_pools(kind: str) -> None:
    with make(kind, 2) as pool:
        pool.submit(square, 3).result(30)
    before = descriptors()
    for number in range(100):
        with make(kind, 2) as pool:
            if number % 3:
                assert pool.submit(square, 3).result(30) == 9
            if number % 10 == 0:
                assert len(pool.submit(identity, bytearray(300_000)).result(30)) == 300_000
    assert descriptors() == before


@pytest.mark.parametrize("method", ["forkserver", "spawn", "fork"])
def test_crashes_leak_nothing(method: str) -> None:
    with make(method, 2) as pool:
        pool.submit(square, 3).result(30)
    before = descriptors()
    with make(method, 2) as pool:
        for _ in range(15):
            pool.submit(os._exit, 3).exception(30)
            assert len(pool.submit(identity, bytearray(300_000)).result(30)) == 300_000
    assert descriptors() == before


def test_ten_pools_at_once() -> None:
    with contextlib.ExitStack() as stack:
        pools = [stack.enter_context(make("forkserver", 2)) for _ in range(10)]
        futures = [pool.submit(square, n) for n in range(50) for pool in pools]
        assert [one.result(60) for one in futures] == [n * n for n in range(50) for _ in pools]
