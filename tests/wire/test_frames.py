"""Frames: whole, in order, with their descriptors, however little the socket takes at a time."""

from __future__ import annotations

import array
import contextlib
import errno
import os
import random
import resource
import socket
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightwork.wire import frames
from lightwork.wire.frames import MAX_FDS, Frame, Inbox, Outbox


@contextlib.contextmanager
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    a, b = socket.socketpair()
    with a, b:
        yield a, b


class Stutter:
    """A socket that takes and gives only a few bytes at a time, or says that it cannot."""

    def __init__(self, real: socket.socket, sizes: Iterator[int]) -> None:
        self.real = real
        self.sizes = sizes

    def fileno(self) -> int:
        return self.real.fileno()

    def _size(self) -> int:
        size = next(self.sizes)
        if size == 0:
            raise BlockingIOError(errno.EAGAIN, "stuttering")
        return size

    def send(self, data: Any, flags: int) -> int:
        return self.real.send(memoryview(data)[: self._size()], flags)

    def sendmsg(self, buffers: Sequence[Any], rights: Any, flags: int) -> int:
        room = self._size()
        cut = []
        for buffer in buffers:
            cut.append(memoryview(buffer)[:room])
            room -= len(cut[-1])
        return self.real.sendmsg(cut, rights, flags)

    def recv_into(self, target: memoryview, size: int, flags: int) -> int:
        return self.real.recv_into(target[: self._size()], size, flags)

    def recvmsg_into(self, targets: Sequence[memoryview], space: int, flags: int) -> Any:
        return self.real.recvmsg_into([targets[0][: self._size()]], space, flags)


def sizes(seed: int) -> Iterator[int]:
    rng = random.Random(seed)
    while True:
        yield rng.choice([0, 1, 2, 3, 7, 10, 11, 100, 5000, 70_000, 1 << 20])


