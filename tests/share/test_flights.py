"""Pickles on their way are counted, in whatever order they are opened, or not at all."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lightwork.share import flights
from lightwork.share import layout as at


def _record() -> memoryview:
    return memoryview(bytearray(at.R_WORDS * 8)).cast("Q")


@given(st.lists(st.integers(0, 5), max_size=60), st.randoms(use_true_random=False))
def test_each_opened_once(rounds: list[int], draw: object) -> None:
    record, out = _record(), []
    for count in rounds:
        out += [flights.issue(record) for _ in range(count)]
        draw.shuffle(out)  # type: ignore[attr-defined]
        for _ in range(min(len(out), 2)):
            flights.opened(record, out.pop())
        assert flights.on_their_way(record) == len(out)


@given(st.integers(0, 1000), st.data())
def test_more_than_the_window(count: int, data: st.DataObject) -> None:
    record = _record()
    numbers = [flights.issue(record) for _ in range(count)]
    assert flights.on_their_way(record) == count
    for number in data.draw(st.permutations(numbers)) if count < 300 else numbers:
        flights.opened(record, number)
    assert flights.on_their_way(record) == 0


def test_opened_again_changes_nothing() -> None:
    record = _record()
    first, second = flights.issue(record), flights.issue(record)
    for _ in range(3):
        flights.opened(record, first)
    assert flights.on_their_way(record) == 1
    flights.opened(record, second)
    assert flights.on_their_way(record) == 0
