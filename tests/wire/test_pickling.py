"""Objects there and back, and clear errors for those that cannot go."""

from __future__ import annotations

import array
import collections
import datetime
import decimal
import functools
import gc
import logging
import pickle
import sys
import threading
import types
import weakref
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightwork import CannotPickle, CannotUnpickle
from lightwork.wire.pickling import OUT_OF_BAND, Packed, dump_bytes, pack, pack_plain, unpack
from tests.wire import things
from tests.wire.things import BadLoad, BadReduce, BadSetState, BadState, Holder, Slotted


def there_and_back(obj: Any) -> Any:
    packed = pack(obj)
    return unpack(packed.data, [bytearray(one.raw()) for one in packed.buffers])


atoms = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(),
    st.binary(),
    st.complex_numbers(allow_nan=False),
    st.datetimes(),
    st.timedeltas(),
)
hashable = st.recursive(atoms, lambda inner: st.lists(inner, max_size=3).map(tuple))
plain = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(hashable, inner, max_size=4),
        st.sets(hashable, max_size=4),
        st.frozensets(hashable, max_size=4),
        st.binary(max_size=10).map(bytearray),
    ),
    max_leaves=20,
)


@given(plain)
def test_plain_values(value: Any) -> None:
    packed = pack(value)
    back = unpack(packed.data, packed.buffers)
    assert back == value
    assert type(back) is type(value)
    assert packed.plain
    assert packed.buffers == ()
    together = pack_plain([value, value])
    assert together is not None
    assert unpack(together) == [value, value]


@given(st.lists(plain, max_size=3).map(tuple), st.dictionaries(st.text(), plain, max_size=3))
def test_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    packed = pack((args, kwargs))
    assert packed.plain
    assert unpack(packed.data) == (args, kwargs)


