"""Two things at once, again and again, until the moment is hit where they meet."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import Counter
from concurrent.futures import Future as AnyFuture
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import pytest

from lightwork import PoolClosed, TaskKilled, TaskTimeout
from tests.contract.functions import identity, note, noted, notes, sleep_pid, square
from tests.contract.pools import make

KINDS = ("threads", "forkserver")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("delay", [0.0, 0.0002, 0.002])
def test_cancel_against_completion(kind: str, delay: float, tmp_path: Path) -> None:
    """What is cancelled never ran; what is not cancelled ran once."""
    path, draw = str(tmp_path / "log"), random.Random(5)
    futures = []
    with make(kind, 2) as pool:
        for n in range(600):
            futures.append(pool.submit(noted, path, n))
            if n % 3 == 0:
                if delay:
                    time.sleep(draw.random() * delay)
                futures[-1 - draw.randrange(min(3, n + 1))].cancel()
        assert wait(futures, 60).not_done == set()
    ran = Counter(int(line) for line in notes(path))
    assert all(times == 1 for times in ran.values())
    assert {n for n, one in enumerate(futures) if one.cancelled()} == set(range(600)) - set(ran)
    assert all(one.cancelled() or one.result() == n for n, one in enumerate(futures))


@pytest.mark.parametrize("kind", KINDS)
def test_cancel_from_another_thread(kind: str, tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    futures: list[Any] = []
    going = threading.Event()

    def canceller() -> None:
        draw = random.Random(6)
        while not going.is_set():
            if futures:
                draw.choice(futures[-5:]).cancel()
            time.sleep(0.0001)

    thread = threading.Thread(target=canceller)
    with make(kind, 2) as pool:
        thread.start()
        try:
            for n in range(1500):
                futures.append(pool.submit(noted, path, n))
                if n % 4 == 0:
                    with contextlib.suppress(BaseException):
                        futures[-1].result(60)
        finally:
            going.set()
            thread.join()
        assert wait(futures, 60).not_done == set()
    ran = Counter(int(line) for line in notes(path))
    assert all(times == 1 for times in ran.values())
    assert {n for n, one in enumerate(futures) if one.cancelled()} == set(range(1500)) - set(ran)


@pytest.mark.parametrize("kind", KINDS)
def test_kill_against_completion(kind: str) -> None:
    draw = random.Random(7)
    with make(kind, 2) as pool:
        for _ in range(150):
            healthy = [pool.submit(square, n) for n in range(4)]
            guilty = pool.submit(sleep_pid, 0.002)
            healthy += [pool.submit(square, n) for n in range(4)]
            time.sleep(draw.random() * 0.006)
            killed = guilty.kill()
            assert wait([guilty], 30).not_done == set()  # its outcome may just be on its way
            if killed:
                assert guilty.cancelled() or isinstance(guilty.exception(), TaskKilled)
            else:
                assert isinstance(guilty.result(), int)
            assert [one.result(30) for one in healthy] == [0, 1, 4, 9] * 2


@pytest.mark.parametrize("kind", KINDS)
def test_time_limits_against_completion(kind: str) -> None:
    with make(kind, 2) as pool:
        careful = pool.options(timeout=0.005)
        futures = [careful.submit(sleep_pid, 0.004 + n % 5 * 0.0005) for n in range(150)]
        for one in futures:
            error = one.exception(60)
            assert error is None or isinstance(error, TaskTimeout)
        assert pool.submit(square, 3).result(30) == 9


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cancel", [False, True])
def test_submit_against_shutdown(kind: str, cancel: bool, tmp_path: Path) -> None:
    """Whoever got a future gets an outcome; whoever comes too late gets PoolClosed."""
    for number in range(25 if kind == "threads" else 12):
        path = str(tmp_path / f"log{number}")
        pool = make(kind, 2)
        accepted: list[AnyFuture[Any]] = []
        refused = threading.Event()

        def submitter(
            pool: Any = pool, accepted: Any = accepted, path: str = path, refused: Any = refused
        ) -> None:
            try:
                while True:
                    accepted.append(pool.submit(noted, path, len(accepted)))
            except PoolClosed:
                refused.set()

        thread = threading.Thread(target=submitter)
        thread.start()
        time.sleep(0.002 * (number % 5))
        pool.shutdown(cancel_futures=cancel)
        thread.join(30)
        assert refused.is_set()
        assert wait(accepted, 30).not_done == set()
        ran = Counter(int(line) for line in notes(path))
        assert set(ran) == {n for n, one in enumerate(accepted) if not one.cancelled()}
        assert set(ran.values()) <= {1}
        if not cancel:
            assert len(ran) == len(accepted)


@pytest.mark.parametrize("kind", KINDS)
def test_kill_workers_against_everything(kind: str) -> None:
    for number in range(10):
        pool = make(kind, 2)
        futures: list[AnyFuture[Any]] = []

        def submitter(pool: Any = pool, futures: Any = futures) -> None:
            with contextlib.suppress(PoolClosed):
                while True:
                    futures.append(pool.submit(sleep_pid, 0.0005))

        threads = [threading.Thread(target=submitter) for _ in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(0.003 * number)
        pool.kill_workers()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
        assert wait(futures, 30).not_done == set()


@pytest.mark.parametrize("kind", KINDS)
def test_callbacks_come_once_and_for_all(kind: str) -> None:
    called: Counter[int] = Counter()
    lock = threading.Lock()

    def note_it(n: int) -> None:
        with lock:
            called[n] += 1

    with make(kind, 2) as pool:
        for n in range(1000):
            future = pool.submit(identity, n)
            future.add_done_callback(lambda _, n=n: note_it(n))  # type: ignore[misc]
            if n % 5 == 0:
                future.cancel()
    assert called == dict.fromkeys(range(1000), 1)


@pytest.mark.parametrize("kind", KINDS)
def test_resize_idle_leave_and_submit(kind: str) -> None:
    draw = random.Random(8)
    with make(kind, 3, idle_timeout=0.002) as pool:
        for _ in range(250):
            burst = [pool.submit(square, n) for n in range(draw.randrange(6))]
            if draw.random() < 0.3:
                pool.resize(draw.randrange(1, 5))
            time.sleep(draw.choice([0, 0, 0.002, 0.004]))
            assert [one.result(30) for one in burst] == [n * n for n in range(len(burst))]


@pytest.mark.parametrize("kind", KINDS)
def test_maps_broken_off_at_any_moment(kind: str) -> None:
    draw = random.Random(9)
    with make(kind, 2) as pool:
        for number in range(80):
            stop = draw.randrange(40)
            results = pool.map(square, range(10**9), ordered=number % 2 == 0)
            for at, _ in enumerate(results):
                if at == stop:
                    break
            if number % 3:
                results.close()
            del results
        assert pool.submit(square, 3).result(30) == 9


@pytest.mark.parametrize("kind", KINDS)
def test_one_by_one_without_a_pause(kind: str) -> None:
    """The lost wake-up, if there is one, is found here: each result is waited for alone."""
    with make(kind, 2) as pool:
        for n in range(4000):
            assert pool.submit(square, n).result(30) == n * n


def test_many_threads_share_a_pool(tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    errors: list[BaseException] = []
    with make("forkserver", 2) as pool:

        def user(number: int) -> None:
            draw = random.Random(number)
            try:
                for n in range(60):
                    what = draw.randrange(4)
                    if what == 0:
                        assert pool.submit(noted, path, "x").result(60) == "x"
                    elif what == 1:
                        count = draw.randrange(50)
                        assert list(pool.map(square, range(count))) == [k * k for k in range(count)]
                    elif what == 2:
                        pool.submit(noted, path, "x").cancel()
                    else:
                        found = pool.map(square, range(30), ordered=False)
                        assert sum(found) == sum(k * k for k in range(30))
                    if n % 20 == 0:
                        pool.statistics()
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=user, args=(number,)) for number in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(100)
            assert not thread.is_alive()
    note(path, "end")
    assert errors == []
