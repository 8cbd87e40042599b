"""Results as JSON."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import json
import math
import pathlib
import uuid
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightwork.cli.encode import NotJSON, encode


@dataclasses.dataclass
class Point:
    x: int
    y: object


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


Pair = collections.namedtuple("Pair", "a b")  # noqa: PYI024

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(plain)
def test_what_json_has_comes_back_as_it_was(value: Any) -> None:
    text = encode(value)
    assert json.loads(text) == value
    assert "\n" not in text


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ((1, 2), [1, 2]),
        ({3, 1, 2}, [1, 2, 3]),
        (frozenset(), []),
        (b"\x00\xff", "AP8="),
        (bytearray(b"a"), "YQ=="),
        (Point(1, {2}), {"x": 1, "y": [2]}),
        (Colour.RED, "red"),
        ([Level.LOW], [1]),
        (Pair(1, b"a"), [1, "YQ=="]),
        (pathlib.Path("a/b"), "a/b"),
        (datetime.date(2024, 2, 29), "2024-02-29"),
        ([datetime.datetime(2024, 1, 2, 3, 4)], ["2024-01-02T03:04:00"]),
        (datetime.timedelta(seconds=90), "0:01:30"),
        (decimal.Decimal("1.10"), "1.10"),
        (fractions.Fraction(1, 3), "1/3"),
        (uuid.UUID(int=0), "00000000-0000-0000-0000-000000000000"),
        ({1: "a", None: "b", False: "c"}, {"1": "a", "null": "b", "false": "c"}),
        ({1: b"a", None: "b"}, {"1": "YQ==", "null": "b"}),
        ({pathlib.Path("k"): 1}, {"k": 1}),
        ([math.nan, math.inf, -math.inf], ["NaN", "Infinity", "-Infinity"]),
        (numpy.int64(5), 5),
        (numpy.float64(0.5), 0.5),
        (numpy.float32("nan"), "NaN"),
        (numpy.bool_(True), True),
        (numpy.arange(4).reshape(2, 2), [[0, 1], [2, 3]]),
        (numpy.array(7), 7),
        ({"a": numpy.array([1.5, math.nan])}, {"a": [1.5, "NaN"]}),
        (numpy.datetime64("2024-01-01"), "2024-01-01"),
    ],
)
def test_what_a_person_would_write(value: Any, expected: Any) -> None:
    found = json.loads(encode(value))
    assert found == expected
    assert type(found) is type(expected)


def endless() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": [1, object()]}, r"the result\['a'\]\[1\] is of type object"),
        (1j, "the result is of type complex"),
        (Point, "the result is of type type"),
        (Point(1, print), r"the result\.y is of type builtin_function_or_method"),
        (iter([1]), "of type list_iterator"),
        ({(1, 2): 3}, "a key of the result is of type tuple"),
        ({object()}, "an element of the result is of type object"),
        (endless(), "refers to itself"),
        (numpy.array([object()]), r"the result\[0\] is of type object"),
    ],
)
def test_everything_else_is_named(value: Any, message: str) -> None:
    with pytest.raises(NotJSON, match=message):
        encode(value)


def test_everything_else_as_text_if_asked_for() -> None:
    value = {"a": [1j, {(1, 2): print}], "set": {3}}
    assert json.loads(encode(value, str)) == {"a": ["1j", {"(1, 2)": str(print)}], "set": [3]}
    assert json.loads(encode([b"x", "text", object], repr)) == ["eA==", "text", repr(object)]


def test_integers_of_any_length() -> None:
    digits = len(encode(math.factorial(5000)))
    assert digits == 16326
