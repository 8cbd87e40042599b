"""Killing a process at each single step of an operation."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightwork.share

__all__ = ["forked", "killed_at", "reap", "steps_of"]

FOLDER = str(Path(lightwork.share.__file__).parent)


def forked(act: Callable[[], object]) -> int:
    """A copy of this process that does `act`, and ends with status 0, or 1 if that raised."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        act()
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
    finally:
        os._exit(status)


def _traced(act: Callable[[], object], at_step: Callable[[int], None]) -> None:
    """Do `act`, and tell the number of each bytecode of `lightwork.share` before it is executed."""
    count = 0

    def trace(frame: Any, event: str, _: object) -> Any:
        nonlocal count
        if not frame.f_code.co_filename.startswith(FOLDER):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            count += 1
            at_step(count)
        return trace

    sys.settrace(trace)
    try:
        act()
    finally:
        sys.settrace(None)


def killed_at(step: int, act: Callable[[], object]) -> int:
    """A copy of this process that does `act`, and is SIGKILLed before its bytecode number
    `step`."""

    def maybe(count: int) -> None:
        if count == step:
            os.kill(os.getpid(), signal.SIGKILL)

    return forked(lambda: _traced(act, maybe))


def steps_of(act: Callable[[], object]) -> int:
    """How many bytecodes `act` takes; it is done in a copy of this process."""
    reading, writing = os.pipe()
    last = 0

    def note(count: int) -> None:
        nonlocal last
        last = count

    def run() -> None:
        try:
            _traced(act, note)
        finally:
            os.write(writing, str(last).encode())

    try:
        assert reap(forked(run)) == 0
        return int(os.read(reading, 100))
    finally:
        os.close(reading)
        os.close(writing)


def reap(pid: int) -> int:
    """Wait for its end: 0 if it was done before it could be killed, else -9."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
