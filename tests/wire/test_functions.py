"""Functions become keys, and keys functions: the same for the same, never for another."""

from __future__ import annotations

import collections
import dataclasses
import enum
import functools
import gc
import importlib
import math
import re
import sys
import threading
import types
import weakref
from pathlib import Path
from typing import Any

import pytest

from lightwork import CannotPickle, CannotUnpickle, InternalError
from lightwork.wire import functions, snapshot
from lightwork.wire.functions import FunctionCache, FunctionTable
from lightwork.wire.references import by_name, importable
from tests.wire import things
from tests.wire.things import Tool


def script(source: str) -> dict[str, Any]:
    """The namespace of something like a script: its functions cannot be imported."""
    module = types.ModuleType("made_up_script")
    exec(compile(source, "script", "exec", dont_inherit=True), module.__dict__)
    return module.__dict__


@pytest.mark.parametrize(
    ("fn", "name", "modules"),
    [
        (things.double, "tests.wire.things.double", ("tests.wire.things",)),
        (math.factorial, "math.factorial", ("math",)),
        (len, "len", ()),
        (int, "int", ()),
        (Tool, "tests.wire.things.Tool", ("tests.wire.things",)),
        (Tool.made, "tests.wire.things.Tool.made", ("tests.wire.things",)),
        (Tool.plain, "tests.wire.things.Tool.plain", ("tests.wire.things",)),
        (Tool(3).times, "tests.wire.things.Tool.times", ("tests.wire.things",)),
        (Tool(3), "a tests.wire.things.Tool", ("tests.wire.things",)),
        (functools.partial(things.double), "tests.wire.things.double", ("tests.wire.things",)),
        ("abc".join, "str.join", ()),
    ],
)
def test_ship(fn: Any, name: str, modules: tuple[str, ...]) -> None:
    table, cache = FunctionTable(), FunctionCache()
    shipped = table.ship(fn)
    assert shipped.name == name
    assert shipped.modules == modules
    assert table.ship(fn) == shipped
    cache.add(shipped.key, shipped.data)
    back = cache.get(shipped.key)
    assert callable(back)
    if fn is things.double or fn is Tool or fn is len:
        assert back is fn
    assert cache.get(shipped.key) is back


def test_keys() -> None:
    table = FunctionTable()
    keys = [table.ship(fn).key for fn in (things.double, len, things.double, lambda: 1)]
    assert keys[0] == keys[2]
    assert len(set(keys)) == 3
    assert table.ship(functools.partial(things.double)).key == (
        table.ship(functools.partial(things.double)).key
    )


def test_keys_are_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functions, "_MAX_KEYS", 3)
    monkeypatch.setattr(functions, "_MAX_FUNCTIONS", 3)
    table = FunctionTable()
    seen: set[int] = set()
    for number in range(50):
        seen.add(table.ship(functools.partial(things.double, number)).key)
        seen.add(table.ship(eval(f"lambda: {number}")).key)
    assert len(seen) == 100
    assert table.ship(functools.partial(things.double, 0)).key not in seen
    assert len(table._keys) <= 3
    assert len(table._entries) <= 3


@pytest.mark.parametrize("held", [things.Holder(), "x" * 10_000, b"x" * 10_000, (0,) * 10_000])
def test_what_matters_is_not_kept_alive(held: Any) -> None:
    table = FunctionTable()

    def fn() -> Any:
        return held

    table.ship(fn)
    gone = weakref.ref(fn)
    del fn
    gc.collect()
    assert gone() is None


