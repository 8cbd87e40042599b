"""Every primitive, in every way: time limits, handing over, deaths of holders and of waiters."""

from __future__ import annotations

import pickle
import time

import pytest

from lightwork import Pool, WorkerCrashed, share
from tests.share.tasks import LONG, ROWS, add_many, double, hold_and_die, wait, wait_loudly

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture(params=list(ROWS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _give_until(name: str, it: object, future: object) -> None:
    """Give until it was got: a notification is for those who wait already."""
    end = time.monotonic() + LONG
    while not future.done() and time.monotonic() < end:  # type: ignore[attr-defined]
        ROWS[name].give(it)
        if name not in ("Condition", "Barrier"):
            break
        time.sleep(0.01)


def test_a_time_limit(pool: Pool, name: str) -> None:
    it = ROWS[name].make()
    ROWS[name].hold(it)
    assert pool.submit(wait, name, it, 0.03).result() is False
    assert pool.submit(wait, name, it, 0.0).result() is False
    if name == "Barrier":
        assert it.broken
        it.reset()
    future = pool.submit(wait, name, it, LONG)  # nothing is left over from those who gave up
    _give_until(name, it, future)
    assert future.result() is True


def test_handing_over(pool: Pool, name: str) -> None:
    it, at_it = ROWS[name].make(), share.Queue()
    ROWS[name].hold(it)
    future = pool.submit(wait_loudly, name, it, LONG, at_it)
    at_it.get(timeout=LONG)
    assert not future.done()
    _give_until(name, it, future)
    assert future.result() is True


def test_a_waiter_is_killed(pool: Pool, name: str) -> None:
    """Also: a task that waits can be cancelled, by killing it."""
    if pool.kind != "processes":
        pytest.skip("a thread cannot be killed")
    it, at_it = ROWS[name].make(), share.Queue()
    ROWS[name].hold(it)
    future = pool.submit(wait_loudly, name, it, LONG, at_it)
    at_it.get(timeout=LONG)
    future.kill()
    assert future.exception() is not None
    if name == "Barrier":
        if it.n_waiting:  # it had come before it died
            assert ROWS[name].wait(it, LONG) in (True, False)
        it.reset()  # also where it died on the way in: then not all can come any more
    again = pool.submit(wait, name, it, LONG)
    _give_until(name, it, again)
    assert again.result() is True


def test_a_holder_is_killed(pool: Pool, name: str) -> None:
    if pool.kind != "processes" or name in ("Event", "Barrier", "Pipe"):
        pytest.skip("nothing is held, or nobody can be killed")
    it = ROWS[name].make()
    if name == "Queue.put":
        it.put("item")
    with pytest.raises(WorkerCrashed):
        pool.submit(hold_and_die, name, it).result()
    if name == "Condition":
        with pytest.raises(Exception, match="died"):
            it.acquire(timeout=LONG)
        it.notify_all()
        it.release()
    elif name == "Queue.put":
        assert it.full()
        assert it.get(timeout=LONG) == "item"
        assert it.lost == 1
    else:
        assert ROWS[name].wait(it, LONG) is True
    future = pool.submit(wait, name, it, LONG)
    if name in ("Condition", "Queue.get"):
        _give_until(name, it, future)
    assert future.result() is True


def test_closing(pool: Pool) -> None:
    it = share.Queue()
    readers = [pool.submit(list, it) for _ in range(2)]
    for n in range(100):
        it.put(n)
    it.close()
    found = [reader.result() for reader in readers]
    assert sorted(found[0] + found[1]) == list(range(100))
    with pytest.raises(share.Closed):
        it.put(1)
    with pytest.raises(share.Closed):
        it.get()
    assert it.closed


def test_everybody_counts(pool: Pool) -> None:
    number, total, counter = share.Value("q"), share.Value("q"), share.Counter()
    table, items = share.Dict(), share.List()
    tasks = [pool.submit(add_many, number, total, counter, table, items, 200) for _ in range(3)]
    for one in tasks:
        one.result()
    assert number.value == total.value == table["n"] == len(items) == 600
    assert counter.value == 1200
    assert sorted(items) == sorted([*range(200)] * 3)


def test_an_array_is_the_same_memory(pool: Pool) -> None:
    pytest.importorskip("numpy")
    array = share.Array([[1.0, 2.0], [3.0, 4.0]])
    part = pool.submit(double, array).result()
    assert array.tolist() == [[2.0, 4.0], [6.0, 8.0]]
    assert part.tolist() == [[6.0, 8.0]]
    part[0, 0] = 7.0
    assert array[1, 0] == 7.0


def test_a_closed_end_is_the_end(pool: Pool, request: pytest.FixtureRequest) -> None:
    here, there = share.Pipe()
    future = pool.submit(_talk, there)
    del there
    here.send([1, 2])
    assert here.recv(LONG) == [2, 1]
    assert future.result() is None
    if request.node.callspec.params["pool"] == "fork":
        return  # the other worker may be a copy of us from when we still had that end
    with pytest.raises(EOFError):
        here.recv(LONG)
    with pytest.raises(BrokenPipeError):
        here.send(1)


def _talk(end: object) -> None:
    end.send(end.recv(LONG)[::-1])  # type: ignore[attr-defined]
    end.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", [one for one in share.__all__ if one not in ("Closed", "Pipe")])
def test_a_pickle_gives_the_same(name: str) -> None:
    args = {"Array": (3,), "Barrier": (2,)}.get(name, ())
    it = getattr(share, name)(*args)
    copy = pickle.loads(pickle.dumps(it))
    assert copy is it or name == "Array"