Body = list[bytes]
bodies = st.lists(
    st.one_of(
        st.binary(max_size=20),
        st.integers(0, 200_000).map(lambda n: bytes(range(256)) * (n // 256) + b"end"),
    ),
    max_size=4,
)
frame_lists = st.lists(st.tuples(st.integers(0, 255), bodies, st.integers(0, 3)), max_size=12)


@settings(max_examples=150, deadline=None)
@given(frame_lists, st.integers(0, 2**32), st.booleans())
def test_round_trip(frame_list: list[tuple[int, Body, int]], seed: int, small: bool) -> None:
    with pair() as (a, b), open(os.devnull) as null:
        if small:
            a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        outbox = Outbox(Stutter(a, sizes(seed)))  # type: ignore[arg-type]
        inbox = Inbox(Stutter(b, sizes(seed + 1)))  # type: ignore[arg-type]
        sent: list[int] = []
        got: list[Frame] = []
        for number, (kind, chunks, count) in enumerate(frame_list):
            fds = [null.fileno()] * count
            outbox.post(kind, chunks, fds, lambda n=number: sent.append(n))  # type: ignore[misc]
            outbox.flush()
            got += inbox.read()
        while outbox.pending or len(got) < len(frame_list):
            outbox.flush()
            got += inbox.read()
        assert sent == list(range(len(frame_list)))
        for (kind, chunks, count), frame in zip(frame_list, got, strict=True):
            assert frame.kind == kind
            assert bytes(frame.body) == b"".join(chunks)
            assert len(frame.fds) == count
            assert not frame.lost_fds
            for fd in frame.fds:
                assert not os.get_inheritable(fd)
                os.close(fd)
        a.close()
        while not inbox.eof:
            assert inbox.read() == []


def test_no_wait() -> None:
    with pair() as (a, b):
        outbox, inbox = Outbox(a), Inbox(b)
        assert inbox.read() == []
        assert inbox.drained
        assert not inbox.eof
        assert outbox.flush()
        outbox.post(1, [b"x" * (10 << 20)])
        assert not outbox.flush()
        assert outbox.pending
        assert inbox.read() == []  # the first part of it
        assert not outbox.flush()


def test_body_is_received_in_place() -> None:
    with pair() as (a, b):
        outbox, inbox = Outbox(a), Inbox(b)
        body = os.urandom(3 << 20)
        outbox.post(1, [b"ab", memoryview(body), memoryview(array.array("i", [1, 2]))])
        reader = threading.Thread(target=outbox.flush_blocking)
        reader.start()
        (frame,) = inbox.read_blocking()
        reader.join()
        assert isinstance(frame.body, memoryview)
        assert not frame.body.readonly
        assert bytes(frame.body) == b"ab" + body + array.array("i", [1, 2]).tobytes()


def test_read_blocking_on_a_non_blocking_socket() -> None:
    with pair() as (a, b):
        a.setblocking(False)
        b.setblocking(False)
        outbox, inbox = Outbox(a), Inbox(b)
        outbox.post(7, [b"x"])
        timer = threading.Timer(0.05, outbox.flush)
        timer.start()
        (frame,) = inbox.read_blocking()
        timer.join()
        assert (frame.kind, frame.body) == (7, b"x")
        a.close()
        assert inbox.read_blocking() == []
        assert inbox.eof


def test_what_arrived_before_the_end_is_handed_out_first() -> None:
    with pair() as (a, b):
        outbox, inbox = Outbox(a), Inbox(b)
        for number in range(100):
            outbox.post(number, [b"x" * number])
        assert outbox.flush()
        a.sendall(b"half a header"[:5])
        a.close()
        frames = inbox.drain()
        assert [frame.kind for frame in frames] == list(range(100))
        assert inbox.drain() == []
        assert inbox.eof


@pytest.mark.parametrize("fds", [0, 1])
def test_writer_dies_in_the_middle_of_a_big_frame(fds: int) -> None:
    with pair() as (a, b), open(os.devnull) as null:
        outbox, inbox = Outbox(a), Inbox(b)
        outbox.post(1, [b"x"])
        outbox.post(2, [b"x" * (1 << 22)], [null.fileno()] * fds)
        assert not outbox.flush()
        a.close()
        assert [frame.kind for frame in inbox.drain()] == [1]
        assert inbox.eof  # and the descriptor is closed: see the fixture for what is left behind


def test_reader_gone() -> None:
    with pair() as (a, b):
        outbox = Outbox(a)
        sent = []
        outbox.post(1, [b"x" * (1 << 22)], on_sent=lambda: sent.append(1))
        assert not outbox.flush()
        outbox.post(2, [b"x"], on_sent=lambda: sent.append(2))
        b.close()
        assert outbox.flush()
        assert outbox.broken
        assert sent == [1, 2]
        outbox.post(3, on_sent=lambda: sent.append(3))
        assert outbox.flush()
        assert sent == [1, 2, 3]


def test_connection_reset() -> None:
    """The reader closes with bytes unread: Linux answers with ECONNRESET, once."""
    with pair() as (a, b):
        Outbox(b).post(1)
        b.sendall(b"12345")
        a.sendall(b"unread")
        b.close()
        inbox = Inbox(a)
        inbox.drain()
        assert inbox.eof


def test_flush_blocking_ends_when_the_reader_goes() -> None:
    with pair() as (a, b):
        outbox = Outbox(a)
        outbox.post(1, [b"x" * (1 << 22)])
        timer = threading.Timer(0.05, b.close)
        timer.start()
        outbox.flush_blocking()
        timer.join()
        assert outbox.broken


def test_limits() -> None:
    with pair() as (a, b), open(os.devnull) as null:
        outbox, inbox = Outbox(a), Inbox(b)
        with pytest.raises(ValueError, match="descriptors"):
            outbox.post(1, fds=[0] * (MAX_FDS + 1))
        outbox.post(1, [bytes([n % 256]) for n in range(20_000)], [null.fileno()] * MAX_FDS)
        outbox.post(2, [bytes(1) for _ in range(9000)])
        outbox.flush_blocking()
        first, second = inbox.drain()
        assert first.body == bytes(n % 256 for n in range(20_000))
        assert len(second.body) == 9000
        assert len(set(first.fds)) == MAX_FDS
        for fd in first.fds:
            os.close(fd)


@pytest.mark.parametrize("room", [0, 1])
def test_no_descriptors_left_to_receive(room: int) -> None:
    """The frame arrives, without its descriptors, and those that did arrive are closed."""
    with pair() as (a, b), open(os.devnull) as null:
        outbox, inbox = Outbox(a), Inbox(b)
        for kind, count in [(1, 0), (2, 2), (3, 1), (4, 0)]:
            outbox.post(kind, [b"body"], [null.fileno()] * count)
            assert outbox.flush()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = os.dup(a.fileno())
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + room, hard))
        try:
            frames_ = inbox.drain()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert [frame.kind for frame in frames_] == [1, 2, 3, 4]
        assert [frame.lost_fds for frame in frames_] == [False, True, room == 0, False]
        for frame in frames_:
            assert frame.body == b"body"
            for fd in frame.fds:
                os.close(fd)
        outbox.post(5, [], [null.fileno()])
        outbox.flush()
        (frame,) = inbox.drain()
        os.close(*frame.fds)


