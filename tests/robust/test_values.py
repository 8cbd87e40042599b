"""Results and arguments of every sort: none of them means anything to the pool itself."""

from __future__ import annotations

import threading
import weakref
from typing import Any, NoReturn

import pytest

from lightwork import CannotPickle, Failure, Pool, RemoteError, TaskTimeout, WorkerCrashed
from tests.contract.functions import identity, square
from tests.contract.pools import make

KINDS = ("threads", "serial", "forkserver")


class Contrary:
    """Refuses whatever a careless pool might ask of a value."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("no ==")

    def __bool__(self) -> bool:
        raise ValueError("no truth")

    def __hash__(self) -> int:
        raise ValueError("no hash")

    def __len__(self) -> int:
        raise ValueError("no length")

    def __iter__(self) -> NoReturn:
        raise ValueError("no iteration")

    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


def sentinels() -> list[Any]:
    from lightwork.backends.base import Death, Parcel, Result
    from lightwork.core import commands, events
    from lightwork.stream import END

    death = Death("crashed", None)
    return [
        None,
        True,
        0,
        -1,
        2**70,
        ...,
        NotImplemented,
        "",
        b"",
        b"\x00" * 9,
        (),
        [],
        {},
        float("inf"),
        ValueError("returned, not raised"),
        StopIteration(3),
        StopAsyncIteration(),
        GeneratorExit(),
        KeyboardInterrupt(),
        SystemExit(1),
        ExceptionGroup("group", [ValueError(1)]),
        WorkerCrashed("not really"),
        TaskTimeout("not really"),
        RemoteError("not really"),
        Failure(ValueError(1), None, 0, 1, None),
        death,
        Parcel(1, 1, 0, 1, 0, 0, None, False, False, False),
        Result(1, 1, 0, 1, [None], None, 0.0, 0.0),
        events.Ready(1),
        commands.Done(),
        commands.Kill(1, "killed"),
        type(END)(),
        ValueError,
        Pool,
        int,
        len,
    ]


def same(one: Any, two: Any) -> bool:
    if isinstance(one, BaseExceptionGroup):
        return type(one) is type(two) and repr(one) == repr(two)
    if isinstance(one, BaseException):
        return type(one) is type(two) and one.args == two.args
    if isinstance(one, Failure):
        return isinstance(two, Failure) and same(one.exception, two.exception)
    return type(one) is type(two) and (type(one) is object or bool(one == two))


@pytest.mark.parametrize("kind", KINDS)
def test_no_value_is_a_sentinel(kind: str) -> None:
    values = sentinels()
    with make(kind, 2) as pool:
        for value in values:
            assert same(pool.submit(identity, value).result(30), value)
        for chunksize in (None, 1, 7, 100):
            results = list(pool.map(identity, values, chunksize=chunksize, on_error="return"))
            assert len(results) == len(values)
            assert all(map(same, results, values))
        assert len(list(pool.map(identity, values, ordered=False))) == len(values)
        results = list(pool.map(identity, values, on_error="group"))
        assert all(map(same, results, values))


@pytest.mark.parametrize("kind", KINDS)
def test_values_that_refuse_everything(kind: str) -> None:
    with make(kind, 2) as pool:
        assert type(pool.submit(identity, Contrary()).result(30)) is Contrary
        for ordered in (True, False):
            results = list(pool.map(identity, [Contrary()] * 5, ordered=ordered))
            assert [type(one) for one in results] == [Contrary] * 5
        error = pool.submit(raise_with, Contrary()).exception(30)
        assert type(error) in (KeyError, RemoteError)  # its text cannot be had
        results = list(pool.map(raise_with, [Contrary()] * 3, on_error="return"))
        assert {type(one.exception) for one in results} <= {KeyError, RemoteError}
        assert len(results) == 3


def raise_with(value: object) -> NoReturn:
    raise KeyError(value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "error",
    [
        StopIteration(3),
        StopAsyncIteration(),
        GeneratorExit(),
        SystemExit(4),
        KeyboardInterrupt(),
        ExceptionGroup("group", [ValueError(1), KeyError(2)]),
        BaseExceptionGroup("group", [SystemExit(1)]),
        OSError(2, "No such file", "name"),
        UnicodeDecodeError("utf-8", b"abc", 0, 1, "reason"),
        TimeoutError("the user's own"),
        WorkerCrashed("raised by the user"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_of_every_sort_are_raised(kind: str, error: BaseException) -> None:
    if kind == "serial" and isinstance(error, KeyboardInterrupt):
        pytest.skip("in place, it interrupts the caller")
    with make(kind, 2) as pool:
        found = pool.submit(throw, error).exception(30)
        assert type(found) is type(error)
        assert str(found) == str(error)
        results = list(pool.map(throw_if, [None, error, None], on_error="return"))
        assert [results[0], results[2]] == ["fine", "fine"]
        assert type(results[1].exception) is type(error)
        assert pool.submit(square, 3).result(30) == 9


def throw(error: BaseException) -> NoReturn:
    raise error


def throw_if(error: BaseException | None) -> str:
    if error is not None:
        raise error
    return "fine"


class Falsy(Exception):
    def __bool__(self) -> bool:
        return False

    def __len__(self) -> int:
        return 0


class Equal(Exception):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("error", [Falsy("falsy"), Equal("equal")], ids=["falsy", "equal"])
def test_odd_errors(kind: str, error: Exception) -> None:
    with make(kind, 2) as pool:
        assert type(pool.submit(throw, error).exception(30)) is type(error)
        with pytest.raises(type(error)):
            list(pool.map(throw, [error]))


@pytest.mark.parametrize("kind", KINDS)
def test_recursion(kind: str) -> None:
    with make(kind, 2) as pool:
        assert isinstance(pool.submit(endless, 0).exception(60), RecursionError)
        assert pool.submit(square, 3).result(30) == 9


def endless(n: int) -> int:
    return endless(n + 1) + 1


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def test_values_that_are_nested_too_deep() -> None:
    with make("forkserver", 2) as pool:
        for _ in range(2):
            error = pool.submit(identity, nested(100_000)).exception(60)
            assert isinstance(error, CannotPickle)
            assert "recursion" in str(error).lower() or "nested" in str(error).lower()
            error = pool.submit(nested, 100_000).exception(60)
            assert isinstance(error, CannotPickle)
            assert pool.submit(square, 3).result(30) == 9


class Thing:
    pass


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_held_longer_than_needed(kind: str) -> None:
    """Arguments and results are free when their call has ended and nobody else holds them."""
    with make(kind, 1) as pool:
        thing = Thing()
        gone = threading.Event()
        weakref.finalize(thing, gone.set)
        future = pool.submit(identity, thing)
        result: Any = future.result(30)
        pool.submit(square, 1).result(30)
        del thing, result, future
        assert gone.wait(10)


@pytest.mark.parametrize("kind", KINDS)
def test_a_map_holds_no_result_that_was_taken(kind: str) -> None:
    with make(kind, 1) as pool:
        for thing in pool.map(make_thing, range(50), chunksize=10):
            seen = weakref.ref(thing)
            del thing
            assert seen() is None


def make_thing(_: int) -> Thing:
    return Thing()


@pytest.mark.slow
@pytest.mark.timeout(400)  # it took more than two minutes on a machine with 18 others to run
def test_more_than_two_gigabytes() -> None:
    size = 5 * 2**29
    with make("forkserver", 1) as pool:
        data = bytes(size)
        assert pool.submit(len, data).result(180) == size
        del data
        result = pool.submit(bytes, size).result(180)
        assert len(result) == size
