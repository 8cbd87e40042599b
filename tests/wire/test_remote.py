"""Exceptions arrive as themselves; what cannot arrives as a RemoteError; nothing ever raises."""

from __future__ import annotations

import asyncio
import json
import pickle
import sys
import threading
import types
import urllib.error
from concurrent.futures import process
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightwork import CannotPickle, RemoteError, TaskTimeout
from lightwork.wire.remote import pack_error, unpack_error
from tests.wire import things


def there_and_back(exc: BaseException) -> BaseException:
    return unpack_error(pack_error(exc))


def raised(exc: BaseException) -> Any:
    try:
        raise exc
    except BaseException as error:
        return error


class WithInit(Exception):
    """Its arguments are not those of its __init__."""

    def __init__(self, code: int, *, detail: str) -> None:
        super().__init__(f"code {code}: {detail}")
        self.code = code
        self.detail = detail


class Garbled(Exception):
    """Pickles without complaint, and comes back with another text."""

    def __init__(self, code: object, extra: str = "x") -> None:
        super().__init__(f"<{code}>")
        self.code = code


class Slots(Exception):
    __slots__ = ("hidden",)

    def __init__(self, hidden: int) -> None:
        super().__init__("text")
        self.hidden = hidden


class Exits(Exception):
    """Its __init__ exits when it is rebuilt."""

    def __init__(self, first: bool = False) -> None:
        if not first:
            sys.exit(3)
        super().__init__()


class OwnReduce(Exception):
    def __reduce__(self) -> Any:
        raise SystemExit(7)


class Mute(Exception):
    def __str__(self) -> str:
        raise SystemExit(1)


class MuteRepr(Exception):
    def __repr__(self) -> str:
        raise ValueError("no")


class Strange(OSError):
    def __init__(self, path: str) -> None:
        super().__init__(5, "strange", path)


class NoDict(Exception):
    """Lies about its attributes."""

    def __getattribute__(self, name: str) -> Any:
        if name in ("__dict__", "args", "__traceback__", "__notes__", "__cause__"):
            raise things.Bomb("no")
        return super().__getattribute__(name)


class Group(ExceptionGroup[Exception]):
    """A group of the user's own."""


