"""Shared memory: copied once, mapped, given back, and gone when anybody dies."""

from __future__ import annotations

import array
import contextlib
import errno
import gc
import os
import pickle
import resource
import signal
import socket
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightwork.wire import segments
from lightwork.wire.frames import Inbox, Outbox
from lightwork.wire.pickling import pack, unpack
from lightwork.wire.segments import Arena, Segment, map_segment


@pytest.fixture(params=["memory", "file"])
def arena(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Arena]:
    made = Arena(directory=str(tmp_path) if request.param == "file" else None)
    yield made
    made.close()
    made.close()
    assert list(tmp_path.iterdir()) == []


def mapped(segment: Segment, on_free: Callable[[], None] = lambda: None) -> list[memoryview]:
    return map_segment(os.dup(segment.fd), segment.size, segment.spans, on_free)


def mappings() -> int:
    """How many mappings of our segments this process has."""
    maps = Path("/proc/self/maps").read_text()
    return maps.count("memfd:lightwork") + maps.count("lightwork-")


def test_round_trip(arena: Arena) -> None:
    fortran: Any = np.asfortranarray(np.ones((30, 40)))
    buffers: list[Any] = [
        b"abc" * 50_000,
        bytearray(b"x"),
        b"",
        memoryview(array.array("d", [1.0, 2.0])),
        pickle.PickleBuffer(b"picklebuffer"),
        np.arange(1000),
        np.ones((30, 40)),
        pickle.PickleBuffer(fortran),
    ]
    segment = arena.write(buffers)
    views = mapped(segment)
    for buffer, view in zip(buffers, views, strict=True):
        assert bytes(view) == memoryview(buffer).tobytes()
        assert not view.readonly
    address = np.frombuffer(views[0], np.uint8).ctypes.data
    assert address % segments.ALIGNMENT == 0
    assert all(offset % segments.ALIGNMENT == 0 for offset, _ in segment.spans)


def test_the_reader_writes_on_its_own_copy(arena: Arena) -> None:
    segment = arena.write([bytes(200_000)])
    one, two = mapped(segment)[0], mapped(segment)[0]
    one[:3] = b"abc"
    assert bytes(two[:3]) == bytes(3)
    assert os.pread(segment.fd, 3, 0) == bytes(3)


def test_freed_when_the_last_view_is_gone(arena: Arena) -> None:
    gc.collect()  # what earlier tests left
    before, watched = mappings(), set(segments._watched)
    freed: list[str] = []
    segment = arena.write([np.arange(50_000), np.ones(50_000)])
    views = mapped(segment, lambda: freed.append("free"))
    first = np.frombuffer(views[0], int)
    part = first[100:200].reshape(10, 10)
    del views, first
    assert freed == []
    assert part[0, 0] == 100
    del part
    assert freed == ["free"]
    assert mappings() == before
    assert set(segments._watched) <= watched


def test_freed_by_the_garbage_collector() -> None:
    """In the middle of any code; here while a lock is held that the callback must not want."""
    arena = Arena()
    freed: deque[int] = deque()

    class Node:
        pass

    gc.disable()
    try:
        for number in range(10):
            node = Node()
            node.me = node  # type: ignore[attr-defined]
            node.view = mapped(arena.write([bytes(1000)]), lambda n=number: freed.append(n))  # type: ignore[attr-defined, misc]
        del node
        assert len(freed) == 0
        with arena._lock:
            gc.collect()
        assert sorted(freed) == list(range(10))
    finally:
        gc.enable()
        arena.close()


def test_recycling(arena: Arena) -> None:
    first = arena.write([bytes(1 << 20)])
    arena.free(first.id)
    arena.free(first.id)
    arena.free(12345)
    second = arena.write([b"x" * ((1 << 20) - 5000)])
    assert second.fd == first.fd
    assert second.id != first.id
    # What is leased is not touched, and what is far too big is left alone.
    third = arena.write([b"y" * (1 << 20)])
    assert third.fd != second.fd
    assert bytes(mapped(second)[0][:2]) == b"xx"
    arena.free(third.id)
    fourth = arena.write([b"small"])
    assert fourth.fd != third.fd
    counts = arena.statistics()
    assert (counts.fresh, counts.recycled, counts.leased, counts.spare) == (3, 1, 2, 1)


def test_best_fit() -> None:
    arena = Arena()
    made = [arena.write([bytes(size)]) for size in (900_000, 500_000, 300_000)]
    for segment in made:
        arena.free(segment.id)
    assert arena.write([bytes(400_000)]).fd == made[1].fd
    arena.close()


