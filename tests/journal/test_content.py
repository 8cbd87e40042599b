"""Items and functions are recognized by what they are, in any process."""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections.abc import Callable
from types import FunctionType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightwork import CannotPickle
from lightwork.cli.job import Job
from lightwork.journal.content import digest, fingerprint
from tests.scripts import run_script


@dataclasses.dataclass
class Point:
    x: float
    tags: frozenset[str] = frozenset()


SAMPLES = """[
    0, 1, True, 1.0, -1, 2**70, "", "a", "1", b"1", None, (), [], {}, (1,), [1], (1, 2), ((1, 2),),
    {"a": 1}, {"a": 2}, {"b": 1}, {1, 2}, frozenset({1, 2}), {"a", "b", "c"}, {"a", "b"}, {("a",)},
    1j, float("inf"), -0.0, "\\ud800", [[[]]], [[], []], range(3), range(4), print, str, int,
    {3: {4}},
]"""


def test_equal_in_every_process_and_different_otherwise() -> None:
    mine = [digest(one) for one in eval(SAMPLES)]
    assert len(set(mine)) == len(mine)
    for seed in ("1", "2"):
        ran = run_script(
            "from lightwork.journal.content import digest\n"
            f"print(*[digest(x).hex() for x in {SAMPLES}])",
            env={"PYTHONHASHSEED": seed},
        )
        assert ran.out.split() == [one.hex() for one in mine], ran.err


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
)


@given(plain)
def test_identity_does_not_matter(value: Any) -> None:
    copied = eval(repr(value))  # equal texts that were one object are two now
    assert digest([value, value]) == digest([copied, value])


@given(plain, plain)
def test_different_values_differ(one: Any, other: Any) -> None:
    assert (digest(one) == digest(other)) == (repr(one) == repr(other))


def test_objects_count_by_what_they_hold() -> None:
    assert digest(Point(1.0, frozenset("abc"))) == digest(Point(1.0, frozenset("cba")))
    assert digest(Point(1.0)) != digest(Point(2.0))
    numpy = pytest.importorskip("numpy")
    assert digest(numpy.arange(1000)) == digest(numpy.arange(1000))
    assert digest(numpy.arange(1000)) != digest(numpy.arange(1001))
    assert digest(numpy.arange(4)) != digest(numpy.arange(4).reshape(2, 2))
    with pytest.raises(CannotPickle, match="lock"):
        digest([threading.Lock()])
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(CannotPickle, match="cyclic|recursion"):
        digest(loop)


def made(source: str, name: str = "f", **names: Any) -> Callable[..., Any]:
    """A function of a module of its own."""
    space: dict[str, Any] = {"__name__": "theirs.module", **names}
    exec(source, space)
    found: Callable[..., Any] = space[name]
    return found


BASE = """
LIMIT = 3
def helper(x):
    return x + LIMIT
class Tool:
    rate = 2
    def use(self, x):
        return helper(x)
def f(x, y=1):
    '''Doc.'''
    return [helper(z) + Tool().use(z) for z in (x, y)]
"""


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("", "", True),
        ("Doc.", "Another doc.", True),
        ("def helper", "# a comment\n\ndef helper", True),
        ("return x + LIMIT", "return x - LIMIT", False),
        ("LIMIT = 3", "LIMIT = 4", False),
        ("rate = 2", "rate = 3", False),
        ("return helper(x)\n", "return helper(x + 1)\n", False),
        ("y=1", "y=2", False),
        ("(x, y)]", "(y, x)]", False),
        ("def f", "UNUSED = 5\ndef f", True),
    ],
)
def test_a_function_is_what_it_does(old: str, new: str, same: bool) -> None:
    source = BASE.replace(old, new, 1) if old else BASE
    assert (fingerprint(made(BASE)) == fingerprint(made(source))) == same
    # Behind a decorator, a partial, a method, and the command's own wrapper.
    for wrap in (
        lambda f: functools.partial(f, 3),
        functools.lru_cache(),
        lambda f: Job(f, star=False),
        decorated,
    ):
        assert (fingerprint(wrap(made(BASE))) == fingerprint(wrap(made(source)))) == same
    method, other = (made(one, "Tool")().use for one in (BASE, source))
    if "helper" in old or "LIMIT" in old or "rate" in old:
        assert (fingerprint(method) == fingerprint(other)) == same


def decorated(f: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(f)
    def inner(*args: Any) -> Any:
        return f(*args)

    return inner


def test_what_a_function_closes_over_counts() -> None:
    def make(n: object) -> Callable[..., Any]:
        return lambda x: (x, n)

    assert fingerprint(make(1)) == fingerprint(make(1))
    assert fingerprint(make(1)) != fingerprint(make(2))
    assert fingerprint(make(threading.Lock())) == fingerprint(make(threading.Lock()))
    assert fingerprint(functools.partial(pow, 2)) != fingerprint(functools.partial(pow, 3))
    assert fingerprint(abs) != fingerprint(len)


def test_recursion_has_an_end() -> None:
    fn = made("def f(x):\n    return g(x)\ndef g(x):\n    return f(x)\n")
    assert isinstance(fn, FunctionType)
    assert fingerprint(fn) == fingerprint(fn)
    assert digest(fn) == digest(fn)


def test_a_function_has_one_fingerprint_in_every_process() -> None:
    script = "from lightwork.journal.content import fingerprint\n" + BASE
    script += "\nfor one in (f, Tool, Tool().use):\n    print(fingerprint(one).hex())"
    first, second = (run_script(script, env={"PYTHONHASHSEED": seed}).out for seed in "12")
    assert first == second
    assert len(first.split()) == 3
