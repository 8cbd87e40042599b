"""Entries of worker processes, for the tests of launching. Imported in the workers."""

from __future__ import annotations

import ctypes
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

__all__: list[str] = []


def nothing(fds: list[int], config: bytes) -> None:
    """End well."""


def leave(fds: list[int], config: bytes) -> None:
    """End by sys.exit."""
    sys.exit(json.loads(config))


def leave_at_once(fds: list[int], config: bytes) -> None:
    """End by os._exit."""
    os._exit(int(config))


def fail(fds: list[int], config: bytes) -> None:
    """End by an error."""
    raise ZeroDivisionError("on purpose")


def signal_self(fds: list[int], config: bytes) -> None:
    """End by a signal."""
    os.kill(os.getpid(), int(config))


def read_nowhere(fds: list[int], config: bytes) -> None:
    """A real segmentation fault."""
    ctypes.string_at(0)


def fill_memory(fds: list[int], config: bytes) -> None:
    """Touch so many bytes."""
    bytearray(int(config))


def hang(fds: list[int], config: bytes) -> None:
    """Say that it is there, then wait for ever."""
    say(fds, "up")
    time.sleep(600)


def hog(fds: list[int], config: bytes) -> None:
    """Hold the interpreter's lock for ever."""
    import re

    say(fds, "up")
    re.match("(a+)+$", "a" * 60 + "b")


def hang_with_child(fds: list[int], config: bytes) -> None:
    """Start a process that holds all our descriptors, then wait for ever."""
    for fd in fds:
        os.set_inheritable(fd, True)
    one = subprocess.Popen(
        [sys.executable, "-S", "-c", "import time; time.sleep(600)"], close_fds=False
    )
    say(fds, one.pid)
    time.sleep(600)


def crash_with_child(fds: list[int], config: bytes) -> None:
    """Start a process, then crash."""
    one = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
    say(fds, one.pid)
    os.kill(os.getpid(), signal.SIGSEGV)


def say(fds: list[int], what: object) -> None:
    """Write a line of JSON to the first descriptor."""
    os.write(fds[0], json.dumps(what).encode() + b"\n")


def look_around(fds: list[int], config: bytes) -> None:
    """Tell what this process looks like."""
    descriptors = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            descriptors[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # the one that lists
    say(
        fds,
        {
            "pid": os.getpid(),
            "parent": os.getppid(),
            "group": os.getpgrp(),
            "fds": fds,
            "descriptors": descriptors,
            "stdin": sys.stdin.read(),
            "main": [n for n in vars(sys.modules["__main__"]) if not n.startswith("__")],
            "main file": getattr(sys.modules["__main__"], "__file__", None),
            "path": sys.path,
            "argv": sys.argv,
            "cwd": os.getcwd(),
            "env": dict(os.environ),
            "random": random.random(),
            "sigint": signal.getsignal(signal.SIGINT) == signal.SIG_IGN,
            "sigterm": signal.getsignal(signal.SIGTERM) == signal.SIG_DFL,
            "sigusr1": signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL,
            "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
            "threads": threading.active_count(),
            "main thread": threading.current_thread() is threading.main_thread(),
            "affinity": sorted(os.sched_getaffinity(0)),
            "modules": sorted(sys.modules),
            "config": config.decode(),
        },
    )


def numpy_random(fds: list[int], config: bytes) -> None:
    """Tell whether NumPy was there, and a number of its global generator's."""
    there = "numpy" in sys.modules
    import numpy

    say(fds, [there, float(numpy.random.random())])


def value_of(fds: list[int], config: bytes) -> None:
    """Tell whether a module was imported ahead, and what it holds."""
    name = config.decode()
    there = name in sys.modules
    module = __import__(name)
    say(fds, [there, module.VALUE, len(os.listdir("/proc/self/task")), os.getpid()])


def tidy(fds: list[int], config: bytes) -> None:
    """Leave things to do at the end: a thread, an exit handler, a buffer."""
    import atexit

    def late() -> None:
        time.sleep(0.05)
        say(fds, "thread")

    atexit.register(say, fds, "atexit")
    threading.Thread(target=late).start()
    sys.stdout.write("buffered")


def use_manager(fds: list[int], config: bytes) -> None:
    """Use a proxy of a manager that runs in the parent."""
    import pickle

    queue = pickle.loads(config)
    queue.put("from the worker")


def set_limit(fds: list[int], config: bytes) -> None:
    """Tell the limit of open files."""
    import resource

    say(fds, resource.getrlimit(resource.RLIMIT_NOFILE))


def nest(fds: list[int], config: bytes) -> None:
    """Start workers from a worker."""
    from .launching import run

    say(fds, [run(config.decode(), "leave", 5).exitcode for _ in range(2)])
