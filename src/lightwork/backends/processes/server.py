"""The fork server: one small process without threads, from which the workers are forked.

It is started once for each parent process, when the first worker is wanted, and is shared by all
pools. It never sees the user's main script. Every worker is its child, so it is the server that
learns how a worker ended, and that takes the workers along when it goes.

*Requests* come by the control socket, one byte each, with descriptors: the status pipe's write
end, the body (a marshalled dict in an anonymous file), what is to be descriptor 1 and 2, then the
worker's own. There is no reply but what is written to the status pipe, as records of ``RECORD``:

    STARTED pid        the process exists
    FAILED  errno      it could not be made; nothing follows
    ENDING  0          it has ended, and is about to be reaped: do not signal this pid any more
    ENDED   code peak  its exit code (negative: signal) and peak resident bytes (-1: unknown)

The pipe's end without ENDED means that the server died; the kernel then kills the workers.

*Ends.* The server leaves when the parent is gone (its pidfd says so, whoever else may hold the
other end of the control socket) or has shut the control socket down, and kills what it started.
"""

from __future__ import annotations

import array
import contextlib
import errno
import gc
import marshal
import os
import select
import signal
import socket
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from . import child
from .boot import (
    CONTROL,
    ENDED,
    ENDING,
    FAILED,
    MAX_FDS,
    RECORD,
    STARTED,
    execute_server,
    kill_group,
    reap,
)
from .preload import Preloader, thread_count

__all__ = ["main"]

running = False
"""Whether this process is a server: then it must not start pools of its own."""

_SETTLING = 100  # ms without a request after which the first rush is over
_GETPPID_INTERVAL = 1000  # ms; only where there is no pidfd


class _Request:
    def __init__(self, fds: Sequence[int]) -> None:
        self.status, self.body = fds[:2]
        self.outputs = tuple(fds[2:4])
        self.fds = tuple(fds[4:])

    def all(self) -> list[int]:
        return [self.status, self.body, *self.outputs, *self.fds]


def main(start: Mapping[str, Any]) -> NoReturn:
    """Run the server; `start` holds the parent's pid, and what a server before this one left."""
    global running
    running = True
    code = 1
    try:
        server = _Server(start)  # kept until the end: nothing of it is to be finalized
        server.run()
        code = 0
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        os._exit(code)


