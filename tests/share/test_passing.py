"""Objects travel at any time, are freed by their last user, and nothing outlives the program."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lightwork import CannotUnpickle, Pool, Retry, WorkerCrashed, share
from lightwork.share.families import home
from tests.scripts import environment, run_script
from tests.share.tasks import LONG, make, make_array, same

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
SIMPLE = ("Lock", "RLock", "Condition", "Event", "Semaphore", "Queue", "List", "Dict", "Counter")


def _used() -> int:
    gc.collect()
    commons = home()
    commons.sweep(now=True)
    return sum(commons.states)


@pytest.mark.parametrize("name", SIMPLE)
def test_made_by_a_worker(pool: Pool, name: str) -> None:
    """The worker lets go of it before we have it, and may be gone."""
    it = pool.submit(make, name).result()
    assert pool.submit(same, it).result() is it
    assert pool.submit(same, {"deep": [it]}).result()["deep"][0] is it


def test_it_outlives_the_worker_that_made_it() -> None:
    with Pool("processes", 1, max_tasks_per_child=1) as pool:
        queue = pool.submit(make, "Queue").result()
        array = pool.submit(make_array).result()
        pool.submit(queue.put, "from the next").result()
    assert queue.get(timeout=LONG) == "from the next"
    assert array.tolist() == [1, 2, 3]


@pytest.mark.parametrize("kind", ["threads", "serial"])
def test_in_one_process_it_is_the_object_itself(kind: str) -> None:
    with Pool(kind, 1) as pool:
        it = share.Lock()
        assert pool.submit(same, it).result() is it


def test_the_last_user_frees() -> None:
    before = _used()
    with Pool("processes", 1) as pool:
        for name in SIMPLE:
            for _ in range(5):
                pool.submit(same, pool.submit(make, name).result()).result()
        pool.submit(same, share.Array(1000)).result()
        pool.submit(same, None).result()
    assert _used() == before


def test_ten_thousand_locks_need_no_descriptors() -> None:
    before = _used()
    home()
    descriptors = len(os.listdir("/proc/self/fd"))
    locks = [share.Lock() for _ in range(10_000)]
    assert len(os.listdir("/proc/self/fd")) == descriptors
    with Pool("processes", 1) as pool:
        pool.submit(_take_all, locks).result()
    assert _used() == before + 10_000
    del locks
    assert _used() == before


def _take_all(locks: list[Any]) -> None:
    for one in locks:
        with one:
            pass


def test_only_in_the_arguments() -> None:
    """We let go at once; the task waits in the queue, its worker dies, and it is tried again."""
    with Pool("processes", 1) as pool:
        stubborn = pool.options(retry=Retry(2, on=WorkerCrashed))
        attempts = share.Counter()
        gate = share.Event()
        first = pool.submit(gate.wait, LONG)
        future = stubborn.submit(_die_once, share.Lock(), attempts)
        gc.collect()
        gate.set()
        first.result()
        assert future.result() == 2


def _die_once(lock: Any, attempts: Any) -> int:
    with lock:
        attempts.add()
    if attempts.value == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return int(attempts.value)


def test_an_old_pickle_is_refused() -> None:
    import pickle

    lock = share.Lock()
    data = pickle.dumps(lock)
    pickle.loads(data)
    del lock
    gc.collect()
    others = [share.Lock() for _ in range(3)]
    with pytest.raises(ReferenceError, match="gone"):
        pickle.loads(data)
    with Pool("processes", 1) as pool, pytest.raises((CannotUnpickle, ReferenceError)):
        pool.submit(pickle.loads, data).result()
    assert others


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_with_processes_of_multiprocessing(method: str) -> None:
    ran = run_script(
        f"""
        import multiprocessing
        from lightwork import share

        def work(lock, queue, total):
            with lock:
                total.value += 1
            queue.put("done")

        if __name__ == "__main__":
            context = multiprocessing.get_context({method!r})
            lock, queue, total = share.Lock(), share.Queue(), share.Value("q")
            children = [context.Process(target=work, args=(lock, queue, total)) for _ in range(3)]
            for one in children:
                one.start()
            print([queue.get(timeout=30) for _ in children])
            for one in children:
                one.join()
            print(total.value, queue.lost)
        """
    )
    assert ran.status == 0, ran.err
    assert ran.out.splitlines() == ["['done', 'done', 'done']", "3 0"]
    assert not ran.err


KILLED = """
import os, sys, time
from lightwork import Pool, share

lock, queue, array, ready = share.Lock(), share.Queue(), share.Array(1_000_000), share.Queue()

def work(lock, queue, array, ready):
    lock.acquire()
    ready.put(os.getpid())
    queue.get()

with Pool("processes", 1) as pool:
    pool.submit(work, lock, queue, array, ready)
    print(ready.get(), flush=True)
    time.sleep(600)
"""


def test_nothing_outlives_a_killed_program() -> None:
    shm = set(os.listdir("/dev/shm"))
    program = subprocess.Popen(
        [sys.executable, "-c", KILLED],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert program.stdout is not None
    assert program.stderr is not None
    worker = int(program.stdout.readline())
    assert set(os.listdir("/dev/shm")) == shm  # nothing ever has a name
    program.kill()
    err = program.stderr.read()  # ends with the last process of the program
    program.wait()
    program.stdout.close()
    program.stderr.close()
    assert "resource_tracker" not in err
    assert "leaked" not in err
    end = time.monotonic() + LONG
    while Path(f"/proc/{worker}/maps").exists() and _maps(worker):
        assert time.monotonic() < end
        time.sleep(0.01)


def _maps(pid: int) -> bool:
    try:
        return "lightwork-share" in Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return False
