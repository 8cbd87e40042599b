"""A worker in miniature: a second process that speaks frames, with a fresh, empty ``__main__``.

with Peer() as peer:
    assert peer.call(f, 3) == 9
"""

from __future__ import annotations

import pickle
import socket
import subprocess
import sys
import types
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import lightwork
from lightwork.wire.frames import Frame, Inbox, Outbox
from lightwork.wire.functions import FunctionCache, FunctionTable, Shipped
from lightwork.wire.pickling import pack, unpack
from lightwork.wire.remote import pack_error, unpack_error
from lightwork.wire.segments import Arena, map_segment

ROOT = Path(__file__).parents[2]
SOURCE = Path(lightwork.__file__).parents[1]

ADD, CALL, VALUE, ERROR, FREE = range(5)

_Layout = tuple[int, int, tuple[tuple[int, int], ...]]


class Peer:
    """The parent's side; for one thread."""

    def __init__(self, *, cwd: Path | str | None = None, path: tuple[str, ...] = ()) -> None:
        self.arena = Arena()
        self.table = FunctionTable()
        self._known: set[int] = set()
        self._frames: deque[Frame] = deque()
        self.freed: deque[int] = deque()  # mappings of results that are gone
        ours, theirs = socket.socketpair()
        code = f"from tests.wire.peer import serve; serve({theirs.fileno()})"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            pass_fds=[theirs.fileno()],
            cwd=cwd,
            env={"PYTHONPATH": ":".join((*path, str(SOURCE), str(ROOT)))},
        )
        theirs.close()
        self.socket = ours
        self.outbox, self.inbox = Outbox(ours), Inbox(ours)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.outbox.close()
        self.inbox.close()
        self.socket.close()
        self.arena.close()
        self.process.wait(20)

    def send(self, shipped: Shipped, *args: Any, **kwargs: Any) -> None:
        """Ask for a call of a function as it was shipped."""
        if shipped.key not in self._known:
            self._known.add(shipped.key)
            self.outbox.post(ADD, [pickle.dumps((shipped.key, shipped.data))])
        packed = pack((args, kwargs), what="the arguments")
        fds: list[int] = []
        layout = None
        if packed.buffers:
            segment = self.arena.write(packed.buffers)
            layout = (segment.id, segment.size, segment.spans)
            fds = [segment.fd]
        self.outbox.post(CALL, [pickle.dumps((shipped.key, packed.data, layout))], fds)
        self.outbox.flush_blocking()

    def receive(self) -> Any:
        """The next result, or raise the next error."""
        while True:
            if not self._frames:
                self._frames += self.inbox.read_blocking()
                if not self._frames:
                    raise EOFError
            frame = self._frames.popleft()
            if frame.kind == FREE:
                self.arena.free(pickle.loads(frame.body))
                continue
            if frame.kind == ERROR:
                raise unpack_error(frame.body)
            data, layout = pickle.loads(frame.body)
            return unpack(data, _map(layout, frame, self.freed))

    def call(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run ``fn(*args, **kwargs)`` there."""
        self.send(self.table.ship(fn), *args, **kwargs)
        return self.receive()


def _map(layout: _Layout | None, frame: Frame, freed: deque[int]) -> list[memoryview]:
    if layout is None:
        return []
    number, size, spans = layout
    return map_segment(frame.fds[0], size, spans, lambda: freed.append(number))


def serve(fd: int) -> None:
    """The worker's side: runs until the parent closes its end."""
    sys.modules["__main__"] = types.ModuleType("__main__")
    with socket.socket(fileno=fd) as sock:
        _Server(sock).run()


class _Server:
    def __init__(self, sock: socket.socket) -> None:
        self._outbox, self._inbox = Outbox(sock), Inbox(sock)
        self._functions = FunctionCache()
        self._arena = Arena()
        self._freed: deque[int] = deque()

    def run(self) -> None:
        while frames := self._inbox.read_blocking():
            for frame in frames:
                if frame.kind == ADD:
                    self._functions.add(*pickle.loads(frame.body))
                else:
                    self._call(frame)
            del frame, frames
        self._arena.close()

    def _call(self, frame: Frame) -> None:
        try:
            body, fds = self._value(frame)
            self._outbox.post(VALUE, [body], fds)
        except BaseException as error:
            self._outbox.post(ERROR, [pack_error(error)])
        while self._freed:
            self._outbox.post(FREE, [pickle.dumps(self._freed.popleft())])
        self._outbox.flush_blocking()

    def _value(self, frame: Frame) -> tuple[bytes, list[int]]:
        key, data, layout = pickle.loads(frame.body)
        function = self._functions.get(key)
        args, kwargs = unpack(data, _map(layout, frame, self._freed))
        result = function(*args, **kwargs)
        packed = pack(result, what="the result", home=True)
        if not packed.buffers:
            return pickle.dumps((packed.data, None)), []
        segment = self._arena.write(packed.buffers)
        layout = (segment.id, segment.size, segment.spans)
        return pickle.dumps((packed.data, layout)), [segment.fd]