class _Server:
    def __init__(self, start: Mapping[str, Any]) -> None:
        self.parent: int = start["parent"]
        self.start = start
        self.status_of: dict[int, int] = dict(start["children"])  # pid -> status pipe
        self.preloader = Preloader(start["banned"])
        self.settled = False
        self.control = socket.socket(fileno=CONTROL)
        self.poll = select.poll()
        self.descriptor_limit: tuple[int, int] | None = start["descriptor_limit"]

    def run(self) -> None:
        self._prepare()
        if self.start["entry"] is not None:
            _import(self.start["entry"])
        if self.start["pending"] is not None:
            self._serve(_Request(self.start["pending"]))
        self._reap()
        while self._step():
            if not self.settled and not self.poll.poll(_SETTLING):
                # The first workers did not wait for this; later ones have it for nothing.
                self.settled = True
                _import("cloudpickle")
        self._kill_all()

    def _prepare(self) -> None:
        for fd in (1, 2):
            try:
                os.fstat(fd)
            except OSError:  # closed in the parent: a pipe of ours must not become "stdout"
                os.open(os.devnull, os.O_WRONLY)
        pending = self.start["pending"] or []
        child.close_all_but([CONTROL, *pending, *self.status_of.values()])
        self.wake_read, self.wake_write = os.pipe()
        for fd in (self.wake_read, self.wake_write):
            os.set_blocking(fd, False)
        self._own_signals()
        child.name_process(child.SERVER_NAME)
        self.poll.register(CONTROL, select.POLLIN)
        self.poll.register(self.wake_read, select.POLLIN)
        self.patience = self._watch_parent()
        gc.disable()  # collecting would only unshare pages; workers turn it on again
        if self.descriptor_limit is None:
            self.descriptor_limit = _raise_descriptor_limit()

    def _own_signals(self) -> None:
        """An import may have taken them from us, so this is done anew after each."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self.wake_write, warn_on_full_buffer=False)
        self.caught = child.caught_signals()

    def _watch_parent(self) -> int | None:
        """Have `poll` end when the parent does. Returns the time to wait at most, in ms."""
        patience: int | None = _GETPPID_INTERVAL
        with contextlib.suppress(AttributeError, OSError):
            self.poll.register(os.pidfd_open(self.parent), select.POLLIN)
            patience = None
        if os.getppid() != self.parent:  # it was gone before: that descriptor is of a stranger
            os._exit(0)
        return patience

    def _step(self) -> bool:
        """Wait for something, see to it. Returns False when it is time to leave."""
        ready = dict(self.poll.poll(self.patience))
        if os.getppid() != self.parent:
            return False
        if ready.pop(self.wake_read, None):
            with contextlib.suppress(BlockingIOError):
                os.read(self.wake_read, 4096)
            self._reap()
        if ready.pop(CONTROL, None):
            return self._receive()
        return not ready  # only the parent's pidfd is left

    def _receive(self) -> bool:
        fds = array.array("i")
        space = socket.CMSG_SPACE(MAX_FDS * fds.itemsize)
        try:
            data, ancillary, flags, _ = self.control.recvmsg(1, space)
        except ConnectionError:
            return False
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
        if not data:
            return False
        if flags & socket.MSG_CTRUNC or len(fds) < 4:
            # Out of descriptors. Those that did not fit are closed already: if the status pipe
            # is among them, its end tells the parent.
            if fds:
                self._fail(fds[0], errno.EMFILE)
            for fd in fds[1:]:
                os.close(fd)
            return True
        for fd in fds:
            os.set_inheritable(fd, False)
        self._serve(_Request(fds))
        return True

    def _serve(self, request: _Request) -> None:
        body = _read_body(request.body)
        if body["method"] == "spawn":
            self._launch(request, body, fresh=True)
            return
        if self.preloader.stale():
            self._restart(request)
        with contextlib.suppress(OSError):
            os.chdir(body["cwd"] or os.curdir)
        sys.path[:] = body["path"]
        sys.argv[:] = body["argv"]
        _import(body["entry"])
        if body["authkey"] is not None:
            import multiprocessing.process  # noqa: F401 - each worker will want it
        if body["modules"]:
            unharmed = self.preloader.load(body["modules"], body["env"])
            self._own_signals()
            if not unharmed:
                self._restart(request)
        # Threads that were here from the start (a sitecustomize that traces, ...) cannot be
        # restarted away: then every worker is a fresh interpreter.
        fresh = thread_count() > 1 or not self.preloader.fits(body["env"])
        self._launch(request, body, fresh=fresh)

    def _launch(self, request: _Request, body: Mapping[str, Any], *, fresh: bool) -> None:
        server = os.getpid()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        gc.freeze()
        try:
            with warnings.catch_warnings():
                # Python 3.12 warns of threads; a fork that only executes is safe with them.
                warnings.simplefilter("ignore", DeprecationWarning)
                pid = os.fork()
        except OSError as error:
            self._fail(request.status, error.errno or 0)
        else:
            if pid == 0:
                self._become(request, body, server, fresh)
            self.status_of[pid] = request.status
            _write(request.status, STARTED, pid)
        for fd in (request.body, *request.outputs, *request.fds):
            os.close(fd)

    def _become(
        self, request: _Request, body: Mapping[str, Any], server: int, fresh: bool
    ) -> NoReturn:
        global running
        running = False  # a worker may well have pools
        try:
            if self.descriptor_limit is not None:
                _set_descriptor_limit(self.descriptor_limit)
            for number, fd in enumerate(request.outputs, 1):
                os.dup2(fd, number)
            if fresh:
                self._execute(request, body, server)
            child.begin_served(body, request.fds, server, self.caught)
        except BaseException as error:
            sys.excepthook(type(error), error, error.__traceback__)
        finally:
            os._exit(1)

    def _execute(self, request: _Request, body: Mapping[str, Any], server: int) -> NoReturn:
        """Turn this fork into a fresh interpreter. The death signal survives the exec."""
        os.setpgid(0, 0)
        child.die_with_parent(server)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for fd in (request.body, *request.fds):
            os.set_inheritable(fd, True)
        code = child.SPAWN_CODE.format(body=request.body, fds=list(request.fds), server=server)
        command = [sys.executable, *self.start["flags"], "-c", code]
        if body["cwd"] is not None:
            with contextlib.suppress(FileNotFoundError):
                os.chdir(body["cwd"])
        os.execve(sys.executable, command, dict(body["env"]))

    def _fail(self, status: int, number: int) -> None:
        _write(status, FAILED, number)
        os.close(status)

    def _reap(self) -> None:
        """See to every child that has ended.

        1. the child ends;  2. it is reaped;  3. its pid goes to a stranger;  4. the parent, who
        has not heard, kills the stranger. So ENDING is written before reaping, and the parent
        looks for it between getting hold of the process and signalling (`launch.Child.kill`).
        The process group is killed before reaping, too, while its number cannot be reused.
        """
        if not hasattr(os, "waitid"):
            self._reap_unseen()
            return
        while True:
            try:
                info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if info is None:
                return
            pid = info.si_pid
            status = self.status_of.pop(pid, None)
            if status is None:  # a process that some imported module has started
                os.waitpid(pid, 0)
                continue
            _write(status, ENDING)
            if info.si_code != os.CLD_EXITED or info.si_status != 0:
                kill_group(pid)
            code, peak = reap(pid)
            _write(status, ENDED, code, peak)
            os.close(status)

    def _reap_unseen(self) -> None:
        """As `_reap`, where one cannot look before reaping (macOS): the race is there, tiny."""
        for pid in list(self.status_of):
            gone, status, usage = os.wait4(pid, os.WNOHANG)
            if gone:
                pipe = self.status_of.pop(pid)
                _write(pipe, ENDED, os.waitstatus_to_exitcode(status), usage.ru_maxrss)
                os.close(pipe)

    def _kill_all(self) -> None:
        for pid in self.status_of:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
            kill_group(pid)

    def _restart(self, request: _Request) -> NoReturn:
        """Execute this program anew in this very process: its children stay its children.

        What an import left in the process (threads, descriptors, an old module) is gone then.
        SIGCHLD that comes meanwhile is not missed: the new program begins by reaping.
        """
        keep = request.all()
        start = dict(
            self.start,
            children=self.status_of,
            banned=self.preloader.banned,
            pending=keep,
            path=list(sys.path),
            descriptor_limit=self.descriptor_limit,
        )
        execute_server(start, [CONTROL, *keep, *self.status_of.values()])


def _import(entry: str) -> None:
    """Import an entry's module. An error is left to the worker, where it is reported."""
    with contextlib.suppress(Exception):
        __import__(entry.partition(":")[0])


def _read_body(fd: int) -> dict[str, Any]:
    with open(fd, "rb", closefd=False) as file:
        body: dict[str, Any] = marshal.load(file)
    os.lseek(fd, 0, os.SEEK_SET)  # a fresh interpreter reads it again
    return body


def _write(status: int, kind: bytes, first: int = 0, second: int = 0) -> None:
    """Tell the parent. It may have lost interest (EPIPE)."""
    with contextlib.suppress(OSError):
        os.write(status, RECORD.pack(kind, first, second))


def _raise_descriptor_limit() -> tuple[int, int] | None:
    """The server holds a descriptor for each worker. Returns the limits before."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    return before


def _set_descriptor_limit(limits: tuple[int, int]) -> None:
    import resource

    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
