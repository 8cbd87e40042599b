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
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from ...core.events import Running
from ...observe.forward import Forwarder
from ...wire import family
from ...wire.functions import FunctionTable
from ...wire.patience import Patience
from ...wire.pickling import pack
from ...wire.remote import unpack_error
from ...wire.segments import Arena
from ..base import Death, Parcel, Result, Sink, WorkerOptions
from . import calls, death, limits, page
from .channel import Channel, News
from .launch import WORKER, Exit, Launcher, Spec, launcher, parent_only
from .poller import READ, WRITE, Poller

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
    combines = True

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
        self._awake = Patience()
        self._withheld: deque[Channel] = deque()  # for the pump to fetch what they hold back
        self._deadlines: dict[Channel, float] = {}  # when what ought to have ended is ended
        self._next_sample = 0.0
        self._poller: Poller[tuple[Channel, bool] | None] | None = None
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
        self, fn: Callable[..., Any], items: Sequence[Any], star: bool
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

    def combine(self, waiting: Sequence[Any]) -> list[tuple[Any, int]]:
        """See Backend."""
        return calls.combine(waiting)

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
        if channel.keeps_results:
            self._withheld.append(channel)
            self.wake()
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
        try:
            while self._starting:
                with contextlib.suppress(IndexError):
                    self._launch(self._starting.popleft())
        except BaseException:
            # Ctrl-C may have hit when a channel was in nobody's hands: the pump launches it.
            self._starting.extend([one for one in self._channels.values() if not one.claimed])
            self.wake()
            raise
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
            poller, self._poller = self._poller, None
            alarm, self._alarm = self._alarm, None
        for channel in list(self._channels.values()):
            channel.kill("killed")
            channel.close()
        self._channels.clear()
        if poller is not None and alarm is not None:
            parent_only.difference_update((alarm.fileno(), poller.fileno()))
            poller.close()
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
        try:
            if not channel.claim():
                return
            self._oom_kills[number] = limits.oom_kill_count()
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
            fds = [theirs.fileno(), fd, *self._family()]
            log = self._logs.open(channel.worker) if self._logs is not None else None
            if log is not None:
                cleanup.callback(os.close, log)
                fds.append(log)
            child = self._launcher.launch(self._spec(channel.worker, tuple(fds)))
            failing.pop_all()
        channel.attach(ours, shared, child)

    def _family(self) -> tuple[int, ...]:
        """The descriptor by which a worker shares objects with us; a plain fork inherits it."""
        try:
            fd = family.home()
        except OSError:  # not on this system: then nothing can be shared
            return ()
        return () if self._options.start_method == "fork" else (fd,)

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
            if self._poller is None and not self._closed:
                alarm = _Alarm()
                poller: Poller[tuple[Channel, bool] | None] = Poller()
                parent_only.update({alarm.fileno(), poller.fileno()} - {-1})
                poller.register(alarm.fileno(), READ, None)
                self._alarm, self._poller = alarm, poller

    # -- the pump --------------------------------------------------------------------------------

    def wait(self, timeout: float | None) -> None:
        """See Backend."""
        if self._arrivals or self._blocked:
            self._watch()
        poller = self._poller
        if poller is None:
            # No worker yet: someone is about to start the first, and then rings the alarm.
            try:
                self._prepare_waiting()
            except OSError:
                time.sleep(0.05 if timeout is None else min(timeout, 0.05))
            return
        limit = self._options.memory_limit
        if self._deadlines or limit is not None:
            timeout = self._patience(timeout)
        for fd, events in self._awake.wait(poller.wait, timeout):
            if fd not in poller.data:
                continue  # what came just before has ended it
            watched = poller.data[fd]
            if watched is None:
                self._alarmed()
                continue
            channel, child = watched
            if child:
                self._look_at(channel)
            elif channel.worker in self._channels:
                if events & WRITE:
                    self._write(channel)
                if events & ~WRITE:  # its end counts as something to read
                    self._read(channel)
        if self._deadlines:
            self._overdue()
        if limit is not None:
            self._sample(limit)

    def _watch(self) -> None:
        """Watch what has been added since."""
        poller = self._poller
        if poller is None:
            return
        while self._arrivals:
            channel = self._arrivals.popleft()
            assert channel.sock is not None
            assert channel.child is not None
            poller.register(channel.sock.fileno(), READ, (channel, False))
            poller.register(channel.child.fileno(), READ, (channel, True))
        while self._blocked:
            self._listen(self._blocked.popleft(), READ | WRITE)

    def _listen(self, channel: Channel, events: int) -> None:
        if self._poller is not None and channel.sock is not None:
            self._poller.modify(channel.sock.fileno(), events)

    def _alarmed(self) -> None:
        if self._alarm is not None:
            self._alarm.clear()
        if self._starting:
            self.flush()
        while self._withheld:
            channel = self._withheld.popleft()
            if channel.worker in self._channels:
                self._report(channel, channel.peek())
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
            self._listen(channel, READ)

    def _read(self, channel: Channel) -> None:
        self._report(channel, channel.receive())
        if channel.eof:
            if self._poller is not None and channel.sock is not None:
                self._poller.unregister(channel.sock.fileno())
            self._deadlines.setdefault(channel, time.monotonic() + GRACE)
        elif channel.wants_to_write:
            self._flush(channel)

    def _report(self, channel: Channel, results: list[Result]) -> None:
        """Tell what a worker has said."""
        if channel.news is not None:
            news, channel.news = channel.news, None
            self._report_state(channel, news)
        if results:
            self._sink.results(channel.worker, results)

    def _report_state(self, channel: Channel, news: News) -> None:
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
        if self._poller is not None:
            for part in (channel.sock, channel.child):
                if part is not None:
                    self._poller.unregister(part.fileno())
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
