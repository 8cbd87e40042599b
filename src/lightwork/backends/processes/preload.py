"""Importing modules in the fork server, and knowing when that did harm.

A worker forked from a server that has the task's module already costs milliseconds where an
import of, say, NumPy costs a hundred. But a process with other threads must not fork (their locks
stay locked in the copy), and a descriptor that a module opened would be shared by all workers. So
each import is watched, and what leaves more behind than modules is *never* imported ahead again.

Two more traps. A native library that reads its number of threads when it is loaded is loaded here
with one thread, so it must not be forked to a worker that wants another number. And a module
whose file was edited since must not live on in workers.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence

from .limits import NATIVE_NAMES

__all__ = ["Preloader", "thread_count"]

_NATIVE_LIBRARIES = ("openblas", "libmkl", "libgomp", "libomp", "libiomp", "libblis", "libtbb")


def thread_count() -> int:
    """The threads of this process, native ones too (where the system tells)."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        threading = sys.modules.get("threading")
        return threading.active_count() if threading is not None else 1


def _descriptor_count() -> int:
    for folder in ("/proc/self/fd", "/dev/fd"):
        with contextlib.suppress(OSError):
            return len(os.listdir(folder))
    return 0


def _native_loaded() -> bool:
    try:
        with open("/proc/self/maps") as file:
            return any(name in line for line in file for name in _NATIVE_LIBRARIES)
    except OSError:
        return "numpy" in sys.modules


def _stamp(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What an import prints was seen in the parent once; it must not be seen again."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    saved = [os.dup(1), os.dup(2)]
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1)
    os.dup2(devnull, 2)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os.dup2(saved[0], 1)
        os.dup2(saved[1], 2)
        for fd in (devnull, *saved):
            os.close(fd)


class Preloader:
    """The modules that the server holds for its children.

    Args:
        banned: names that did harm before.
    """

    def __init__(self, banned: Sequence[str] = ()) -> None:
        self.banned = list(banned)
        self.native = False  # a library that counted its threads when loaded is here
        self._tried = set(banned)
        self._stamps: dict[str, tuple[int, int] | None] = {}
        self._installed: tuple[str, ...] | None = None

    def load(self, modules: Sequence[tuple[str, str]], env: Mapping[str, str]) -> bool:
        """Import (name, file) where that is safe. Returns False if harm was done: restart."""
        modules = [pair for pair in modules if pair[0] not in self._tried]
        if not modules or not one_native_thread(env):
            return True
        for name, file in modules:
            self._tried.add(name)
            if name not in sys.modules and not self._load(name, file):
                self.banned.append(name)
                return False
        return True

    def _load(self, name: str, file: str) -> bool:
        known = set(sys.modules)
        before = thread_count(), _descriptor_count()
        with _quiet():
            # SystemExit too: a module may well end the program that imports it.
            with contextlib.suppress(BaseException):
                __import__(name)
        new = [name for name in sys.modules if name not in known]
        self._note_files(new)
        self.native = self.native or _native_loaded()
        after = thread_count(), _descriptor_count()
        if after[0] > before[0] or after[1] > before[1]:
            return False
        module = sys.modules.get(name)
        # Another file of this name than the parent has: what a worker would find, it may find
        # for itself.
        return module is None or getattr(module, "__file__", file) == file

    def _note_files(self, names: Sequence[str]) -> None:
        if self._installed is None:
            import sysconfig

            paths = sysconfig.get_paths()
            folders = {paths[name] + os.sep for name in ("stdlib", "purelib", "platlib")}
            self._installed = tuple(sorted(folders))
        for name in names:
            file = getattr(sys.modules.get(name), "__file__", None)
            if isinstance(file, str) and not file.startswith(self._installed):
                self._stamps[file] = _stamp(file)

    def stale(self) -> bool:
        """Whether the file of an imported module has changed. Installed packages are trusted."""
        return any(_stamp(file) != stamp for file, stamp in self._stamps.items())

    def fits(self, env: Mapping[str, str]) -> bool:
        """Whether a worker with this environment may be forked from this process."""
        return not self.native or one_native_thread(env)


def one_native_thread(env: Mapping[str, str]) -> bool:
    """Whether `env` holds native libraries to the one thread that this process loads them with."""
    return all(env.get(name) == "1" for name in NATIVE_NAMES)
