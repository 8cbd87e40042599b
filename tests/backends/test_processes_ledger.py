"""The books and the stop sign against a worker made of steps, in every order of events."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from lightwork.backends.base import Parcel
from lightwork.backends.processes.ledger import Book, Frame
from lightwork.backends.processes.page import FINISHED, LIMIT, SLOTS, STARTED


def cells() -> memoryview:
    page = memoryview(bytearray(4096)).cast("q")
    page[STARTED] = -1
    return page


def parcel(task: int, lo: int, hi: int) -> Parcel:
    return Parcel(task, 1, lo, hi, 0, 0, None, False, False, False)


class Model:
    """A worker that does what loop.py does, one load or store at a time."""

    def __init__(self, page: memoryview) -> None:
        self.page = page
        self.inbox: deque[tuple[str, Any]] = deque()  # what is on its way to it
        self.outbox: deque[tuple[int, int]] = deque()  # (position, frames done) on their way back
        self.ran: list[tuple[int, int]] = []
        self.frames_done = 0
        self._queue: deque[Frame] = deque()
        self._cuts: dict[int, tuple[int, int]] = {}
        self._steps = self._run()

    def step(self) -> None:
        next(self._steps)

    def _receive(self) -> None:
        while self.inbox:
            kind, value = self.inbox.popleft()
            if kind == "frame":
                self._queue.append(value)
            else:
                serial, limit, keep = value
                self._cuts[serial] = limit, keep

    def _run(self) -> Iterator[None]:
        while True:
            if not self._queue:
                self._receive()
                yield
                continue
            frame = self._queue.popleft()
            yield from self._frame(frame)
            self.frames_done += 1
            self.outbox.append((-1, self.frames_done))

    def _frame(self, frame: Frame) -> Iterator[None]:
        calls = [(one.task, offset) for one in frame.parcels for offset in range(one.lo, one.hi)]
        slot = LIMIT + frame.serial % SLOTS
        for offset, call in enumerate(calls):
            self.page[STARTED] = frame.base + offset
            yield
            limit = self.page[slot]
            yield
            if limit and offset >= limit - 1:
                while self._cuts.get(frame.serial, (None,))[0] != self.page[slot] - 1:
                    yield
                    self._receive()
                if offset >= self._cuts[frame.serial][1]:
                    return
            self.ran.append(call)
            self.outbox.append((frame.base + offset, self.frames_done))
            self.page[FINISHED] = frame.base + offset + 1
            yield


class World:
    """The parent and its worker, and what is on its way between them."""

    def __init__(self, data: st.DataObject) -> None:
        page = cells()
        self.draw = data.draw
        self.book, self.model = Book(page), Model(page)
        self.flight: deque[tuple[str, Any]] = deque()  # written by the parent, not yet delivered
        self.taken: list[tuple[int, int]] = []
        self.answered: list[tuple[int, int]] = []
        self.held: dict[int, tuple[int, int]] = {}  # task -> lo, hi that the worker is to run
        self.tasks = 0

    def run(self, most: int = 20) -> None:
        for _ in range(self.draw(st.integers(0, most))):
            self.model.step()

    def send(self) -> None:
        self.tasks += 1
        self.held[self.tasks] = (0, self.draw(st.integers(1, 6)))
        self.book.waiting.append(parcel(self.tasks, *self.held[self.tasks]))

    def frame(self) -> None:
        waiting = self.book.waiting
        if waiting and self.book.room():
            count = self.draw(st.integers(1, len(waiting)))
            parcels = [waiting.popleft() for _ in range(count)]
            self.flight.append(("frame", self.book.frame(parcels, False)))

    def cut(self) -> None:
        if not self.held:
            return
        task = self.draw(st.sampled_from(sorted(self.held)))
        lo, hi = self.held[task]
        offset = self.draw(st.integers(lo, hi - 1))
        # The worker goes on while the parent is between its store and its load.
        for one, attempt, at in self.book.take_back(task, offset, lambda: self.run(6)):
            first, last = self.held.pop(one)
            assert attempt == 1
            assert first <= at < last
            self.taken += [(one, number) for number in range(at, last)]
            if at > first:
                self.held[one] = (first, at)
        if self.draw(st.booleans()):
            self.tell_cuts()

    def tell_cuts(self) -> None:
        self.flight.extend(("cut", cut) for cut in self.book.cuts)
        self.book.cuts = []

    def deliver(self) -> None:
        self.tell_cuts()
        self.model.inbox.extend(self.flight)
        self.flight.clear()

    def answers(self) -> None:
        while self.model.outbox:
            position, frames_done = self.model.outbox.popleft()
            if position >= 0:
                for one, lo, hi in self.book.answered(position, 1):
                    self.answered += [(one.task, offset) for offset in range(lo, hi)]
            self.book.done(frames_done)

    def drain(self) -> None:
        for _ in range(self.tasks + 4):
            self.frame()
            self.deliver()
            for _ in range(50):
                self.model.step()
            self.answers()


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_call_is_lost_and_none_is_run_twice(data: st.DataObject) -> None:
    world = World(data)
    actions = [
        *(world.send, world.frame, world.cut),
        *(world.run, world.deliver, world.answers),
    ]
    for _ in range(data.draw(st.integers(1, 40))):
        data.draw(st.sampled_from(actions))()
        assert not set(world.model.ran) & set(world.taken)
    world.drain()
    expected = {(task, n) for task, (lo, hi) in world.held.items() for n in range(lo, hi)}
    assert sorted(world.model.ran) == sorted(expected)
    assert not expected & set(world.taken)
    assert world.answered == world.model.ran
    assert not world.book.busy


def test_slots_are_not_used_again_before_the_worker_says_so() -> None:
    book = Book(cells())
    for number in range(SLOTS):
        assert book.room()
        book.frame([parcel(number, 0, 1)], False)
    for position in range(SLOTS):
        book.answered(position, 1)
    assert not book.room()
    book.done(1)
    assert book.room()


def test_answers_that_come_twice_count_once() -> None:
    book = Book(cells())
    book.frame([parcel(1, 3, 6), parcel(2, 0, 2)], False)
    assert [(one.task, lo, hi) for one, lo, hi in book.answered(0, 2)] == [(1, 3, 5)]
    assert [(one.task, lo, hi) for one, lo, hi in book.answered(1, 3)] == [(1, 5, 6), (2, 0, 1)]
    assert book.answered(0, 4) == []


def test_big_frames_are_counted_out() -> None:
    book = Book(cells())
    book.frame([parcel(1, 0, 1)], True)
    book.frame([parcel(2, 0, 1)], False)
    book.frame([parcel(3, 0, 1)], True)
    assert book.done(1) == 1
    assert book.done(3) == 1
    assert book.done(3) == 0