@pytest.mark.parametrize(
    "value",
    [
        decimal.Decimal("1.5"),
        things.Color.RED,
        things.Color,
        things.Listy([1]),
        things.double,
        len,
        collections.OrderedDict(a=1),
        collections.deque([1]),
        np.float64(3),
        datetime.UTC,
        functools.partial(things.double, 1),
        "abc".upper,
        range,
        OSError(2, "x", "y"),
        types.SimpleNamespace(a=1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_not_plain(value: Any) -> None:
    """What runs code when it is rebuilt, or may be missing there, is not called plain."""
    packed = pack((1, value))
    assert not packed.plain or value is range
    back = unpack(packed.data, packed.buffers)[1]
    assert type(back) is type(value)
    if not callable(value) and not isinstance(value, OSError):
        assert back == value
    if value is not range:
        assert pack_plain([[value]]) is None
    assert pack_plain([1, 2]) is not None


def test_identity_inside_one_object() -> None:
    shared = [1]
    loop: list[Any] = []
    loop.append(loop)
    one, two, back = there_and_back((shared, {"a": shared}, loop))
    assert one is two["a"]
    assert back[0] is back


# -- buffers -------------------------------------------------------------------------------------


def test_big_arrays_go_out_of_band() -> None:
    original = np.arange(OUT_OF_BAND)
    packed = pack((original, [original[:10]], {"f": np.asfortranarray(np.ones((300, 400)))}))
    assert len(packed.data) < 5000
    assert [one.raw().nbytes for one in packed.buffers] == [8 * OUT_OF_BAND, 300 * 400 * 8]
    assert not packed.plain
    received = [bytearray(one.raw()) for one in packed.buffers]
    one, (two,), named = unpack(packed.data, received)
    assert (one == original).all()
    assert (two == original[:10]).all()
    assert named["f"].flags.f_contiguous
    one[0] = 7
    assert received[0][0] == 7
    assert original[0] == 0


def test_small_arrays_stay_inside() -> None:
    packed = pack(np.zeros(OUT_OF_BAND // 8 - 1))
    assert packed.buffers == ()
    assert len(pack(np.zeros(OUT_OF_BAND // 8)).buffers) == 1


def test_strided_arrays() -> None:
    original = np.arange(4 * OUT_OF_BAND).reshape(2, -1)[:, ::2]
    assert (there_and_back(original) == original).all()


def test_read_only_arrays() -> None:
    original = np.ones(OUT_OF_BAND)
    original.flags.writeable = False
    back = there_and_back(original)
    assert not back.flags.writeable


def test_object_arrays() -> None:
    assert list(there_and_back(np.array([1, "a", None], object))) == [1, "a", None]


def test_array_array() -> None:
    assert there_and_back(array.array("d", [1.0])) == array.array("d", [1.0])


@pytest.mark.parametrize(
    "wrap",
    [
        lambda big: big,
        lambda big: (big, 1),
        lambda big: ((1, big), {}),
        lambda big: ((), {"k": big}),
        lambda big: ((big,), {"k": big, "n": 1}),
    ],
)
def test_big_bytes_are_not_copied(wrap: Any) -> None:
    big = bytes(range(256)) * 8192
    obj = wrap(big)
    packed = pack(obj)
    assert len(packed.data) < 1000
    assert packed.buffers[0].raw().obj is big
    assert unpack(packed.data, [bytearray(one.raw()) for one in packed.buffers]) == obj


def test_big_bytearray_is_a_copy_at_once() -> None:
    """It is the caller's to resize; a buffer held for a later copy would forbid that."""
    big = bytearray(3 << 20)
    packed = pack((big,))
    big.append(1)
    assert len(unpack(packed.data, packed.buffers)[0]) == 3 << 20


def test_dump_bytes_is_one_piece() -> None:
    data = dump_bytes(np.ones(OUT_OF_BAND), what="x")
    assert (unpack(data) == 1).all()


@pytest.mark.slow
def test_more_than_two_gigabytes() -> None:
    size = 5 << 29  # 2.5 GiB
    packed = pack(bytearray(size))
    assert len(unpack(packed.data)) == size
    del packed
    big = bytes(size)
    packed = pack(((big,), {}))
    assert sum(one.raw().nbytes for one in packed.buffers) == size
    ((back,), _) = unpack(packed.data, [packed.buffers[0].raw()])
    assert len(back) == size


# -- what cannot be pickled ----------------------------------------------------------------------


LOCK = threading.Lock()


def iter_nothing() -> Any:
    yield


@pytest.mark.parametrize(
    ("obj", "where", "why"),
    [
        (((1, {"lock": LOCK}), {}), "args[1]['lock']", "a _thread.lock"),
        (((1,), {"key": [0, LOCK]}), "kwargs['key'][1]", "a _thread.lock"),
        (((Holder(inner=Holder(lock=LOCK)),), {}), "args[0].inner.lock", "a _thread.lock"),
        (((Slotted({1: LOCK}),), {}), "args[0].held[1]", "a _thread.lock"),
        ((({1: 2, LOCK: 1},), {}), "args[0] (key a lock)", "a _thread.lock"),
        (((iter_nothing(),), {}), "args[0]", "a generator"),
        (((functools.partial(things.double, LOCK),), {}), "args[0].args[0]", "a _thread.lock"),
        (((things.Liar(),), {}), "args[0]", "a tests.wire.things.Liar"),
        (((Holder(frame=sys._getframe()).__dict__,), {}), "args[0]['frame']", "a frame"),
    ],
)
def test_the_part_is_named(obj: Any, where: str, why: str) -> None:
    with pytest.raises(CannotPickle) as caught:
        pack(obj, what="the arguments")
    text = str(caught.value)
    assert text.startswith("the arguments cannot be pickled because of ")
    assert f"because of {where}, {why}" in text
    assert isinstance(caught.value.__cause__, Exception)


def test_captured_things_are_named() -> None:
    lock = threading.Lock()

    def inner() -> object:
        return lock

    def outer() -> object:
        return inner()

    with pytest.raises(CannotPickle, match=r"closure variable 'inner', closure variable 'lock', a"):
        pack(outer, what="the function")
    with pytest.raises(CannotPickle, match="the argument cannot be pickled because of"):
        pack([outer])


@pytest.mark.parametrize("how", sorted(things.HARM))
@pytest.mark.parametrize("cls", [BadReduce, BadState])
def test_harm_while_pickling(cls: type[BadReduce], how: str) -> None:
    objects: list[Any] = [cls(how), [cls(how)], ((cls(how),), {})]
    for obj in objects:
        with pytest.raises(CannotPickle) as caught:
            pack(obj)
        if how != "recursion":
            assert cls.__name__ in str(caught.value)
        cause = caught.value.__cause__
        assert cause is things.HARM[how] or isinstance(cause, (pickle.PicklingError, Exception))
        assert type(things.HARM[how]).__name__ in str(caught.value)
    assert pack_plain([cls(how)]) is None


@pytest.mark.parametrize("how", sorted(things.HARM))
@pytest.mark.parametrize("cls", [BadLoad, BadSetState])
def test_harm_while_unpickling(cls: type[BadLoad], how: str) -> None:
    packed = pack([cls(how)])
    with pytest.raises(CannotUnpickle, match=type(things.HARM[how]).__name__) as caught:
        unpack(packed.data)
    assert caught.value.__cause__ is things.HARM[how]


def test_control_c_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(things.HARM, "interrupt", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        pack(BadReduce("interrupt"))
    data = pack(BadLoad("interrupt")).data
    with pytest.raises(KeyboardInterrupt):
        unpack(data)


def test_errors_that_cannot_be_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise SystemExit(1)

        __repr__ = __str__

    monkeypatch.setitem(things.HARM, "mute", Mute())
    with pytest.raises(CannotPickle, match="Mute"):
        pack(BadReduce("mute"))


@pytest.mark.parametrize("wrap", [lambda x: [x], lambda x: {"a": x}, lambda x: Holder(a=x)])
def test_nested_too_deeply(wrap: Any) -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = wrap(deep)
    with pytest.raises(CannotPickle, match="nested too deeply"):
        pack((deep,))
    assert pack_plain([deep]) is None


def test_broken_data() -> None:
    with pytest.raises(CannotUnpickle):
        unpack(b"")
    with pytest.raises(CannotUnpickle):
        unpack(pack([1, 2, 3]).data[:-3])
    with pytest.raises(CannotUnpickle):
        unpack(pack(np.ones(OUT_OF_BAND)).data, [])


# -- what only cloudpickle can -------------------------------------------------------------------


def test_by_value() -> None:
    captured = 3
    assert there_and_back(lambda x: x + captured)(1) == 4
    assert there_and_back([np, logging.getLogger("a.b")]) == [np, logging.getLogger("a.b")]
    assert list(there_and_back({1: 2}.keys())) == [1]
    big = np.ones(OUT_OF_BAND)
    packed = pack((big, lambda: captured))
    assert len(packed.buffers) == 1
    back, function = unpack(packed.data, packed.buffers)
    assert (back == 1).all()
    assert function() == 3


def test_packed_is_what_it_says() -> None:
    packed = pack(((1, "a"), {}))
    assert isinstance(packed, Packed)
    assert packed == (pickle.dumps(((1, "a"), {}), 5), (), True)
    assert pack((1, things.Color.RED)) != packed


def test_from_many_threads() -> None:
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for count in range(200):
                value = [number, count, things.Color.BLUE, lambda count=count: (number, count)]
                back = there_and_back(value)
                assert back[:3] == value[:3]
                assert back[3]() == (number, count)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


class _Nosy:
    """Pickles something itself, while it is pickled."""

    def __reduce__(self) -> Any:
        return list, (pack([1, [2]]).data,)


def test_a_pickler_is_used_again_and_remembers_nothing() -> None:
    shared = [1, 2]
    big = np.zeros(OUT_OF_BAND, np.uint8)
    cases = [
        ([shared, shared], True, 0),
        ([shared, big], False, 1),
        ([pickle.PickleBuffer(bytes(OUT_OF_BAND))], True, 1),
        ([shared, decimal.Decimal(1)], False, 0),
        ([shared, _Nosy()], False, 0),
        ([shared] * 3000, True, 0),
    ]
    for obj, plain, count in cases * 2:
        packed = pack(obj)
        assert packed.plain is plain
        assert len(packed.buffers) == count
        alone = pickle.dumps(obj, 5, buffer_callback=lambda _: None)
        assert packed.data == alone
        with pytest.raises(CannotPickle):
            pack([obj, BadReduce("raise")])


def test_pickling_by_value_keeps_nobodys_arguments() -> None:
    """Not until the garbage collector comes, either: they may be large, or an end of a pipe."""

    class Argument:
        pass

    def submit(argument: Argument) -> None:
        pack(lambda: 1, what="the function")

    gc.collect()
    gc.disable()
    try:
        argument = Argument()
        alive = weakref.ref(argument)
        submit(argument)
        del argument
        assert alive() is None
    finally:
        gc.enable()