def test_as_it_is_now() -> None:
    """Whatever changes between two ships, the second one is of the function as it is then."""
    table, cache = FunctionTable(), FunctionCache()
    space = script(
        """
import math
K = 1
LIST = []
class C:
    n = 1
    def get(self): return self.n + K
def helper(x): return x + K
def f(x, y=1, *, z=1): return helper(x) + y + z + len(LIST) + C().get()
def make(start):
    total = start
    def count(x):
        return total + x
    def change(n):
        nonlocal total
        total = n
    return count, change
def pure(x, y=2): return math.floor(x) + y + K
"""
    )

    def call(name: str | Any, *args: Any) -> Any:
        fn = space[name] if isinstance(name, str) else name
        shipped = table.ship(fn)
        cache.add(shipped.key, shipped.data)
        assert cache.get(shipped.key)(*args) == fn(*args)
        return shipped.key

    first = call("f", 1)
    assert call("f", 1) == first
    space["K"] = 2
    second = call("f", 1)
    assert second != first
    space["LIST"].append(1)
    assert call("f", 1) != second
    space["f"].__defaults__ = (5,)
    call("f", 1)
    space["f"].__kwdefaults__["z"] = 7
    call("f", 1)
    space["C"].n = 10
    call("f", 1)
    space["C"].get = lambda self: 100
    call("f", 1)
    space["helper"] = lambda x: -x
    call("f", 1)

    before = call("pure", 1.5)
    assert call("pure", 1.5) == before
    space["pure"].__code__ = space["helper"].__code__
    assert call("pure", 1) != before

    count, change = space["make"](10)
    old = call(count, 1)
    assert call(count, 1) == old
    change(20)
    assert call(count, 1) != old
    change(10)
    assert call(count, 1) == old


def test_a_module_level_function_that_was_replaced(tmp_path: Path) -> None:
    """The old one is not found by its name any more, so it goes by value."""
    (tmp_path / "lw_replaced.py").write_text("def f(): return 1\n")
    sys.path.insert(0, str(tmp_path))
    importlib.invalidate_caches()
    try:
        import lw_replaced  # type: ignore[import-not-found]

        table, cache = FunctionTable(), FunctionCache()
        old = lw_replaced.f
        by_reference = table.ship(old)
        assert len(by_reference.data) < 100
        lw_replaced.f = lambda: 2
        for fn, expected in [(old, 1), (lw_replaced.f, 2)]:
            shipped = table.ship(fn)
            cache.add(shipped.key, shipped.data)
            assert cache.get(shipped.key)() == expected
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop("lw_replaced", None)


def test_modules_of_a_script() -> None:
    space = script(
        "import json, re as expressions\nfrom math import sin\ndef f(): return json, sin"
    )
    assert sorted(FunctionTable().ship(space["f"]).modules) == ["json", "math"] or sorted(
        FunctionTable().ship(space["f"]).modules
    ) == ["json"]


def test_cannot_pickle() -> None:
    lock = threading.Lock()
    with pytest.raises(CannotPickle, match=r"the function .*closure variable 'lock', a _thread"):
        FunctionTable().ship(lambda: lock)
    with pytest.raises(CannotPickle, match="the function"):
        FunctionTable().ship(things.Holder(lock=lock).__class__(x=(1, lock)).__eq__)


class TestCache:
    """The worker's side."""

    def test_unpickles_when_wanted(self) -> None:
        cache = FunctionCache()
        cache.add(1, b"broken")
        cache.add(2, FunctionTable().ship(len).data)
        assert cache.get(2) is len
        for _ in range(2):
            with pytest.raises(CannotUnpickle, match="the function cannot be rebuilt"):
                cache.get(1)
        assert cache.get(2) is len

    def test_unknown(self) -> None:
        with pytest.raises(InternalError, match="77"):
            FunctionCache().get(77)

    def test_discard(self) -> None:
        cache = FunctionCache()
        data = FunctionTable().ship(len).data
        cache.add(1, data)
        cache.get(1)
        cache.discard(1)
        cache.discard(1)
        with pytest.raises(InternalError):
            cache.get(1)
        cache.add(1, data)
        assert cache.get(1) is len

    def test_not_a_function(self) -> None:
        import pickle

        cache = FunctionCache()
        cache.add(1, pickle.dumps(3))
        with pytest.raises(CannotUnpickle, match="an int"):
            cache.get(1)

    def test_harm(self) -> None:
        import pickle

        cache = FunctionCache()
        cache.add(1, pickle.dumps(things.BadLoad("exit")))
        with pytest.raises(CannotUnpickle) as caught:
            cache.get(1)
        assert isinstance(caught.value.__cause__, SystemExit)