def test_spare_memory_is_bounded() -> None:
    arena = Arena(spare_segments=3, spare_bytes=10_000_000)
    leases = [arena.write([bytes(1_000_000)]) for _ in range(10)]
    for lease in leases:
        arena.free(lease.id)
    counts = arena.statistics()
    assert (counts.leased, counts.spare) == (0, 3)
    big = arena.write([bytes(11_000_000)])
    arena.free(big.id)
    assert arena.statistics().spare_bytes <= 10_000_000
    for fd in {lease.fd for lease in leases[:7]}:
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(fd)
    arena.close()


def test_memory_stays_flat() -> None:
    arena = Arena()
    freed: deque[int] = deque()
    data = np.ones(1 << 17)
    for _ in range(300):
        segment = arena.write([data])
        array_ = np.frombuffer(mapped(segment, lambda n=segment.id: freed.append(n))[0])  # type: ignore[misc]
        array_ += 1
        del array_
        while freed:
            arena.free(freed.popleft())
    counts = arena.statistics()
    assert (counts.fresh, counts.leased, counts.spare) == (1, 0, 1)
    arena.close()


def test_mappings_take_no_descriptors() -> None:
    """A caller may keep ten thousand arrays, and still open files."""
    arena = Arena()
    segment = arena.write([b"x" * 100_000])
    before = len(os.listdir("/proc/self/fd"))
    kept = [mapped(segment) for _ in range(500)]
    assert len(os.listdir("/proc/self/fd")) == before
    assert bytes(kept[77][0][5:6]) == b"x"
    arena.close()


def test_after_close(arena: Arena) -> None:
    segment = arena.write([b"still there"])
    (view,) = mapped(segment)
    arena.close()
    assert bytes(view) == b"still there"
    arena.free(segment.id)
    with pytest.raises(OSError, match="closed") as caught:
        arena.write([b"x"])
    assert caught.value.errno == errno.EBADF


def test_descriptors_exhausted(arena: Arena) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            arena.write([b"x"])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert arena.statistics().leased == 0
    arena.write([b"x"])