class LyingLock:
    """Another thread posts, and fails to get the lock, just when the holder is about to let go."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self.held = False
        self.done = False

    def acquire(self, blocking: bool = True) -> bool:
        if self.held:
            return False
        self.held = True
        return True

    def release(self) -> None:
        if not self.done:
            self.done = True
            self.outbox.post(2, [b"late"])
            assert self.outbox.flush()  # "the other thread will do it"
        self.held = False


def test_no_lost_wake_up() -> None:
    with pair() as (a, b):
        outbox, inbox = Outbox(a), Inbox(b)
        outbox._writing = LyingLock(outbox)  # type: ignore[assignment]
        outbox.post(1, [b"first"])
        assert outbox.flush()
        assert [frame.body for frame in inbox.drain()] == [b"first", b"late"]


def test_flushing_from_on_sent() -> None:
    with pair() as (a, b):
        outbox, inbox = Outbox(a), Inbox(b)

        def again() -> None:
            outbox.post(2)
            assert outbox.flush()

        outbox.post(1, on_sent=again)
        assert outbox.flush()
        assert [frame.kind for frame in inbox.drain()] == [1, 2]


@pytest.mark.parametrize("run", range(20))
def test_many_threads_post_and_flush(run: int) -> None:
    """Every thread's frames arrive in its order, none lost, also while the socket is full."""
    threads, each = 6, 300
    with pair() as (a, b):
        a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        outbox, inbox = Outbox(a), Inbox(b)
        rng = random.Random(run)
        lengths = [rng.choice([0, 10, 3000, 20_000]) for _ in range(each)]

        def work(number: int) -> None:
            for count, length in enumerate(lengths):
                outbox.post(number, [count.to_bytes(4, "little"), bytes(length)])
                if count % 7 == 0:
                    outbox.flush_blocking()
                else:
                    outbox.flush()
            outbox.flush_blocking()

        workers = [threading.Thread(target=work, args=(n,)) for n in range(threads)]
        for worker in workers:
            worker.start()
        got: dict[int, list[int]] = {n: [] for n in range(threads)}
        total = 0
        while total < threads * each:
            for frame in inbox.read_blocking():
                assert len(frame.body) == 4 + lengths[len(got[frame.kind])]
                got[frame.kind].append(int.from_bytes(frame.body[:4], "little"))
                total += 1
        for worker in workers:
            worker.join()
        assert all(order == list(range(each)) for order in got.values())
        assert not outbox.pending


def test_receive_buffer_is_not_kept_alive_by_small_bodies() -> None:
    with pair() as (a, b):
        outbox, inbox = Outbox(a), Inbox(b)
        outbox.post(1, [b"x" * 100])
        outbox.flush()
        (frame,) = inbox.read()
        assert type(frame.body) is bytes


@pytest.mark.slow
def test_more_than_two_gigabytes() -> None:
    size = 5 << 29  # 2.5 GiB
    with pair() as (a, b):
        outbox, inbox = Outbox(a), Inbox(b)
        body = bytearray(size)
        body[-3:] = b"end"
        outbox.post(9, [memoryview(body)])
        writer = threading.Thread(target=outbox.flush_blocking)
        writer.start()
        (frame,) = inbox.read_blocking()
        writer.join()
        assert len(frame.body) == size
        assert bytes(frame.body[-3:]) == b"end"


def test_header_holds_64_bits() -> None:
    assert frames._HEADER.unpack(frames._HEADER.pack(1 << 40, 1, 2, 3)) == (1 << 40, 1, 2, 3)


@pytest.mark.parametrize("junk", [b"a line of text of the user's\n", bytes(100)])
def test_nonsense(junk: bytes) -> None:
    """The frames before it are good; nothing behind it can be."""
    with pair() as (a, b):
        outbox, inbox = Outbox(a), Inbox(b)
        outbox.post(1, [b"good"])
        outbox.flush()
        a.sendall(junk)
        outbox.post(2, [b"lost"])
        outbox.flush()
        assert [frame.kind for frame in inbox.drain()] == [1]
        assert inbox.eof
        assert isinstance(inbox.error, ValueError)
        assert inbox.drain() == inbox.read() == inbox.read_blocking() == []


def test_no_memory_for_a_frame() -> None:
    with pair() as (a, b):
        inbox = Inbox(b)
        a.sendall(frames._HEADER.pack(1 << 62, 1, 0, frames._SIGN))
        assert inbox.read() == []
        assert inbox.eof
        assert isinstance(inbox.error, (MemoryError, OverflowError))
