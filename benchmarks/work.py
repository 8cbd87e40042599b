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


_arrays: dict[int, Any] = {}


def give(order: tuple[int, int]) -> Any:
    """Return an array of `size` float64; it is made once in each worker, so only its way counts."""
    number, size = order
    if size not in _arrays:
        import numpy

        _arrays.clear()
        _arrays[size] = numpy.ones(size)
    _arrays[size][0] = number
    return _arrays[size]