@pytest.mark.parametrize("memory", [True, False])
def test_full(memory: bool, tmp_path: Path) -> None:
    """A limit on the size of a file is like a full disk to both kinds."""
    arena = Arena(directory=None if memory else str(tmp_path))
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            arena.write([bytes(2 << 20)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, old)
    assert arena.statistics().leased == 0
    assert len(os.listdir("/proc/self/fd")) == before
    arena.close()


def test_full_in_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Space runs out after a part was written: the write fails, and nothing is kept."""
    real = os.pwrite
    calls = []

    def pwrite(fd: int, data: Any, offset: int) -> int:
        calls.append(offset)
        if len(calls) > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, memoryview(data)[:1000], offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    arena = Arena()
    with pytest.raises(OSError, match="No space"):
        arena.write([bytes(100_000)])
    assert arena.statistics()[:4] == (0, 0, 0, 0)
    calls.clear()
    assert bytes(mapped(arena.write([b"x" * 2000]))[0]) == b"x" * 2000
    arena.close()


def test_cannot_map(arena: Arena) -> None:
    """The descriptor is closed all the same."""
    segment = arena.write([b"x"])
    fd = os.dup(segment.fd)
    with pytest.raises((OSError, ValueError, OverflowError)):
        map_segment(fd, 1 << 60, segment.spans, lambda: None)
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)


def test_without_the_c_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "_native", lambda: None)
    arena = Arena()
    freed: list[int] = []
    views = mapped(arena.write([b"abc"]), lambda: freed.append(1))
    assert bytes(views[0]) == b"abc"
    views.clear()
    assert freed == [1]
    arena.close()


def test_many_threads() -> None:
    arena = Arena()
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for count in range(100):
                body = bytes([number, count]) * 5000
                segment = arena.write([body])
                assert bytes(mapped(segment)[0]) == body
                arena.free(segment.id)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert arena.statistics().leased == 0
    arena.close()


# -- two processes -------------------------------------------------------------------------------


@contextlib.contextmanager
def forked(child: Callable[[socket.socket], None]) -> Iterator[tuple[int, socket.socket]]:
    """A child process that runs `child` with one end of a socket, and the other end."""
    ours, theirs = socket.socketpair()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the timer of the test's time limit
        pid = os.fork()
    if pid == 0:
        try:
            ours.close()
            child(theirs)
            os._exit(0)
        finally:
            os._exit(1)
    theirs.close()
    try:
        with ours:
            yield pid, ours
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def send(outbox: Outbox, arena: Arena, obj: Any) -> Segment:
    packed = pack(obj)
    segment = arena.write(packed.buffers)
    outbox.post(1, [pickle.dumps((packed.data, segment.size, segment.spans))], [segment.fd])
    outbox.flush_blocking()
    return segment


def receive(inbox: Inbox, on_free: Callable[[], None] = lambda: None) -> Any:
    (frame,) = inbox.read_blocking()
    data, size, spans = pickle.loads(frame.body)
    return unpack(data, map_segment(frame.fds[0], size, spans, on_free))


def test_arrays_there_and_back() -> None:
    def child(sock: socket.socket) -> None:
        outbox, inbox, arena = Outbox(sock), Inbox(sock), Arena()
        for _ in range(20):
            ((array_, text),) = (receive(inbox),)
            array_ *= 2
            send(outbox, arena, (array_, text))
            del array_

    original = np.arange(100_000.0)
    with forked(child) as (_, sock):
        outbox, inbox, arena = Outbox(sock), Inbox(sock), Arena()
        for _ in range(20):
            segment = send(outbox, arena, (original, "text"))
            doubled, text = receive(inbox)
            assert text == "text"
            assert doubled.flags.writeable
            assert (doubled == 2 * original).all()
            assert original[1] == 1.0
            doubled[:] = 0
            arena.free(segment.id)
        assert arena.statistics().fresh == 1
        arena.close()


@pytest.mark.parametrize("when", ["before it reads", "while it holds", "stopped"])
def test_reader_killed(when: str) -> None:
    def child(sock: socket.socket) -> None:
        if when == "while it holds":
            held = receive(Inbox(sock))
            held[0] = 1
            sock.send(b"x")
        elif when == "before it reads":
            sock.send(b"x")
        time.sleep(60)

    with forked(child) as (pid, sock):
        arena = Arena()
        data = np.ones(4 << 20)
        segment = send(Outbox(sock), arena, data)
        pages = os.fstat(segment.fd)
        if when == "stopped":
            os.kill(pid, signal.SIGSTOP)
        else:
            assert sock.recv(1) == b"x"
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        arena.free(segment.id)  # what the backend does with the leases of the dead
        again = arena.write([data])
        assert again.fd == segment.fd
        arena.close()
    assert holders(pages) == []


def test_sender_killed() -> None:
    """What it had sent remains valid, even if it was still in the socket."""

    def child(sock: socket.socket) -> None:
        outbox, arena = Outbox(sock), Arena()
        send(outbox, arena, np.full(1 << 20, 3.0))
        send(outbox, arena, np.full(1 << 20, 4.0))
        os.kill(os.getpid(), signal.SIGKILL)

    before = mappings()
    with forked(child) as (pid, sock):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        frames = Inbox(sock).drain()
        assert len(frames) == 2
        for frame, expected in zip(frames, (3.0, 4.0)):
            data, size, spans = pickle.loads(frame.body)
            array_ = unpack(data, map_segment(frame.fds[0], size, spans, lambda: None))
            assert (array_ == expected).all()
            array_[:] = 0
        del array_
    assert mappings() == before


def holders(pages: os.stat_result) -> list[str]:
    """Who on this machine holds these pages, by a descriptor or a mapping."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            found += [
                str(fd) for fd in (process / "fd").iterdir() if os.path.samestat(fd.stat(), pages)
            ]
        with contextlib.suppress(OSError):
            found += [
                f"{process}: {line}"
                for line in (process / "maps").read_text().splitlines()
                if f" {pages.st_ino} " in line and "memfd" in line
            ]
    return found


@pytest.mark.slow
def test_more_than_two_gigabytes() -> None:
    size = 5 << 29  # 2.5 GiB
    data = np.zeros(size, np.uint8)
    data[-1] = 7
    packed = pack((data,))
    arena = Arena()
    segment = arena.write(packed.buffers)
    (copy,) = unpack(packed.data, mapped(segment))
    assert copy.nbytes == size
    assert copy[-1] == 7
    copy[0] = 1
    assert data[0] == 0
    arena.free(segment.id)
    assert arena.statistics().spare == 0  # more than is kept
    arena.close()
