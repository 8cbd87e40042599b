"""The workloads of ``choose.py``: small, of known kinds, each the work of a second or two."""

from __future__ import annotations

import hashlib
import random
import subprocess
import threading
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy

from benchmarks.work import bump, spin

__all__ = ["WORKLOADS", "Workload"]


@dataclass(frozen=True)
class Workload:
    """A function, its items, and how it is run.

    Args:
        name, label: for the table; the label is its kind.
        make: function and items, new for each run.
        how: ``"map"`` or ``"submit"``.
        local: whether it gives other results in other processes, so that these are no choice.
        beside: another function and its items, mapped at the same time.
    """

    name: str
    label: str
    make: Callable[[float], tuple[Callable[..., Any], Iterable[Any]]]
    how: str = "map"
    local: bool = False
    beside: Callable[[float], tuple[Callable[..., Any], Iterable[Any]]] | None = None


def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def run_program(seconds: float) -> int:
    return subprocess.run(["sleep", str(seconds)], check=True).returncode


def mixed(pair: tuple[float, float]) -> float:
    """Wait, then compute."""
    time.sleep(pair[0])
    return spin(pair[1])


def either(item: tuple[bool, float]) -> float:
    return nap(item[1]) if item[0] else spin(item[1])


_data = random.Random(0).randbytes(1 << 20) * 8


def sha(n: int) -> str:
    return hashlib.sha256(_data).hexdigest() + str(n)


def stretch(n: int) -> bytes:
    return hashlib.pbkdf2_hmac("sha256", b"secret", str(n).encode(), 20_000)


def squeeze(n: int) -> int:
    return len(zlib.compress(_data[n : n + 500_000], 2))


def sort_numbers(n: int) -> float:
    return float(numpy.sort(numpy.random.default_rng(n).random(200_000))[0])


def total(numbers: list[int]) -> int:
    return sum(numbers)


def count_zeros(data: bytes) -> int:
    return data.count(b"\0")


def count_to(n: int) -> list[int]:
    return list(range(n))


def make_array(n: int) -> Any:
    return numpy.full(1_000_000, float(n))


def text_of(n: int) -> str:
    spin(0.004)
    return "x" * 200_000


def unpicklable_result(n: int) -> Any:
    spin(0.005)
    return threading.Lock()


def _locked(scale: float) -> tuple[Callable[..., Any], Iterable[Any]]:
    lock = threading.Lock()

    def locked(seconds: float) -> float:
        with lock:
            pass
        return spin(seconds)

    return locked, [0.005] * _n(200, scale)


def _collecting(scale: float) -> tuple[Callable[..., Any], Iterable[Any]]:
    seen: list[float] = []

    def collect(seconds: float) -> int:
        spin(seconds)
        seen.append(seconds)
        return len(seen)

    return collect, [0.005] * _n(200, scale)


def _n(count: int, scale: float) -> int:
    return max(2, int(count * scale))


def _all(fn: Callable[..., Any], item: Any, count: int) -> Callable[[float], Any]:
    return lambda scale: (fn, [item] * _n(count, scale))


def _range(fn: Callable[..., Any], count: int) -> Callable[[float], Any]:
    return lambda scale: (fn, range(_n(count, scale)))


def _shuffled(items: list[Any]) -> list[Any]:
    random.Random(1).shuffle(items)
    return items


WORKLOADS = (
    Workload("nap-1s", "waiting", _all(nap, 1.0, 6)),
    Workload("nap-50ms", "waiting", _all(nap, 0.05, 150)),
    Workload("nap-5ms", "waiting", _all(nap, 0.005, 1500)),
    Workload("nap-20ms-submit", "waiting", _all(nap, 0.02, 400), "submit"),
    Workload("programs", "waiting", _all(run_program, 0.05, 120)),
    Workload("spin-300ms", "computing", _all(spin, 0.3, 8)),
    Workload("spin-50ms", "computing", _all(spin, 0.05, 50)),
    Workload("spin-5ms", "computing", _all(spin, 0.005, 500)),
    Workload("spin-1ms", "computing", _all(spin, 0.001, 2500)),
    Workload("spin-0.1ms", "computing", _all(spin, 0.0001, 25_000)),
    Workload("spin-20ms-submit", "computing", _all(spin, 0.02, 120), "submit"),
    Workload(
        "spin-2ms-unsized",
        "computing",
        lambda scale: (spin, (0.002 for _ in range(_n(1250, scale)))),
    ),
    Workload("half-half", "mixed", _all(mixed, (0.01, 0.01), 120)),
    Workload("mostly-waiting", "mixed", _all(mixed, (0.018, 0.002), 400)),
    Workload("mostly-computing", "mixed", _all(mixed, (0.002, 0.018), 120)),
    Workload("fetch-and-parse", "mixed", _all(mixed, (0.01, 0.04), 50)),
    Workload("sha256", "releasing the GIL", _range(sha, 400)),
    Workload("pbkdf2", "releasing the GIL", _range(stretch, 250)),
    Workload("zlib", "releasing the GIL", _range(squeeze, 150)),
    Workload("numpy-sort", "releasing the GIL", _range(sort_numbers, 250)),
    Workload("tiny-1000", "tiny", _range(bump, 1000)),
    Workload("tiny-5M", "tiny", _range(bump, 5_000_000)),
    Workload("tiny-submit", "tiny", _range(bump, 30_000), "submit"),
    Workload(
        "lists-in", "huge arguments", lambda scale: (total, [list(range(100_000))] * _n(600, scale))
    ),
    Workload(
        "bytes-in", "huge arguments", lambda scale: (count_zeros, [_data * 2] * _n(120, scale))
    ),
    Workload("lists-out", "huge results", _all(count_to, 200_000, 250)),
    Workload("arrays-out", "huge results", _range(make_array, 300)),
    Workload("texts-out", "huge results", _range(text_of, 500)),
    Workload("holds-a-lock", "unpicklable", _locked),
    Workload("collects", "unpicklable", _collecting, local=True),
    Workload("locks-out", "unpicklable", _range(unpicklable_result, 200)),
    Workload(
        "bimodal-computing",
        "bimodal",
        lambda scale: (spin, _shuffled([0.001, 0.03, *[0.001] * 8] * _n(60, scale))),
    ),
    Workload(
        "bimodal-kinds",
        "bimodal",
        lambda scale: (either, _shuffled([(True, 0.02), (False, 0.02)] * _n(60, scale))),
    ),
    Workload(
        "growing",
        "drifting",
        lambda scale: (spin, [0.0005 + 0.00002 * at for at in range(_n(500, scale))]),
    ),
    Workload(
        "waiting-then-computing",
        "drifting",
        lambda scale: (
            either,
            [(True, 0.02)] * _n(200, scale) + [(False, 0.02)] * _n(100, scale),
        ),
    ),
    Workload(
        "computing-then-waiting",
        "drifting",
        lambda scale: (
            either,
            [(False, 0.02)] * _n(100, scale) + [(True, 0.02)] * _n(200, scale),
        ),
    ),
    Workload(
        "side-by-side",
        "two functions",
        _all(spin, 0.02, 100),
        beside=_all(nap, 0.02, 400),
    ),
)