ITSELF: list[BaseException] = [
    ValueError("text", 3),
    KeyError("k"),
    OSError(2, "no such file", "path"),
    FileNotFoundError(2, "no such file", "a", None, "b"),
    UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"),
    json.JSONDecodeError("bad", "doc", 1),
    StopIteration(3),
    SystemExit(4),
    KeyboardInterrupt(),
    asyncio.CancelledError("x"),
    ImportError("no", name="n", path="p"),
    SyntaxError("bad", ("file", 1, 2, "line")),
    WithInit(3, detail="d"),
    Garbled(5),
    Slots(7),
    Strange("some/path"),
    Exits(first=True),
    things.Bomb("x"),
    RecursionError("deep"),
    MemoryError(),
    AttributeError("no", name="n", obj=threading.Lock()),
    ZeroDivisionError("division by zero"),
    CannotPickle("cannot"),
    TaskTimeout("late"),
    urllib.error.HTTPError("url", 404, "gone", None, None),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("exc", ITSELF, ids=lambda exc: type(exc).__name__)
def test_itself(exc: Any) -> None:
    exc.add_note("a note")
    exc.extra = [1, 2]
    back: Any = there_and_back(raised(exc))
    assert type(back) is type(exc)
    assert back.args == exc.args
    assert str(back) == str(exc)
    assert back.__notes__ == ["a note"]
    assert back.extra == [1, 2]
    for name in ("code", "detail", "hidden", "errno", "filename", "filename2", "value", "doc"):
        assert getattr(back, name, None) == getattr(exc, name, None)
    assert type(back.__cause__) is process._RemoteTraceback
    assert "in raised" in back.__cause__.tb
    assert "raise exc" in str(back.__cause__)
    assert "a note" in back.__cause__.tb


@given(st.lists(st.one_of(st.text(), st.integers(), st.none(), st.binary()), max_size=3))
def test_plain(args: list[Any]) -> None:
    back = there_and_back(ValueError(*args))
    assert type(back) is ValueError
    assert back.args == tuple(args)


def test_layout_of_the_traceback() -> None:
    """The standard library's own tests look at it."""
    back = there_and_back(raised(ZeroDivisionError("division by zero")))
    cause = back.__cause__
    assert isinstance(cause, process._RemoteTraceback)
    text = str(cause)
    assert text.startswith('\n"""\nTraceback (most recent call last):\n')
    assert text.endswith('ZeroDivisionError: division by zero\n"""')


def test_chain_is_in_the_text() -> None:
    try:
        try:
            raise KeyError("inner")
        except KeyError as inner:
            raise ValueError("outer") from inner
    except ValueError as error:
        back = there_and_back(error)
    text = str(back.__cause__)
    assert "KeyError: 'inner'" in text
    assert "direct cause" in text
    assert "outer" in text


STAND_INS: list[tuple[BaseException, str]] = [
    (OwnReduce("x"), "x"),
    (ValueError(threading.Lock()), "<unlocked _thread.lock"),
    (Mute("x"), "<its str() or repr() failed>"),
    (MuteRepr("x"), "<its str() or repr() failed>"),
    (ValueError(things.BadReduce("exit")), ""),
    (ValueError(things.BadLoad("bomb")), ""),
]


@pytest.mark.parametrize(("exc", "text"), STAND_INS, ids=lambda exc: type(exc).__name__)
def test_stand_in(exc: BaseException, text: str) -> None:
    back = there_and_back(raised(exc))
    assert isinstance(back, RemoteError)
    assert back.type_name.endswith(type(exc).__name__)
    assert back.text.startswith(text)
    assert "in raised" in back.traceback
    assert str(back).startswith(back.type_name)
    assert isinstance(back.__cause__, process._RemoteTraceback)
    assert pickle.loads(pickle.dumps(back)).type_name == back.type_name


def test_attributes_of_a_stand_in() -> None:
    exc: Any = OwnReduce("x")
    exc.code = 5
    exc.lock = threading.Lock()
    exc.bad = things.BadReduce("exit")
    exc.big = b"x" * (2 << 20)
    exc.color = things.Color.RED
    back = there_and_back(exc)
    assert isinstance(back, RemoteError)
    assert back.attributes["code"] == 5
    assert back.attributes["color"] is things.Color.RED
    assert "_thread.lock" in back.attributes["lock"]
    assert "BadReduce" in back.attributes["bad"]
    assert len(back.attributes["big"]) < 2000


def test_class_that_only_the_worker_has(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("lw_worker_only")
    exec("class Own(Exception):\n    pass\n", module.__dict__)
    monkeypatch.setitem(sys.modules, "lw_worker_only", module)
    monkeypatch.setattr("lightwork.wire.pickling.by_name", lambda obj: True)
    exc = module.Own("text", 1)
    exc.code = 3
    data = pack_error(raised(exc))
    monkeypatch.delitem(sys.modules, "lw_worker_only")
    back = unpack_error(data)
    assert isinstance(back, RemoteError)
    assert back.type_name == "lw_worker_only.Own"
    assert back.text == "('text', 1)"
    assert back.attributes == {"code": 3}
    assert "could not be rebuilt here" in back.__notes__[0]
    assert "in raised" in str(back.__cause__)


def test_local_class() -> None:
    class Local(ValueError):
        pass

    back = there_and_back(Local("x"))
    assert type(back) is Local


def test_groups() -> None:
    group = ExceptionGroup(
        "several",
        [
            raised(ValueError("a")),
            ExceptionGroup("inner", [raised(Mute("x")), WithInit(1, detail="d")]),
        ],
    )
    group.add_note("noted")
    back: Any = there_and_back(raised(group))
    assert type(back) is ExceptionGroup
    assert back.message == "several"
    assert back.__notes__ == ["noted"]
    first, inner = back.exceptions
    assert type(first) is ValueError
    assert "in raised" in str(first.__cause__)
    assert isinstance(inner, ExceptionGroup)
    assert isinstance(inner.exceptions[0], RemoteError)
    assert type(inner.exceptions[1]) is WithInit
    back = there_and_back(BaseExceptionGroup("base", [SystemExit(1), ValueError("x")]))
    assert type(back) is BaseExceptionGroup
    assert type(there_and_back(Group("own", [ValueError("x")]))) is Group


def test_group_in_group_in_group() -> None:
    group: Exception = ValueError("x")
    for _ in range(5000):
        group = ExceptionGroup("g", [group])
    back = there_and_back(group)
    assert isinstance(back, (ExceptionGroup, RemoteError))


def test_huge() -> None:
    back = there_and_back(raised(ValueError("x" * 5_000_000)))
    assert type(back) is ValueError
    assert len(back.args[0]) == 5_000_000
    assert len(str(back.__cause__)) < 500_000
    assert "characters left out" in str(back.__cause__)


def test_recursion() -> None:
    def deep() -> None:
        deep()

    with pytest.raises(RecursionError) as caught:
        deep()
    back = there_and_back(caught.value)
    assert type(back) is RecursionError
    assert "deep()" in str(back.__cause__)


def test_worst_cases() -> None:
    for exc in [NoDict("x"), raised(NoDict("x"))]:
        back = there_and_back(exc)
        assert isinstance(back, RemoteError)
        assert "NoDict" in str(back)
    notes: Any = ValueError("x")
    notes.__notes__ = 7
    assert isinstance(there_and_back(notes), ValueError)
    exc = ValueError("x")
    exc.__cause__ = exc
    assert isinstance(there_and_back(exc), ValueError)


@given(st.binary(max_size=50))
def test_damaged(data: bytes) -> None:
    assert isinstance(unpack_error(data), BaseException)


def test_our_frames_are_not_shown() -> None:
    namespace = {"__name__": "lightwork.backends.processes.loop"}
    exec("def run(f):\n    f()", namespace)

    def fail() -> None:
        raise ValueError("x")

    run: Any = namespace["run"]
    with pytest.raises(ValueError, match="x") as caught:
        run(fail)
    tail = caught.value.__traceback__
    assert tail is not None
    caught.value.__traceback__ = tail.tb_next  # without this test's own frame
    text = str(there_and_back(caught.value).__cause__)
    assert "in fail" in text
    assert "in run" not in text
