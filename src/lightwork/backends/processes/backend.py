"""Worker processes behind ``backends.base.Backend``.

Theory of operation. Each worker has a channel (channel.py) of its own; nothing is shared between
workers. Locked methods write into the channels' books and note which channels have something to
write; `flush` writes, in whichever thread the event happened. One thread, the engine's pump, waits
for everything that can come by itself: answers, deaths, a socket that has room again. Nothing
polls; there is one exception, asked for by ``memory_limit``: a look at the memory of busy workers
now and then.

How a worker ends is learnt from its status handle alone, not from its socket: a process that the
user's code forked may keep a socket open, and a task may close it. A socket that ends before its
process does is given a second, then the process is ended too.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from ...core.events import Running
from ...observe.forward import Forwarder
from ...wire.functions import FunctionTable
from ...wire.pickling import pack
from ...wire.remote import unpack_error
from ...wire.segments import Arena
from ..base import Death, Parcel, Sink, WorkerOptions
from . import calls, death, limits, page
from .channel import Channel, News
from .launch import WORKER, Exit, Launcher, Spec, launcher, parent_only

__all__ = ["ProcessBackend"]

GRACE = 1.0
"""Seconds that a worker has to end when its socket has; and to be gone after that."""

ANSWER = 5.0
"""Seconds that an idle worker has to say that it leaves, when it is told to."""

LEAVING = 30.0
"""Seconds that it then has for its exit handlers, and threads that are not daemons."""

SAMPLE = 0.03
"""Seconds between two looks at the memory of busy workers, if there is a limit to it."""

_MOST_MODULES = 64


class ProcessBackend:
    """See ``backends.base.Backend``."""

    kind = "processes"
    can_kill = True
    has_pump = True
    keeps_time = True

    def open(self, sink: Sink, options: WorkerOptions) -> None:
        """See Backend. Raises CannotPickle when the initializer cannot travel."""
        self._sink = sink
        self._options = options
        self._table = FunctionTable()
        self._arena = Arena()
        self._modules: dict[str, None] = {}
        self._env: dict[str, str] | None = None
        self._initializer: bytes | None = None
        self._initargs: tuple[bytes, list[bytes]] | None = None
        if options.initializer is not None:
            shipped = self._table.ship(options.initializer)
            self._note_modules(shipped.modules)
            packed = pack(options.initargs, what="initargs")
            self._initializer = shipped.data
            self._initargs = packed.data, [bytes(buffer.raw()) for buffer in packed.buffers]
        self._launcher: Launcher = launcher(options.start_method)
        self._logs: Forwarder | None = None
        if options.logs:
            self._logs = Forwarder(
                options.name,
                options.capture,
                forked=options.start_method == "fork",
                opened=parent_only.add,
                closed=parent_only.discard,
            )
        self._channels: dict[int, Channel] = {}
        self._oom_kills: dict[int, int | None] = {}
        self._dirty: deque[Channel] = deque()  # have something to write
        self._starting: deque[Channel] = deque()
        self._arrivals: deque[Channel] = deque()  # for the pump to watch
        self._blocked: deque[Channel] = deque()  # for the pump to watch until writable
        self._deadlines: dict[Channel, float] = {}  # when what ought to have ended is ended
        self._next_sample = 0.0
        self._selector: selectors.BaseSelector | None = None
        self._alarm: _Alarm | None = None
        self._setup = threading.Lock()
        self._closed = False

    # -- in the submitter's thread ---------------------------------------------------------------

    def prepare(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> calls.Single:
        """See Backend."""
        call = calls.single(self._table, fn, args, kwargs)
        self._note_modules(call.function.modules)
        return call

    def prepare_chunk(
        self, fn: Callable[..., Any], items: list[Any], star: bool
    ) -> calls.PlainChunk | calls.Chunk:
        """See Backend."""
        call = calls.chunk(self._table, fn, items, star)
        self._note_modules(call.function.modules)
        return call

    def _note_modules(self, modules: Sequence[str]) -> None:
        for module in modules:
            if module not in self._modules and len(self._modules) < _MOST_MODULES:
                self._modules[module] = None

    # -- locked ----------------------------------------------------------------------------------

    def start(self, worker: int) -> None:
        """See Backend."""
        channel = self._channels[worker] = Channel(worker, self._arena, self.wake)
        channel.apart = self._options.apart
        self._starting.append(channel)

    def send(self, worker: int, parcels: Sequence[Parcel]) -> None:
        """See Backend."""
        channel = self._channels.get(worker)
        if channel is not None:
            channel.send(parcels)
            self._dirty.append(channel)

    def take_back(self, worker: int, task: int, offset: int) -> list[tuple[int, int, int]]:
        """See Backend."""
        channel = self._channels.get(worker)
        if channel is None:
            return []
        taken = channel.take_back(task, offset)
        self._dirty.append(channel)
        return taken

    def inspect(self, worker: int) -> Running | None:
        """See Backend."""
        channel = self._channels.get(worker)
        return channel.inspect() if channel is not None else None

    def retire(self, worker: int) -> None:
        """See Backend."""
        channel = self._channels.get(worker)
        if channel is not None:
            channel.retire()
            self._deadlines[channel] = time.monotonic() + ANSWER
            self._dirty.append(channel)
            self.wake()  # for the pump to mind the deadline

    def kill(self, worker: int, how: str) -> None:
        """See Backend."""
        channel = self._channels.get(worker)
        if channel is not None:
            channel.kill(how)

    # -- free ------------------------------------------------------------------------------------

    def flush(self) -> None:
        """See Backend."""
        while self._starting:
            with contextlib.suppress(IndexError):
                self._launch(self._starting.popleft())
        while True:
            try:
                channel = self._dirty.popleft()
            except IndexError:
                return
            try:
                self._flush(channel)
            except BaseException:
                self.wake()  # Ctrl-C: the pump looks at all of them
                raise

    def _flush(self, channel: Channel) -> None:
        if channel.flush():
            self._blocked.append(channel)
            self.wake()

    def wake(self) -> None:
        """See Backend. Also safe in finalizers."""
        alarm = self._alarm
        if alarm is not None:
            alarm.ring()

    def close(self) -> None:
        """See Backend."""
        with self._setup:
            if self._closed:
                return
            self._closed = True
            selector, self._selector = self._selector, None
            alarm, self._alarm = self._alarm, None
        for channel in list(self._channels.values()):
            channel.kill("killed")
            channel.close()
        self._channels.clear()
        if selector is not None and alarm is not None:
            parent_only.difference_update(_descriptors(alarm, selector))
            selector.close()
        if self._logs is not None:
            self._logs.close()
        self._arena.close()
        self._launcher.close()

    def pid_of(self, worker: int) -> int | None:
        """The process of a worker; None if it is not known."""
        channel = self._channels.get(worker)
        return channel.child.pid if channel is not None and channel.child is not None else None

    def inside(self) -> bool:
        """See Backend. Tasks run elsewhere; the pump thread is the engine's."""
        return False

    def join(self) -> None:
        """See Backend. There are no threads of ours."""

    # -- starting --------------------------------------------------------------------------------

    def _launch(self, channel: Channel) -> None:
        """Start the process of a worker. A refusal of the system's is told at once."""
        number = channel.worker
        if channel.kill_how is not None or channel.retiring:
            self._channels.pop(number, None)
            self._sink.died(number, Death(channel.kill_how or "retired", None))
            return
        self._oom_kills[number] = limits.oom_kill_count()
        try:
            self._prepare_waiting()
            self._spawn(channel)
        except BaseException as error:
            self._channels.pop(number, None)
            self._oom_kills.pop(number, None)
            refused = isinstance(error, OSError) or not isinstance(error, Exception)
            self._sink.start_failed(number, error, fatal=not refused)
            if not isinstance(error, Exception):
                raise  # Ctrl-C in the thread that starts it: the next try is another's
            return
        self._arrivals.append(channel)
        self.wake()

    def _spawn(self, channel: Channel) -> None:
        with contextlib.ExitStack() as cleanup:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            cleanup.callback(theirs.close)
            failing = cleanup.enter_context(contextlib.ExitStack())
            failing.callback(ours.close)
            fd = page.create()
            cleanup.callback(os.close, fd)
            shared = page.Page(fd)
            failing.callback(shared.close)
            fds = [theirs.fileno(), fd]
            log = self._logs.open(channel.worker) if self._logs is not None else None
            if log is not None:
                cleanup.callback(os.close, log)
                fds.append(log)
            child = self._launcher.launch(self._spec(channel.worker, tuple(fds)))
            failing.pop_all()
        channel.attach(ours, shared, child)

    def _spec(self, worker: int, fds: tuple[int, ...]) -> Spec:
        options = self._options
        if self._env is None:
            self._env = limits.share_env(options.max_workers, options.native_threads)
        threads = options.native_threads or int(self._env[limits.CPU_SHARE])
        limit = options.memory_limit
        # The fields of worker.Config; here nobody else needs that module.
        watched = None if self._logs is None or len(fds) < 3 else self._logs.wishes()
        config = marshal.dumps((worker, self._initializer, self._initargs, limit, threads, watched))
        return Spec(WORKER, fds, config, tuple(self._modules), self._env)

    def _prepare_waiting(self) -> None:
        """Make what the pump waits on. Raises OSError where descriptors are used up."""
        with self._setup:
            if self._selector is None and not self._closed:
                alarm = _Alarm()
                selector = selectors.DefaultSelector()
                parent_only.update(_descriptors(alarm, selector))
                selector.register(alarm.fileno(), selectors.EVENT_READ, None)
                self._alarm, self._selector = alarm, selector

    # -- the pump --------------------------------------------------------------------------------

    def wait(self, timeout: float | None) -> None:
        """See Backend."""
        self._watch()
        selector = self._selector
        if selector is None:
            # No worker yet: someone is about to start the first, and then rings the alarm.
            try:
                self._prepare_waiting()
            except OSError:
                time.sleep(0.05 if timeout is None else min(timeout, 0.05))
            return
        for key, events in selector.select(self._patience(timeout)):
            if key.data is None:
                self._alarmed()
                continue
            channel, child = key.data
            if child:
                self._look_at(channel)
            elif channel.worker in self._channels:
                if events & selectors.EVENT_WRITE:
                    self._write(channel)
                if events & selectors.EVENT_READ:
                    self._read(channel)
        self._overdue()
        if self._options.memory_limit is not None:
            self._sample(self._options.memory_limit)

    def _watch(self) -> None:
        """Watch what has been added since."""
        selector = self._selector
        if selector is None:
            return
        while self._arrivals:
            channel = self._arrivals.popleft()
            assert channel.sock is not None
            assert channel.child is not None
            selector.register(channel.sock, selectors.EVENT_READ, (channel, False))
            selector.register(channel.child, selectors.EVENT_READ, (channel, True))
        while self._blocked:
            channel = self._blocked.popleft()
            self._listen(channel, selectors.EVENT_READ | selectors.EVENT_WRITE)

    def _listen(self, channel: Channel, events: int) -> None:
        selector = self._selector
        if selector is not None and channel.sock is not None:
            with contextlib.suppress(KeyError, ValueError):
                selector.modify(channel.sock, events, (channel, False))

    def _alarmed(self) -> None:
        if self._alarm is not None:
            self._alarm.clear()
        # Perhaps memory of a worker's was freed, which it has to be told.
        for channel in list(self._channels.values()):
            self._flush(channel)

    def _patience(self, timeout: float | None) -> float | None:
        """How long to wait at most."""
        ends = list(self._deadlines.values())
        if self._options.memory_limit is not None and self._any_busy():
            ends.append(self._next_sample)
        if not ends:
            return timeout
        left = max(0.0, min(ends) - time.monotonic())
        return left if timeout is None else min(timeout, left)

    def _any_busy(self) -> bool:
        return any(channel.busy for channel in list(self._channels.values()))

    def _write(self, channel: Channel) -> None:
        if not channel.writable():
            self._listen(channel, selectors.EVENT_READ)

    def _read(self, channel: Channel) -> None:
        self._report(channel, channel.receive())
        if channel.eof:
            selector = self._selector
            if selector is not None and channel.sock is not None:
                selector.unregister(channel.sock)
            self._deadlines.setdefault(channel, time.monotonic() + GRACE)
        else:
            self._flush(channel)

    def _report(self, channel: Channel, news: News) -> None:
        if news.ready:
            channel.ready = True
            self._sink.ready(channel.worker)
        if news.init_error is not None:
            # Told when the process has ended: then nothing of it is left behind.
            channel.init_error = news.init_error
            self._deadlines[channel] = time.monotonic() + GRACE
        if news.leaving:
            # Unasked: it has grown over its memory limit, and what it was sent waits for its end.
            grace = LEAVING if channel.retiring else GRACE
            self._deadlines[channel] = time.monotonic() + grace
        if news.results:
            self._sink.results(channel.worker, news.results)

    def _overdue(self) -> None:
        """End what ought to have ended."""
        if not self._deadlines:
            return
        now = time.monotonic()
        for channel, deadline in list(self._deadlines.items()):
            if channel.worker not in self._channels:
                self._deadlines.pop(channel, None)  # it was told to leave when it had just ended
            elif deadline <= now:
                self._deadlines[channel] = now + GRACE
                if channel.child is not None:
                    channel.child.kill()

    def _look_at(self, channel: Channel) -> None:
        """Something is to be learnt about the process: perhaps it has ended."""
        assert channel.child is not None
        ended = channel.child.poll()
        if ended is None:
            return
        selector = self._selector
        if selector is not None:
            for part in (channel.sock, channel.child):
                with contextlib.suppress(KeyError, ValueError):
                    selector.unregister(part)  # type: ignore[arg-type]
        number = channel.worker
        try:
            self._report(channel, channel.receive_last())
            self._bury(channel, ended, self._oom_kills.pop(number, None))
        finally:
            self._channels.pop(number, None)
            self._deadlines.pop(channel, None)
            channel.close()

    def _bury(self, channel: Channel, ended: Exit, oom_kills: int | None) -> None:
        """Report how a worker ended, once."""
        number = channel.worker
        if channel.init_error is not None and channel.kill_how is None:
            self._channels.pop(number, None)
            self._sink.start_failed(number, unpack_error(channel.init_error), fatal=True)
        elif channel.ready or channel.kill_how is not None or channel.retiring:
            found = death.autopsy(channel, ended, oom_kills)
            self._channels.pop(number, None)
            self._sink.died(number, found)
        else:
            assert channel.child is not None
            error, fatal = death.start_error(channel, ended, channel.child.error)
            self._channels.pop(number, None)
            self._sink.start_failed(number, error, fatal=fatal)

    # -- the memory limit ------------------------------------------------------------------------

    def _sample(self, limit: int) -> None:
        """Look at the memory of busy workers, and end those that are over the limit."""
        now = time.monotonic()
        if now < self._next_sample:
            return
        self._next_sample = now + SAMPLE
        for channel in list(self._channels.values()):
            pid = channel.child.pid if channel.child is not None else None
            if pid is None or not channel.busy or channel.kill_how is not None:
                continue
            used = limits.resident_bytes(pid)
            if used is not None and used > limit:
                channel.stop()
                channel.kill("over-memory", used)