def test_threads_ship_at_once() -> None:
    table = FunctionTable()
    space = script("K = 1\ndef f(x): return x + K")
    keys: set[int] = set()

    def work() -> None:
        for _ in range(300):
            keys.add(table.ship(space["f"]).key)
            keys.add(table.ship(things.double).key)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 2


# -- snapshots -----------------------------------------------------------------------------------


class Shade(enum.Enum):
    DARK = 1


def test_what_can_be_watched() -> None:
    space = script(
        """
import abc, collections, dataclasses, enum, functools, math, pathlib, re, typing
@dataclasses.dataclass
class Data:
    a: int
    b: list = dataclasses.field(default_factory=list)
@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Frozen:
    a: int = 1
class Color(enum.Enum):
    RED = 1
class Bits(enum.IntFlag):
    A = 1
Pair = collections.namedtuple("Pair", "a b")
class Named(typing.NamedTuple):
    a: int = 1
class Base(abc.ABC):
    @abc.abstractmethod
    def m(self): ...
class Derived(Base, typing.Generic[typing.TypeVar("T")]):
    __slots__ = ("x",)
    def m(self): return super().m()
    @property
    def p(self): return 1
    @staticmethod
    def s(): return 1
    @classmethod
    def c(cls): return cls
    @functools.lru_cache
    def l(self): return 1
    @functools.cached_property
    def cp(self): return 1
PATTERN = re.compile("x")
PATH = pathlib.Path("x")
NESTED = (1, ("a", frozenset({2})), None, ...)
def f(x): return Data, Frozen, Color.RED, Bits.A, Pair, Named, Derived, PATTERN, PATH, NESTED, len
"""
    )
    taken = snapshot.take(space["f"])
    assert taken is not None
    assert taken.holds()
    space["Data"](1), space["Derived"]().cp
    assert taken.holds()
    space["Derived"].extra = 1
    assert not taken.holds()


@pytest.mark.parametrize(
    "value", [[], {}, set(), bytearray(), things.Holder(), ([],), functools.partial(len, [])]
)
def test_what_cannot_be_watched(value: Any) -> None:
    space = script("def f(): return V")
    space["V"] = value
    assert snapshot.take(space["f"]) is None
    space["V"] = 1
    taken = snapshot.take(space["f"])
    assert taken is not None
    space["V"] = value
    assert not taken.holds()


def test_partials_are_watched() -> None:
    partial = functools.partial(things.double, x=1)
    taken = snapshot.take(partial)
    assert taken is not None
    assert taken.holds()
    partial.keywords["y"] = 2
    assert not taken.holds()


def test_names_in_nested_code() -> None:
    space = script("def f():\n class C:\n  v = A\n  def g(self): return [B for _ in D]\n return C")
    assert {"A", "B", "D"} <= snapshot.code_names(space["f"].__code__)


# -- references ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        (things.double, True),
        (Tool, True),
        (Tool.plain, True),
        (re.compile, True),
        (dataclasses.Field, True),
        (collections.OrderedDict, True),
        (len, True),
        (lambda: 1, False),
        (Tool.__dict__["times"], True),
    ],
)
def test_by_name(obj: Any, expected: bool) -> None:
    assert by_name(obj) is expected


def test_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    assert importable("tests.wire.things")
    assert importable("math")
    assert importable("numpy.linalg")
    assert not importable("__main__")
    assert not importable("__mp_main__")
    made_up = types.ModuleType("lw_made_up")
    monkeypatch.setitem(sys.modules, "lw_made_up", made_up)
    assert not importable("lw_made_up")


def test_a_finder_that_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    class Finder:
        def find_spec(self, *args: object) -> None:
            raise RuntimeError

    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    monkeypatch.setitem(sys.modules, "lw_made_up_too", types.ModuleType("lw_made_up_too"))
    assert not importable("lw_made_up_too")
