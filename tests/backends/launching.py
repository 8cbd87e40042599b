"""What the tests of launching share."""

from __future__ import annotations

import contextlib
import json
import os
import select
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightwork.backends.processes.launch import Child, Exit, Launcher, Spec, launcher

__all__ = [
    "METHODS",
    "Talker",
    "alive",
    "answer",
    "entry",
    "gone",
    "of",
    "run",
    "until_started",
    "wait_for",
]

METHODS = ("forkserver", "spawn", "fork")


def entry(name: str) -> str:
    """The full name of an entry in `launch_entries`."""
    return f"tests.backends.launch_entries:{name}"


@contextlib.contextmanager
def of(method: str | None) -> Iterator[Launcher]:
    """A launcher, closed in the end."""
    one = launcher(method)
    try:
        yield one
    finally:
        one.close()


def wait_for(child: Child, timeout: float = 20.0) -> Exit:
    """Wait until the process has ended; close the handle."""
    end = time.monotonic() + timeout
    while (found := child.poll()) is None:
        if not select.select([child.fileno()], [], [], max(0.0, end - time.monotonic()))[0]:
            raise AssertionError(f"process {child.pid} has not ended")
    child.close()
    return found


def until_started(child: Child, timeout: float = 20.0) -> int:
    """Wait until the pid is known."""
    end = time.monotonic() + timeout
    while child.pid is None:
        assert select.select([child.fileno()], [], [], max(0.0, end - time.monotonic()))[0]
        child.poll()
    return child.pid


def run(method: str | None, name: str, config: object = b"", **options: Any) -> Exit:
    """Start a process and wait for its end."""
    data = config if isinstance(config, bytes) else json.dumps(config).encode()
    with of(method) as one:
        return wait_for(one.launch(Spec(entry(name), config=data, **options)))


class Talker:
    """A child with a pipe that it says things by."""

    def __init__(self, one: Launcher, name: str, config: bytes = b"", **options: Any) -> None:
        read, write = os.pipe()
        try:
            self.child = one.launch(Spec(entry(name), (write,), config, **options))
        except BaseException:
            os.close(read)
            raise
        finally:
            os.close(write)
        self.file = os.fdopen(read)

    def hear(self, timeout: float = 20.0) -> Any:
        """The next thing that it says. AssertionError if it says nothing."""
        assert select.select([self.file], [], [], timeout)[0], "it says nothing"
        line = self.file.readline()
        assert line, "it ended without a word"
        return json.loads(line)

    def end(self) -> Exit:
        """Wait for its end."""
        self.file.close()
        return wait_for(self.child)

    def kill(self) -> Exit:
        """End it."""
        self.child.kill()
        return self.end()


def answer(method: str | None, name: str, config: bytes = b"", **options: Any) -> Any:
    """What an entry says, before it ends well."""
    with of(method) as one:
        talker = Talker(one, name, config, **options)
        said = talker.hear()
        assert talker.end().exitcode == 0
        return said


def alive(pid: int) -> bool:
    """Whether there is such a process, and it is not dead."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def gone(*pids: int, within: float = 2.0) -> bool:
    """Whether all of these have ended in time."""
    end = time.monotonic() + within
    while any(map(alive, pids)):
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True
