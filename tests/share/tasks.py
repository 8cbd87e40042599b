"""What workers do in the tests of sharing."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from lightwork import OwnerDied, share

LONG = 30.0
"""Seconds: longer than anything here may take; who waits as long has failed."""


SCENARIOS = ("time limit", "handing over", "cancel", "close", "holder ends", "waiter dies")


class Row(NamedTuple):
    """How one primitive is used, and what must hold of it.

    Args:
        make: a new one.
        hold: make the next `wait` wait.
        wait: get it, within so many seconds; says whether it did.
        give: let one `wait` go on.
        end: close it, so that a `wait` ends.
        ended: what that raises there.
        die: what a process, or a thread, does before it ends in the middle; else `hold`.
        after: what must hold then, in those who live on; else a `wait` succeeds.
        thread: whether also a thread can end in the middle, in a process that lives on.
        but: which scenarios do not apply, and why.
    """

    make: Callable[[], Any]
    hold: Callable[[Any], object]
    wait: Callable[[Any, float], bool]
    give: Callable[[Any], object]
    end: Callable[[Any], object] | None = None
    ended: type[Exception] = share.Closed
    die: Callable[[Any], object] | None = None
    after: Callable[[Any], object] | None = None
    thread: bool = False
    but: Mapping[str, str] = MappingProxyType({})


def _lock_wait(lock: Any, timeout: float) -> bool:
    try:
        got = lock.acquire(timeout=timeout)
    except OwnerDied:
        got = True
    if got:
        lock.release()
    return bool(got)


@contextlib.contextmanager
def _holding(condition: Any) -> Iterator[None]:
    """Hold its lock, also where a waiter was killed on its way in or out, when it held that for a
    moment: to say so is right (`_condition_told_once` asks for it), and is not what is tested."""
    with contextlib.suppress(OwnerDied):
        condition.acquire()
    try:
        yield
    finally:
        condition.release()


def _condition_wait(condition: Any, timeout: float) -> bool:
    with _holding(condition):
        try:
            return bool(condition.wait(timeout))
        except OwnerDied:
            return bool(condition.wait(timeout))


def _notify(condition: Any) -> None:
    with _holding(condition):
        condition.notify_all()


def _barrier_wait(barrier: Any, timeout: float) -> bool:
    try:
        barrier.wait(timeout)
    except threading.BrokenBarrierError:
        return False
    return True


def _barrier_give(barrier: Any) -> None:
    if barrier.broken:
        barrier.reset()
    if barrier.n_waiting:
        barrier.wait(LONG)


def _get(it: Any, timeout: float) -> bool:
    try:
        return bool(it.get(timeout=timeout) == "item")
    except queue.Empty:
        return False


def _put(it: Any, timeout: float) -> bool:
    try:
        it.put("item", timeout=timeout)
    except queue.Full:
        return False
    return True


def _receive(ends: Any, timeout: float) -> bool:
    try:
        return bool(ends[1].recv(timeout) == "item")
    except TimeoutError:
        return False


def _nothing(_: Any) -> None:
    pass


def _take_all(it: Any) -> None:
    with contextlib.suppress(queue.Empty):
        it.get_nowait()


def _owned(what: Any) -> Any:
    """The lock that is in it, or that it is."""
    return what.get_lock() if isinstance(what, share.Value) else what


def _acquire(it: Any) -> None:
    _owned(it).acquire()


def _release(it: Any) -> None:
    _owned(it).release()


def _wait_for_lock(it: Any, timeout: float) -> bool:
    return _lock_wait(_owned(it), timeout)


def _told_once(it: Any) -> None:
    """The next one is told that the holder died; then all is as before."""
    try:
        _owned(it).acquire(timeout=LONG)
    except OwnerDied:
        _owned(it).release()
    else:
        raise AssertionError("nobody said that the holder died")
    assert _wait_for_lock(it, LONG)


_blocks: dict[int, Any] = {}


def _enter(it: Any) -> None:
    block = it.locked()
    block.__enter__()
    _blocks[id(it)] = block


def _leave(it: Any) -> None:
    _blocks.pop(id(it)).__exit__(None, None, None)


def _change(it: Any, _: float) -> bool:
    """An operation of a container, which waits while somebody is in a block."""
    if isinstance(it, share.List):
        it.append("more")
    else:
        it["more"] = it.get("more", 0) + 1
    return True


def _die_in_block(it: Any) -> None:
    _change(it, 0)
    _enter(it)
    _change(it, 0)


def _container_told_once(it: Any) -> None:
    with contextlib.suppress(KeyError):
        try:
            it.pop(0) if isinstance(it, share.List) else it.pop("?")
        except OwnerDied:
            pass
        else:
            raise AssertionError("nobody said that a block was cut short")
    assert len(it) >= 1  # each single operation is whole


def _condition_told_once(condition: Any) -> None:
    try:
        condition.acquire(timeout=LONG)
    except OwnerDied:
        condition.notify_all()
        condition.release()
    else:
        raise AssertionError("nobody said that the holder died")


def _lost_one(it: Any) -> None:
    assert it.full()
    assert it.get(timeout=LONG) == "item"
    assert it.lost == 1


def _get_and_put(it: Any) -> None:
    it.put("item")
    it.get()
    it.put("item")


def _put_and_get(it: Any) -> None:
    it.put("gone")
    it.get()


def _one_lost(it: Any) -> None:
    assert it.lost == 1


def _is_five(it: Any) -> None:
    assert it.value == 5
    it.add(1)
    assert it.value == 6


def _starts_with_five(it: Any) -> None:
    assert it.tolist() == [5, 0]


def _set_first(it: Any) -> None:
    it[0] = 5


def _send(ends: Any) -> None:
    ends[0].send("item")


def _close_far(ends: Any) -> None:
    ends[0].close()


_NO_END = {"close": "it has no end"}
_NOTHING_HELD = {"holder ends": "nobody holds it: who dies leaves it as it is"}
_NO_LIMIT = {"time limit": "an operation takes microseconds; a block, what its user wants"}
_NOBODY_WAITS = dict.fromkeys(SCENARIOS, "nobody ever waits for it")
del _NOBODY_WAITS["holder ends"]

_a_lock = (_acquire, _wait_for_lock, _release)
_permits = (_acquire, _lock_wait, _release)
ROWS = {
    "Lock": Row(share.Lock, *_a_lock, after=_told_once, thread=True, but=_NO_END),
    "RLock": Row(share.RLock, *_a_lock, after=_told_once, thread=True, but=_NO_END),
    "Semaphore": Row(share.Semaphore, *_permits, but=_NO_END),
    "BoundedSemaphore": Row(share.BoundedSemaphore, *_permits, but=_NO_END),
    "Condition": Row(
        share.Condition, _nothing, _condition_wait, _notify,
        die=_acquire, after=_condition_told_once, thread=True, but=_NO_END),
    "Event": Row(
        share.Event, _nothing, lambda it, timeout: it.wait(timeout), lambda it: it.set(),
        but=_NO_END | _NOTHING_HELD),
    "Barrier": Row(
        lambda: share.Barrier(2), _nothing, _barrier_wait, _barrier_give,
        end=lambda it: it.abort(), ended=threading.BrokenBarrierError, but=_NOTHING_HELD),
    "Queue.get": Row(
        share.Queue, _nothing, _get, lambda it: it.put("item"),
        end=lambda it: it.close(), die=_put_and_get, after=_one_lost),
    "Queue.put": Row(
        lambda: share.Queue(1), lambda it: it.put("item"), _put, _take_all,
        end=lambda it: it.close(), die=_get_and_put, after=_lost_one),
    "Pipe": Row(
        share.Pipe, _nothing, _receive, _send, end=_close_far, ended=EOFError,
        but={"holder ends": "see test_a_closed_end_is_the_end: the other side's is the end"}),
    "List": Row(
        share.List, _enter, _change, _leave, die=_die_in_block, after=_container_told_once,
        but=_NO_END | _NO_LIMIT),
    "Dict": Row(
        share.Dict, _enter, _change, _leave, die=_die_in_block, after=_container_told_once,
        but=_NO_END | _NO_LIMIT),
    "Value": Row(lambda: share.Value("q"), *_a_lock, after=_told_once, thread=True, but=_NO_END),
    "Counter": Row(
        share.Counter, _nothing, lambda it, _: it.add() is None, _nothing,
        die=lambda it: it.add(5), after=_is_five, but=_NOBODY_WAITS),
    "Array": Row(
        lambda: share.Array(2, "q"), _nothing, lambda it, _: len(it) == 2, _nothing,
        die=_set_first, after=_starts_with_five, but=_NOBODY_WAITS),
}  # fmt: skip


def wait(name: str, it: Any, timeout: float) -> bool:
    return ROWS[name].wait(it, timeout)


def wait_loudly(name: str, it: Any, timeout: float, at_it: Any) -> bool:
    at_it.put(os.getpid())
    return ROWS[name].wait(it, timeout)


def wait_for_end(name: str, it: Any, at_it: Any) -> str:
    """Wait until it is closed. Returns the name of what that raised."""
    at_it.put(os.getpid())
    try:
        if name == "Queue.put":
            it.put("more", timeout=LONG)
        elif name == "Pipe":
            it.recv(LONG)
        elif name == "Barrier":
            it.wait(LONG)
        else:
            it.get(timeout=LONG)
    except Exception as error:
        return type(error).__name__
    return "nothing"


def hold_and_die(name: str, it: Any) -> None:
    (ROWS[name].die or ROWS[name].hold)(it)
    os.kill(os.getpid(), signal.SIGKILL)


def add_many(number: Any, total: Any, counter: Any, table: Any, items: Any, times: int) -> None:
    for n in range(times):
        with number.get_lock():
            number.value += 1
        total.add(1)
        counter.add(2)
        table.update_with("n", lambda before: before + 1, 0)
        items.append(n)


def double(array: Any) -> Any:
    array *= 2
    return array[1:]


def same(it: Any) -> Any:
    return it


def make(name: str) -> Any:
    return getattr(share, name)()


def make_array() -> Any:
    return share.Array([1, 2, 3])


def lock_both(first: Any, second: Any, barrier: Any) -> str:
    with _block(first):
        barrier.wait(LONG)
        with _block(second):
            return "both"


def _block(it: Any) -> Any:
    """What keeps others out of it."""
    return it.locked() if isinstance(it, share.List | share.Dict) else _owned(it)
