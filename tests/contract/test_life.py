"""How pools end: shutdown, kill, with, and what is refused afterwards."""

from __future__ import annotations

import threading
import time
from concurrent.futures import wait

import pytest

from lightwork import Pool, PoolClosed, TaskKilled

from . import functions as f
from .pools import Gate, eventually, make


def test_after_shutdown_nothing_is_taken(kind: str) -> None:
    pool = make(kind)
    assert pool.submit(f.square, 2).result() == 4
    pool.shutdown()
    with pytest.raises(PoolClosed) as caught:
        pool.submit(f.square, 2)
    assert isinstance(caught.value, RuntimeError)
    with pytest.raises(PoolClosed):
        pool.map(f.square, [1])
    with pytest.raises(PoolClosed):
        pool.options(timeout=3).submit(f.square, 2)


def test_a_pool_that_never_ran_anything(every_kind: str) -> None:
    with make(every_kind):
        pass
    make(every_kind).shutdown()
    make(every_kind).kill_workers()
    make(every_kind).shutdown(wait=False, cancel_futures=True)


def test_with_waits_for_the_work(parallel_kind: str) -> None:
    with make(parallel_kind) as pool:
        futures = [pool.submit(time.sleep, 0.05) for _ in range(10)]
    assert all(one.done() and one.exception() is None for one in futures)


def test_an_error_in_with_passes_through(kind: str) -> None:
    with pytest.raises(KeyError), make(kind) as pool:
        future = pool.submit(f.square, 3)
        raise KeyError("mine")
    assert future.result(0) == 9


def test_shutdown_without_waiting_finishes_the_work(parallel_kind: str, gate: Gate) -> None:
    pool = make(parallel_kind)
    futures = [pool.submit(f.pass_gate, gate.path, n) for n in range(6)]
    begin = time.monotonic()
    pool.shutdown(wait=False)
    assert time.monotonic() - begin < 2
    assert not any(one.done() for one in futures)
    with pytest.raises(PoolClosed):
        pool.submit(f.square, 2)
    gate.open()
    assert [one.result(20) for one in futures] == list(range(6))
    pool.shutdown()  # again, and this time wait


def test_shutdown_may_cancel_what_has_not_started(parallel_kind: str, gate: Gate) -> None:
    pool = make(parallel_kind, 2)
    futures = [pool.submit(f.start_and_pass_gate, gate.started, gate.path, n) for n in range(30)]
    gate.wait_started(2)
    pool.shutdown(wait=False, cancel_futures=True)
    eventually(lambda: sum(one.cancelled() for one in futures) == 28)
    gate.open()
    pool.shutdown()
    assert wait(futures, 20).not_done == set()
    assert sorted(one.result() for one in futures if not one.cancelled()) == [0, 1]
    assert len(f.notes(gate.started)) == 2


def test_shutdown_from_many_threads_at_once(parallel_kind: str) -> None:
    pool = make(parallel_kind)
    futures = [pool.submit(time.sleep, 0.01) for _ in range(20)]
    threads = [threading.Thread(target=pool.shutdown) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert all(one.done() for one in futures)


def test_shutdown_from_a_callback(kind: str) -> None:
    pool = make(kind)
    ended = threading.Event()

    def end(_: object) -> None:
        pool.shutdown()
        ended.set()

    pool.submit(f.square, 2).add_done_callback(end)
    assert ended.wait(20)
    pool.shutdown()


def test_shutdown_from_a_task_of_a_thread_pool() -> None:
    for kind in ("threads", "serial"):
        pool = make(kind)
        future = pool.submit(pool.shutdown)
        assert future.result(20) is None
        pool.shutdown()


@pytest.mark.parametrize("method", ["kill_workers", "terminate_workers"])
def test_kill_ends_the_pool_at_once(every_kind: str, gate: Gate, method: str) -> None:
    if every_kind == "serial":
        pytest.skip("in place: nobody is there to kill while a task runs")
    pool = make(every_kind, 2)
    futures = [pool.submit(f.start_and_pass_gate, gate.started, gate.path, n) for n in range(10)]
    gate.wait_started(2)
    begin = time.monotonic()
    getattr(pool, method)()
    assert time.monotonic() - begin < 5
    assert wait(futures, 5).not_done == set()
    killed = [one for one in futures if not one.cancelled()]
    assert len(killed) == 2
    assert all(isinstance(one.exception(), TaskKilled) for one in killed)
    with pytest.raises(PoolClosed):
        pool.submit(f.square, 2)
    getattr(pool, method)()
    pool.shutdown()
    gate.open()


def test_kill_from_a_callback(parallel_kind: str, gate: Gate) -> None:
    pool = make(parallel_kind, 2)
    hanging = pool.submit(f.start_and_pass_gate, gate.started, gate.path)
    gate.wait_started(1)
    pool.submit(f.square, 2).add_done_callback(lambda _: pool.kill_workers())
    assert isinstance(hanging.exception(20), TaskKilled)
    pool.shutdown()
    gate.open()


def test_repr_tells_what_it_is(kind: str) -> None:
    pool = make(kind)
    assert "open" in repr(pool)
    pool.shutdown()
    assert "closed" in repr(pool)


def test_a_dropped_pool_finishes_its_work(parallel_kind: str, gate: Gate) -> None:
    pool = make(parallel_kind)
    futures = [pool.submit(f.pass_gate, gate.path, n) for n in range(6)]
    del pool
    gate.open()
    assert [one.result(20) for one in futures] == list(range(6))


def test_a_dropped_pool_leaves(parallel_kind: str) -> None:
    before = threading.active_count()
    pool: Pool | None = make(parallel_kind)
    assert pool is not None
    pool.submit(f.square, 2).result(20)
    assert threading.active_count() > before
    pool = None
    eventually(lambda: threading.active_count() <= before)


def test_a_view_keeps_the_pool(parallel_kind: str) -> None:
    view = make(parallel_kind).options(priority=3)
    assert [view.submit(f.square, n).result(20) for n in range(5)] == [0, 1, 4, 9, 16]
    view.shutdown()


def test_a_map_keeps_the_pool(parallel_kind: str) -> None:
    results = make(parallel_kind).map(f.square, range(50))
    found = []
    try:
        for one in results:
            found.append(one)  # noqa: PERF402 - it is kept when the loop raises
    except PoolClosed:
        # Dropped means closed: what had been submitted is delivered, in order, then this.
        pass
    assert found == [n * n for n in range(len(found))]
    assert found
