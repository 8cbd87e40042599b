"""What a new worker process does before and after its entry function.

Three roads lead here: a fork of the fork server, a fresh interpreter that the server executed
("spawn"), and a plain fork of the parent. On each the process is made the same: a process group
of its own, the death signal, default signal handlers but no SIGINT, no descriptor that is not
its own, an empty ``__main__``.

The server imports this module before it takes its first request, so it imports next to nothing.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, NoReturn

from .boot import parent_only

__all__ = [
    "SERVER_NAME",
    "SPAWN_CODE",
    "WORKER_NAME",
    "begin_forked",
    "begin_served",
    "begin_spawned",
    "caught_signals",
    "close_all_but",
    "die_with_parent",
    "name_process",
    "prctl",
]

SPAWN_CODE = (
    "import marshal, sys; file = open({body}, 'rb'); body = marshal.load(file); file.close(); "
    "sys.path[:] = body['path']; "
    "from lightwork.backends.processes.child import begin_spawned; "
    "begin_spawned(body, {fds}, {server})"
)
"""What a fresh interpreter is told to run. It needs the parent's sys.path to find this package."""

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_PR_SET_NAME = 15
SERVER_NAME, WORKER_NAME = "lw-server", "lw-worker"
_kept: list[ModuleType] = []


def _find_prctl() -> Callable[..., int] | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        import ctypes

        return ctypes.CDLL(None).prctl
    except (ImportError, OSError, AttributeError):
        return None


prctl = _find_prctl()
"""Found before any fork: the dynamic loader's lock may be held by another thread at a fork."""


def die_with_parent(parent: int) -> bool:
    """Ask the kernel to SIGKILL this process when the thread that forked it ends.

    That is the *thread*, not the process: it serves where the main thread forked (the server has
    no other). Returns whether the kernel will do it.

    1. the parent forks, and is killed;  2. this process asks for the signal: too late, and none
    comes. So the parent is looked at after asking: by then either it is gone, which shows, or
    its death will signal.
    """
    if prctl is None or prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        return False
    if os.getppid() != parent:
        os._exit(1)
    return True


def name_process(name: str) -> None:
    """Set what ``ps -o comm`` and ``top`` show; a forked worker's command line is the server's."""
    if prctl is not None:
        prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


def begin_served(
    body: Mapping[str, Any], fds: Sequence[int], server: int, caught: Sequence[int]
) -> NoReturn:
    """The server has forked; this is the new process. Never returns.

    `caught`: the server's `caught_signals`.
    """
    with _ending_here():
        os.setpgid(0, 0)
        die_with_parent(server)
        close_all_but(fds)
        _default_signals(caught)
        _take_over(body)
        gc.enable()
        _run(body, fds)


def begin_spawned(body: Mapping[str, Any], fds: Sequence[int], server: int) -> NoReturn:
    """A fresh interpreter has started; `server` set the death signal before it executed this."""
    with _ending_here():
        if os.getppid() != server:
            os._exit(1)
        for fd in fds:
            os.set_inheritable(fd, False)
        close_all_but(fds)
        _default_signals(caught_signals())
        _take_over(body)
        _run(body, fds)


def begin_forked(
    body: Mapping[str, Any], fds: Sequence[int], lifeline: int, drop: Sequence[int]
) -> NoReturn:
    """A thread of the parent has forked: a copy of everything that the user had.

    `lifeline`: a pipe that ends with the parent.
    `drop`: our descriptors in the parent. The user's stay, for that is what was asked for.
    """
    with _ending_here():
        os.setpgid(0, 0)
        gc.freeze()  # what the parent left as garbage must not be finalized here
        own = _reopen(lifeline)
        for fd in set(drop) - {*fds, own}:
            with contextlib.suppress(OSError):
                os.close(fd)
        parent_only.clear()
        _die_with_pipe(own)
        _forget_parent()
        _default_signals(caught_signals())
        _apply_environment(body["env"])
        _empty_main()
        _run(body, fds)


class _ending_here:
    """Nothing may escape into the stack of the process that was copied."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, tb: object) -> None:
        if error is not None:
            _report(error)
        os._exit(1)


def _report(error: BaseException) -> None:
    with contextlib.suppress(BaseException):
        sys.excepthook(type(error), error, error.__traceback__)
        sys.stderr.flush()


def close_all_but(fds: Sequence[int]) -> None:
    """Close every descriptor above 2 that is not in `fds`."""
    last = 2
    for fd in sorted(fds):
        os.closerange(last + 1, fd)
        last = max(last, fd)
    os.closerange(last + 1, max(1 << 16, last + 1, os.sysconf("SC_OPEN_MAX")))


def caught_signals() -> list[int]:
    """The signals that Python code handles here. Looking costs half a millisecond, so the server
    does it once for all its children."""
    return [n for n in signal.valid_signals() if callable(signal.getsignal(n))]


def _default_signals(caught: Sequence[int]) -> None:
    """No Python handler of the server's or the parent's; Ctrl-C is the parent's affair."""
    signal.set_wakeup_fd(-1)
    for number in caught:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _apply_environment(env: Mapping[str, str]) -> None:
    for name in [name for name in os.environ if name not in env]:
        del os.environ[name]
    for name, value in env.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