def _descriptors(alarm: _Alarm, selector: selectors.BaseSelector) -> set[int]:
    """What a worker that is forked straight from this process must not keep."""
    fileno = getattr(selector, "fileno", None)
    return {alarm.fileno()} if fileno is None else {alarm.fileno(), fileno()}


class _Alarm:
    """Ends a wait from elsewhere. ``ring`` is safe in signal handlers and finalizers.

    It has no ``close``: 1. A is about to write to the descriptor. 2. B closes it. 3. Its number is
    given to a file of the user's. 4. A writes into that. So the descriptor goes when the last
    one who could still ring has let go of the alarm.
    """

    _read = _write = -1

    def __init__(self) -> None:
        if hasattr(os, "eventfd"):
            self._read = self._write = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        else:
            self._read, self._write = os.pipe()
            os.set_blocking(self._read, False)
            os.set_blocking(self._write, False)

    def fileno(self) -> int:
        """Readable when it rang."""
        return self._read

    def ring(self) -> None:
        """End the wait, or the next one."""
        with contextlib.suppress(OSError):  # full: it rings already; closed: nobody waits
            os.write(self._write, (1).to_bytes(8, "little"))

    def clear(self) -> None:
        """Be quiet again."""
        with contextlib.suppress(OSError):
            os.read(self._read, 4096)

    def __del__(self) -> None:
        for fd in {self._read, self._write} - {-1}:
            os.close(fd)
