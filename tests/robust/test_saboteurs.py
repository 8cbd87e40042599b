"""Harm of every sort at every stage: all healthy tasks come back, and the guilty one is named."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from lightwork import CannotPickle, CannotUnpickle, Failure, PoolBroken, WorkerCrashed
from lightwork.testing import Saboteur, harm
from tests.contract.functions import square
from tests.contract.pools import make

EXCEPTIONS = ("raise", "sys-exit")
CRASHES = {
    "exit-0": (None, 0),
    "exit-3": (None, 3),
    "kill": ("SIGKILL", -signal.SIGKILL),
    "segfault": ("SIGSEGV", -signal.SIGSEGV),
}
HERE = ("pickle argument", "unpickle result")
"""Stages in the caller's own process, which only exceptions leave alive."""
IN_WORKER = ("unpickle argument", "call", "pickle result", "del argument", "del result")
TABLE = [(stage, how) for stage in HERE for how in EXCEPTIONS] + [
    (stage, how) for stage in IN_WORKER for how in (*EXCEPTIONS, *CRASHES)
]


class Order:
    """Tells a worker what to do harm with."""

    def __init__(self, stage: str, how: str) -> None:
        self.stage = stage
        self.how = how
        self.caller = os.getpid()

    def __repr__(self) -> str:
        return f"Order({self.stage!r}, {self.how!r})"


def item(stage: str, how: str) -> object:
    """An argument for `work` that does this harm."""
    when, _, where = stage.partition(" ")
    if where == "argument":
        return Saboteur(when, how, None if when == "pickle" else os.getpid())
    return Order(stage, how)


def work(thing: object) -> object:
    if isinstance(thing, int):
        return thing * thing
    if isinstance(thing, Order):
        if thing.stage == "call":
            harm(thing.how)
        if thing.stage == "unpickle result":
            return Saboteur("unpickle", thing.how, os.getpid())
        return Saboteur(thing.stage.partition(" ")[0], thing.how, thing.caller)
    return "a saboteur that came through"


def check(error: BaseException | None, stage: str, how: str, index: int) -> None:
    """Whether the guilty call ended as it should."""
    if how in CRASHES:
        assert isinstance(error, WorkerCrashed), error
        name, code = CRASHES[how]
        assert (error.signal, error.exitcode) == (name, code)
        assert error.function == "work"
        assert error.index == index
        assert error.attempt == 1
        assert error.pid not in (None, os.getpid())
        kind = "Saboteur" if stage.endswith("argument") else "Order"
        assert error.arguments is not None
        assert kind in error.arguments
        for part in (str(error.pid), "work", f"index {index}", name or f"code {code}"):
            assert part in str(error)
        if how == "segfault":
            assert "in harm" in error.traceback
    elif stage.startswith("del"):
        assert error is None  # Python prints what escapes from __del__, and goes on
    elif stage == "call":
        assert type(error) is (ValueError if how == "raise" else SystemExit)
    else:
        assert isinstance(error, CannotUnpickle if "unpickle" in stage else CannotPickle)
        assert "Saboteur" in str(error) or "sabotage" in str(error) or "SystemExit" in str(error)


def try_submit(method: str, stage: str, how: str) -> None:
    with make(method, 2) as pool:
        before = [pool.submit(work, n) for n in range(10)]
        guilty = pool.submit(work, item(stage, how))
        after = [pool.submit(work, n) for n in range(10)]
        error = guilty.exception(30)
        assert [one.result(30) for one in before + after] == [n * n for n in range(10)] * 2
        check(error, stage, how, 10)
        assert pool.submit(work, 5).result(30) == 25


@pytest.mark.parametrize(("stage", "how"), TABLE)
def test_submit(stage: str, how: str) -> None:
    try_submit("forkserver", stage, how)


@pytest.mark.parametrize("method", ["spawn", "fork"])
@pytest.mark.parametrize(("stage", "how"), [pair for pair in TABLE if pair[1] in ("raise", "kill")])
def test_submit_by_other_start_methods(method: str, stage: str, how: str) -> None:
    try_submit(method, stage, how)