def _take_over(body: Mapping[str, Any]) -> None:
    """Make this process look like the parent did at the launch."""
    _apply_environment(body["env"])
    sys.path[:] = body["path"]
    sys.argv[:] = body["argv"]
    if body["cwd"] is not None:
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile: the parent's is as dead
            os.chdir(body["cwd"])
    affinity = body["affinity"]
    if affinity and set(affinity) != os.sched_getaffinity(0):
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, affinity)
    if body["limits"]:
        _apply_limits(body["limits"])
    if body["authkey"] is not None:
        _share_authkey(body["authkey"])
    _empty_main()
    _reseed_numpy()


def _apply_limits(limits: Mapping[int, tuple[int, int]]) -> None:
    import resource

    for which, wanted in limits.items():
        with contextlib.suppress(OSError, ValueError):
            if resource.getrlimit(which) != wanted:
                resource.setrlimit(which, wanted)


def _share_authkey(key: bytes) -> None:
    """Proxies of the user's ``multiprocessing`` managers work in tasks only with this key."""
    import multiprocessing.process

    multiprocessing.process.current_process().authkey = key


def _empty_main() -> None:
    """The user's script is not run again, so what refers to ``__main__`` by name must fail."""
    before = sys.modules.get("__main__")
    if before is not None:
        # Kept alive: to drop it would run the finalizers of the parent's objects in this copy.
        _kept.append(before)
    sys.modules["__main__"] = ModuleType("__main__")


def _reseed_numpy() -> None:
    """``random`` re-seeds itself after a fork; NumPy's global generator does not."""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        with contextlib.suppress(Exception):
            numpy_random.seed()


def _forget_parent() -> None:
    """After a plain fork: leave alone what would act on the parent's behalf in this copy."""
    atexit._clear()
    threading = sys.modules.get("threading")
    if threading is not None:
        threading._threading_atexits = []  # type: ignore[attr-defined]
    devnull = os.open(os.devnull, os.O_RDONLY)
    os.dup2(devnull, 0)
    if devnull != 0:
        os.close(devnull)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - for the life of the process
    _reseed_numpy()


def _reopen(pipe: int) -> int:
    """The same pipe by an open file of our own: whom it signals is a property of that."""
    try:
        return os.open(f"/proc/self/fd/{pipe}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return pipe


def _die_with_pipe(pipe: int) -> None:
    """Kill this process group when nobody can write to `pipe` any more: the parent is gone.

    The kernel's death signal does not serve after a plain fork: it comes when the *thread* that
    forked ends, and for this process alone, before it could take its own children along.

    Linux can send a signal of our choice to the whole group when a pipe ends (fcntl(2),
    F_SETSIG), even while C code that never ends holds the interpreter's lock. A thread that waits
    for the pipe does it elsewhere; and since it is in poll(2), the pipe stays open, and armed,
    though a task may close all descriptors.
    """
    import _thread
    import select

    with contextlib.suppress(ImportError, AttributeError, OSError):
        import fcntl

        fcntl.fcntl(pipe, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(pipe, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(pipe, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    if poll.poll(0):  # it was gone before we could arm anything
        os._exit(1)

    def wait() -> None:
        poll.poll()
        os.killpg(os.getpgrp(), signal.SIGKILL)

    _thread.start_new_thread(wait, ())


def _run(body: Mapping[str, Any], fds: Sequence[int]) -> NoReturn:
    """Call the entry, then end as an interpreter would, but without tearing down its objects."""
    code = 1
    try:
        name_process(WORKER_NAME)
        module, _, name = body["entry"].partition(":")
        __import__(module)
        getattr(sys.modules[module], name)(list(fds), body["config"])
        code = 0
    except SystemExit as error:
        code = _exit_code(error)
    except BaseException as error:
        _report(error)
    _wind_up()
    os._exit(code)


def _exit_code(error: SystemExit) -> int:
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    with contextlib.suppress(Exception):
        sys.stderr.write(f"{error.code}\n")
    return 1


def _wind_up() -> None:
    """Join the non-daemon threads of the user's, run the exit handlers, flush."""
    threading = sys.modules.get("threading")
    if threading is not None:
        try:
            threading._shutdown()
        except BaseException as error:
            _report(error)
    try:
        atexit._run_exitfuncs()
    except BaseException as error:
        _report(error)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BaseException):
            stream.flush()
