"""What the workers of a comparison run. By name, so that every peer can import it."""

from __future__ import annotations

import time
from typing import Any


def bump(n: int) -> int:
    """As little as a call can do and still be checked."""
    return n + 1


def spin(seconds: float) -> float:
    """Keep a core busy for this much of its time, whatever else the machine does."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
    return seconds


def doze(seconds: float) -> float:
    """Sleep; return how long it really took, which is more."""
    begin = time.perf_counter()
    time.sleep(seconds)
    return time.perf_counter() - begin


def read(array: Any) -> float:
    """Touch every page of an array."""
    return float(array[::512].sum())


_arrays: list[Any] = []


def give(order: tuple[int, int]) -> Any:
    """Return an array of `size` float64. A worker makes a few and gives them in turn, so that
    their way is what counts; a few, for a pool may pickle the results of a chunk at its end."""
    number, size = order
    if not _arrays or len(_arrays[0]) != size:
        import numpy

        _arrays[:] = [numpy.ones(size) for _ in range(4)]
    array = _arrays.pop(0)
    _arrays.append(array)
    array[0] = number
    return array
