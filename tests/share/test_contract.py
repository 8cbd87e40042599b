"""Every primitive x every way x every scenario, by the table in `tests.share.tasks`."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from lightwork import OwnerDied, Pool, WorkerCrashed, share
from tests.share.tasks import (
    LONG,
    ROWS,
    SCENARIOS,
    Row,
    add_many,
    double,
    hold_and_die,
    wait,
    wait_for_end,
    wait_loudly,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture(params=list(ROWS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _row(name: str, scenario: str) -> Row:
    """The row of that name; the test is skipped if the scenario does not apply to it."""
    if name == "Array":
        pytest.importorskip("numpy")
    why = ROWS[name].but.get(scenario)
    if why is not None:
        pytest.skip(f"does not apply, because {why}")
    return ROWS[name]


def _give_until(name: str, it: Any, future: Any, *, often: bool = False) -> None:
    """Give until it was got: a notification is for those who wait already. `often`: there is one
    more who takes."""
    end = time.monotonic() + LONG
    while not future.done() and time.monotonic() < end:
        ROWS[name].give(it)
        if name not in ("Condition", "Barrier") and not (often and name in TAKEN):
            break
        time.sleep(0.01)


TAKEN = ("Queue.get", "Queue.put", "Pipe")
"""What two who wait need two of."""


def test_every_primitive_has_a_row() -> None:
    rows = {name.partition(".")[0] for name in ROWS}
    assert rows == set(share.__all__) - {"Closed"}
    for row in ROWS.values():
        assert set(row.but) <= set(SCENARIOS)
        assert (row.end is None) == ("close" in row.but)


def test_a_time_limit(pool: Pool, name: str) -> None:
    row = _row(name, "time limit")
    it = row.make()
    row.hold(it)
    assert pool.submit(wait, name, it, 0.03).result() is False
    assert pool.submit(wait, name, it, 0.0).result() is False
    if name == "Barrier":
        assert it.broken
        it.reset()
    future = pool.submit(wait, name, it, LONG)  # nothing is left over from those who gave up
    _give_until(name, it, future)
    assert future.result() is True


def test_handing_over(pool: Pool, name: str) -> None:
    row = _row(name, "handing over")
    it, at_it = row.make(), share.Queue()
    row.hold(it)
    future = pool.submit(wait_loudly, name, it, LONG, at_it)
    at_it.get(timeout=LONG)
    assert not future.done()
    _give_until(name, it, future)
    assert future.result() is True


def _mend_barrier(it: Any) -> None:
    """After a waiter's death."""
    if it.n_waiting:  # it had come before it died
        assert ROWS["Barrier"].wait(it, LONG) in (True, False)
    it.reset()  # also where it died on the way in: then not all can come any more


def test_cancel(pool: Pool, name: str) -> None:
    """A call that waits is given up. Its process is killed; its thread waits on, in vain, and what
    it gets harms nobody."""
    row = _row(name, "cancel")
    it, at_it = row.make(), share.Queue()
    row.hold(it)
    future = pool.submit(wait_loudly, name, it, LONG, at_it)
    at_it.get(timeout=LONG)
    future.kill()
    assert future.exception() is not None
    processes = pool.kind == "processes"
    if name == "Barrier" and processes:
        _mend_barrier(it)
    again = pool.submit(wait, name, it, LONG)
    _give_until(name, it, again, often=not processes)
    assert again.result() is True
    if not processes and name in TAKEN:
        row.give(it)  # for the thread, if it did not have its own yet
    elif not processes and name == "Barrier" and it.n_waiting:
        it.abort()


def test_a_waiter_is_killed(pool: Pool, name: str) -> None:
    row = _row(name, "waiter dies")
    if pool.kind != "processes":
        pytest.skip("does not apply, because a thread cannot be killed: see test_cancel")
    it, at_it = row.make(), share.Queue()
    row.hold(it)
    future = pool.submit(wait_loudly, name, it, LONG, at_it)
    os.kill(at_it.get(timeout=LONG), signal.SIGKILL)
    assert isinstance(future.exception(), WorkerCrashed)
    if name == "Barrier":
        _mend_barrier(it)
    again = pool.submit(wait, name, it, LONG)
    _give_until(name, it, again)
    assert again.result() is True


def test_a_holder_ends(pool: Pool, name: str) -> None:
    """A process is killed in the middle; or a thread ends there, in a process that lives on."""
    row = _row(name, "holder ends")
    it = row.make()
    if pool.kind == "processes":
        with pytest.raises(WorkerCrashed):
            pool.submit(hold_and_die, name, it).result()
    elif row.thread:
        thread = threading.Thread(target=row.die or row.hold, args=(it,))
        thread.start()
        thread.join()
    else:
        pytest.skip("does not apply, because only a process can be killed in the middle of this")
    if row.after is not None:
        row.after(it)
    else:
        assert row.wait(it, LONG) is True
    future = pool.submit(wait, name, it, LONG)
    if name in ("Condition", "Queue.get"):
        _give_until(name, it, future)
    assert future.result() is True


def test_close(pool: Pool, name: str, request: pytest.FixtureRequest) -> None:
    """Who waits for what is closed is told so, and so is who comes later."""
    row = _row(name, "close")
    if name == "Pipe" and request.node.callspec.params["pool"] == "fork":
        pytest.skip("does not apply, because a fork copies both ends, and keeps them open")
    assert row.end is not None
    it, at_it = row.make(), share.Queue()
    row.hold(it)
    theirs = it[1] if name == "Pipe" else it  # who has both ends keeps both open
    future = pool.submit(wait_for_end, name, theirs, at_it)
    at_it.get(timeout=LONG)
    row.end(it)
    assert future.result() == row.ended.__name__
    assert pool.submit(wait_for_end, name, theirs, at_it).result() == row.ended.__name__


@pytest.mark.parametrize("make", [lambda: share.List([1]), lambda: share.Dict({1: 2})])
def test_a_look_at_what_is_taken(make: Callable[[], Any]) -> None:
    """``repr`` waits for nobody, and leaves it to others to be told of a death."""
    it = make()
    before, seen = repr(it), []
    with it.locked():
        thread = threading.Thread(target=lambda: seen.append(repr(it)))
        thread.start()
        thread.join(LONG)
        assert seen == [before] == [repr(it)]
    with Pool("processes", 1) as pool, pytest.raises(WorkerCrashed, match=before[:10]):
        pool.submit(hold_and_die, type(it).__name__, it).result()
    assert repr(it).startswith(before[:10])
    with pytest.raises(OwnerDied):
        it.clear()


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


def test_the_last_process_with_an_end_is_killed() -> None:
    """The holder of one end of a pipe, that is."""
    here, there = share.Pipe()
    with Pool("processes", 1) as pool:
        future = pool.submit(_sleep_on, there)
        del there
        assert here.recv(LONG) == "have it"
        future.kill()
        with pytest.raises(EOFError):
            here.recv(LONG)


def _sleep_on(end: Any) -> None:
    end.send("have it")
    end.recv(LONG)


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