@pytest.mark.parametrize("chunksize", [None, 10])
@pytest.mark.parametrize(("stage", "how"), TABLE)
def test_map(stage: str, how: str, chunksize: int | None) -> None:
    items: list[Any] = [*range(17), item(stage, how), *range(17)]
    with make("forkserver", 2) as pool:
        # A warm pool has learned that `work` is short, and sends many at once.
        assert list(pool.map(work, range(100))) == [n * n for n in range(100)]
        results = list(pool.map(work, items, on_error="return", chunksize=chunksize))
        guilty = results.pop(17)
        assert results == [n * n for n in range(17)] * 2
        check(guilty.exception if isinstance(guilty, Failure) else None, stage, how, 17)
        assert pool.submit(work, 5).result(30) == 25


@pytest.mark.parametrize("how", [*EXCEPTIONS, *CRASHES])
@pytest.mark.parametrize("stage", ["unpickle argument", "call", "pickle result"])
def test_all_at_once(stage: str, how: str) -> None:
    """Every third task is a saboteur."""
    items = [item(stage, how) if n % 3 == 0 else n for n in range(30)]
    with make("forkserver", 2) as pool:
        results = list(pool.map(work, items, on_error="return", ordered=True))
    for index, result in enumerate(results):
        if index % 3 == 0:
            assert isinstance(result, Failure)
            check(result.exception, stage, how, index)
        else:
            assert result == index * index


@pytest.mark.parametrize("method", ["forkserver", "spawn", "fork"])
@pytest.mark.parametrize("how", [*EXCEPTIONS, *CRASHES])
def test_initializer(method: str, how: str) -> None:
    """It does not spin for ever: the pool is broken, and says why."""
    with make(method, 2, initializer=harm, initargs=(how,)) as pool:
        future = pool.submit(square, 3)
        error = future.exception(30)
        assert isinstance(error, PoolBroken)
        cause = error.__cause__
        if how in CRASHES:
            assert isinstance(cause, WorkerCrashed)
            assert (cause.signal, cause.exitcode) == CRASHES[how]
            assert "initializer" in str(cause)
        else:
            assert type(cause) is (ValueError if how == "raise" else SystemExit)
        with pytest.raises(PoolBroken):
            pool.submit(square, 3)


@pytest.mark.parametrize("how", EXCEPTIONS)
def test_initializer_arguments_that_cannot_travel(how: str) -> None:
    for stage in ("pickle", "unpickle"):
        bad = Saboteur(stage, how, None if stage == "pickle" else os.getpid())
        with pytest.raises((PoolBroken, CannotPickle)):
            with make("forkserver", 1, initializer=work, initargs=(bad,)) as pool:
                pool.submit(square, 3).result(30)


def test_a_real_segmentation_fault_shows_the_python_stack() -> None:
    with make("forkserver", 2) as pool:
        error = pool.submit(outer, 3).exception(30)
    assert isinstance(error, WorkerCrashed)
    assert error.signal == "SIGSEGV"
    assert "Fatal Python error: Segmentation fault" in error.traceback
    assert error.traceback.index("in crash_for_real") < error.traceback.index("in outer")
    assert error.traceback in str(error) or "crash_for_real" in str(error)


def outer(depth: int) -> None:
    crash_for_real(depth)


def crash_for_real(_: int) -> None:
    import ctypes

    ctypes.string_at(0)


class Repr:
    """Its repr() fails: not even naming the arguments of a crash may break anything."""

    def __init__(self, how: str) -> None:
        self.how = how

    def __repr__(self) -> str:
        if self.how == "long":
            return "x" * 10_000_000
        if self.how == "not text":
            return 3  # type: ignore[return-value]
        raise Fatal if self.how == "fatal" else ValueError("no repr")


class Fatal(BaseException):
    """Not an Exception, as SystemExit."""


@pytest.mark.parametrize("how", ["raise", "long", "not text", "fatal"])
def test_arguments_that_cannot_be_shown(how: str) -> None:
    with make("forkserver", 2) as pool:
        crash = pool.submit(die, Repr(how)).exception(30)
        assert isinstance(crash, WorkerCrashed)
        assert len(str(crash)) < 5000
        error = pool.submit(fail, Repr(how)).exception(30)
        assert type(error) is KeyError
        results = list(pool.map(die, [Repr(how), Repr(how)], on_error="return"))
        assert all(isinstance(one.exception, WorkerCrashed) for one in results)
        assert pool.submit(square, 5).result(30) == 25


def die(_: object) -> None:
    harm("kill")


def fail(_: object) -> None:
    raise KeyError("fail")
