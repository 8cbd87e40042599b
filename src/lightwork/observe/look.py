"""What ``lightwork top`` is told of a pool."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from .history import label
from .monitor import Monitor

if TYPE_CHECKING:
    from ..engine import Engine

__all__ = ["watch"]

_MOST = 256  # workers that are told one by one


def watch(engine: Engine, name: str, kind: str, workers: Callable[[], int]) -> Monitor:
    """Let others look at a pool until its engine has ended. Raises OSError.

    `workers`: tells how many there may be; it must not keep the pool alive.
    """
    begun = time.monotonic()
    monitor = Monitor(partial(_look, engine, name, kind, workers, begun))
    engine.at_end.append(monitor.close)
    return monitor


def _look(
    engine: Engine, name: str, kind: str, workers: Callable[[], int], begun: float
) -> dict[str, Any]:
    import os

    now = time.monotonic()
    found = {
        "pid": os.getpid(),
        "name": name,
        "kind": kind,
        "max_workers": workers(),
        "seconds": now - begun,
        **asdict(engine.statistics()),
    }
    told: list[dict[str, Any]] = []
    for number, running, entry, kind_of, pid in engine.running()[:_MOST]:
        one: dict[str, Any] = dict.fromkeys(("call", "index", "attempt", "seconds"))
        one |= {"number": number, "kind": kind_of, "pid": pid}
        if running is not None and entry is not None:
            offset = max(running.offset, 0)
            function, item, index = label(entry, offset)
            one["call"] = f"{function}({item})"
            one["index"], one["attempt"] = index, running.attempt
            if running.since:
                one["seconds"] = max(0.0, now - running.since)
        told.append(one)
    return {**found, "workers": told}
