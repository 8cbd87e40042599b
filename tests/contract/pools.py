"""The kinds of pool that one contract holds for, and how a test makes one."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightwork import Pool

START_METHODS = ("forkserver", "spawn", "fork")
KINDS = ("threads", "serial", "forkserver", "auto")
EVERY_KIND = ("threads", "serial", *START_METHODS)


def make(kind: str, workers: int | None = 2, **options: Any) -> Pool:
    """A pool of a kind; a start method's name stands for processes started that way."""
    if kind in START_METHODS:
        return Pool("processes", workers, start_method=kind, **options)
    return Pool(kind, workers, **options)


def eventually(check: Callable[[], Any], within: float = 20.0) -> Any:
    """Wait until `check` gives something true, and return it; fail when it does not."""
    end = time.monotonic() + within
    while not (found := check()):
        assert time.monotonic() < end, f"not true within {within:g} s: {check}"
        time.sleep(0.002)
    return found


class Gate:
    """Holds tasks of any kind back until it is opened."""

    def __init__(self, folder: Path, name: str = "gate") -> None:
        self.path = str(folder / name)
        self.started = self.path + "-started"

    def open(self) -> None:
        Path(self.path).touch()

    def wait_started(self, count: int) -> list[str]:
        from .functions import notes

        found: list[str] = eventually(
            lambda: notes(self.started) if len(notes(self.started)) >= count else None
        )
        return found
