"""The rows of the comparison: what is timed, for whom, and what must be reached.

A row has *contenders*; each is opened, warmed up, then measured once in every round, one after
the other, so that whatever the machine does meanwhile meets them all. A measurement returns
seconds, and checks that the results were right.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from benchmarks import alone, peers, work
from benchmarks.peers import WORKERS, Peer

Measure = Callable[[], float]


@dataclass(frozen=True)
class Need:
    """What must hold for lightwork: `ratio` times as fast as `against`."""

    against: str
    ratio: float


@dataclass(frozen=True)
class Limit:
    """What must hold for lightwork: at most this much."""

    most: float


@dataclass(frozen=True)
class Row:
    """One line of what must be shown."""

    name: str
    timed: str
    contenders: Callable[[bool], list[Contender]]
    needs: tuple[Need | Limit, ...]
    unit: str = "s"
    rounds: int = 5
    ideal: str = ""
    ours: str = "lightwork"


@dataclass
class Contender:
    """Someone who is measured. `open` gives what is called in each round, warmed up."""

    name: str
    open: Callable[[], Any]  # a context manager of a Measure
    found: list[float] = field(default_factory=list)


@contextmanager
def _opened(
    make: Callable[[], Peer], use: Callable[[Peer], float], warm: bool
) -> Iterator[Measure]:
    peer = make()
    try:
        if warm:
            use(peer)
        yield lambda: use(peer)
    finally:
        peer.close()


def contender(
    make: type[Peer], use: Callable[[Peer], float], name: str = "", *, warm: bool = True
) -> Contender:
    """A peer, and what is done with it in each round."""
    return Contender(name or make.name, lambda: _opened(make, use, warm))


def _expect(found: Any, wanted: Any) -> None:
    if found != wanted:
        raise AssertionError("wrong results")


# -- calls that do nothing -------------------------------------------------------------------------


def one_by_one(quick: bool) -> list[Contender]:
    count = 50 if quick else 2000

    def use(peer: Peer) -> float:
        begin = time.perf_counter()
        for n in range(count):
            if peer.apply(work.bump, n) != n + 1:
                raise AssertionError("wrong results")
        return (time.perf_counter() - begin) / count

    kinds = (peers.Lightwork, peers.Processes, peers.Multiprocessing, peers.Loky, peers.Pebble)
    return [contender(kind, use) for kind in kinds]


def _fan_out(count: int) -> Callable[[Peer], float]:
    def use(peer: Peer) -> float:
        begin = time.perf_counter()
        found = peer.fan_out(work.bump, range(count))
        seconds = time.perf_counter() - begin
        _expect(found, list(range(1, count + 1)))
        return seconds

    return use


def fan_out(quick: bool) -> list[Contender]:
    use = _fan_out(200 if quick else 20_000)
    kinds = (
        peers.Lightwork,
        peers.Processes,
        peers.Multiprocessing,
        peers.Loky,
        peers.Pebble,
        peers.Mpire,
    )
    return [contender(kind, use) for kind in kinds]


def fan_out_threads(quick: bool) -> list[Contender]:
    use = _fan_out(200 if quick else 20_000)
    return [contender(kind, use) for kind in (peers.LightworkThreads, peers.Threads)]


def tiny_map(quick: bool) -> list[Contender]:
    count = 2000 if quick else 300_000
    wanted = list(range(1, count + 1))

    def use(chunksize: int | None = None) -> Callable[[Peer], float]:
        def measure(peer: Peer) -> float:
            begin = time.perf_counter()
            if chunksize is None:
                found = list(peer.map(work.bump, range(count)))
            else:
                found = list(peer.map_chunks(work.bump, range(count), chunksize))
            seconds = time.perf_counter() - begin
            _expect(found, wanted)
            return seconds

        return measure

    many = peers.Multiprocessing
    fair = count // (4 * WORKERS)
    return [
        contender(peers.Lightwork, use()),
        contender(many, use()),
        contender(many, use(1000), f"{many.name}, chunks of 1000"),
        contender(many, use(10_000), f"{many.name}, chunks of 10000"),
        contender(peers.Processes, use(fair), f"{peers.Processes.name}, chunks of {fair}"),
        contender(peers.Pebble, use(fair), f"{peers.Pebble.name}, chunks of {fair}"),
        contender(peers.Mpire, use()),
        contender(peers.Joblib, use()),
    ]


# -- calls that take a while -----------------------------------------------------------------------


def greedy(durations: Sequence[float]) -> float:
    """When a perfect pool is done: each call in order goes to the worker that is free first."""
    free = [0.0] * WORKERS
    for seconds in durations:
        heapq.heapreplace(free, free[0] + seconds)
    return max(free)


def _against_ideal(
    fn: Callable[[float], float], calls: Sequence[float], chunksize: int | None = None
) -> Callable[[Peer], float]:
    """Measures time as a multiple of the ideal one."""

    def use(peer: Peer) -> float:
        begin = time.perf_counter()
        if chunksize is None:
            durations = list(peer.map(fn, calls))
        else:
            durations = list(peer.map_chunks(fn, calls, chunksize))
        seconds = time.perf_counter() - begin
        if len(durations) != len(calls) or any(map(float.__gt__, calls, durations)):
            raise AssertionError("wrong results")
        return seconds / greedy(durations)

    return use


def _millisecond_map(fn: Callable[[float], float], quick: bool) -> list[Contender]:
    calls = [0.001] * (40 if quick else 2000)
    many, processes = peers.Multiprocessing, peers.Processes
    plain = _against_ideal(fn, calls)
    return [
        contender(peers.Lightwork, plain),
        contender(many, plain),
        contender(many, _against_ideal(fn, calls, 1), f"{many.name}, chunks of 1"),
        contender(processes, _against_ideal(fn, calls, 1), f"{processes.name}, chunks of 1"),
        contender(processes, _against_ideal(fn, calls, 25), f"{processes.name}, chunks of 25"),
        contender(peers.Joblib, plain),
        contender(peers.Mpire, plain),
    ]


def spin_map(quick: bool) -> list[Contender]:
    return _millisecond_map(work.spin, quick)


def doze_map(quick: bool) -> list[Contender]:
    return _millisecond_map(work.doze, quick)


def long_tail(quick: bool) -> list[Contender]:
    short, long = (0.001, 0.02) if quick else (0.005, 0.2)
    calls = [short] * 199 + [long]
    plain = _against_ideal(work.doze, calls)
    many, processes = peers.Multiprocessing, peers.Processes
    return [
        contender(peers.Lightwork, plain),
        contender(many, plain),
        contender(many, _against_ideal(work.doze, calls, 1), f"{many.name}, chunks of 1"),
        contender(processes, _against_ideal(work.doze, calls, 1), f"{processes.name}, chunks of 1"),
        contender(peers.Joblib, plain),
        contender(peers.Mpire, plain),
    ]


# -- big arrays ------------------------------------------------------------------------------------


def _size(quick: bool) -> int:
    return (2**20 if quick else 32 * 2**20) // 8


def arrays_in(quick: bool) -> list[Contender]:
    import numpy

    size = _size(quick)
    wanted = [float(n * len(range(0, size, 512))) for n in range(16)]

    def use(peer: Peer) -> float:
        # New ones each time: joblib remembers which arrays it has sent, and sends none again.
        arrays = [numpy.full(size, float(n)) for n in range(16)]
        begin = time.perf_counter()
        found = list(peer.map(work.read, arrays))
        seconds = time.perf_counter() - begin
        _expect(found, wanted)
        return seconds

    return _array_contenders(use)


def arrays_out(quick: bool) -> list[Contender]:
    orders = [(n, _size(quick)) for n in range(16)]

    def use(peer: Peer) -> float:
        begin = time.perf_counter()
        for n, array in enumerate(peer.map(work.give, orders)):
            if array[0] != n or array[-1] != 1 or len(array) != orders[0][1]:
                raise AssertionError("wrong results")
        return time.perf_counter() - begin

    return _array_contenders(use)


def _array_contenders(use: Callable[[Peer], float]) -> list[Contender]:
    kinds = (peers.Lightwork, peers.Processes, peers.Multiprocessing, peers.Joblib, peers.Loky)
    return [contender(kind, use) for kind in kinds]


# -- starting, and memory --------------------------------------------------------------------------


@contextmanager
def _fresh(measure: Callable[[], float]) -> Iterator[Measure]:
    yield measure


def imports(quick: bool) -> list[Contender]:
    names = {
        "lightwork": "import lightwork",
        "lightwork, with Pool": "from lightwork import Pool",
        "concurrent.futures": "from concurrent.futures import ProcessPoolExecutor",
        "multiprocessing": "import multiprocessing.pool",
        "joblib": "import joblib",
        "loky": "import loky",
        "pebble": "import pebble",
        "mpire": "import mpire",
    }
    return [
        Contender(name, lambda line=line: _fresh(lambda: alone.import_seconds(line)))  # type: ignore[misc]
        for name, line in names.items()
    ]


def first_result(quick: bool) -> list[Contender]:
    return [
        Contender(name, lambda name=name: _fresh(lambda: alone.first_result_seconds(name)))  # type: ignore[misc]
        for name in alone.FIRST
    ]


def memory(quick: bool) -> list[Contender]:
    count = 60_000 if quick else 10_000_000
    return [Contender("lightwork", lambda: _fresh(lambda: alone.growth_megabytes(count)))]


ROWS = (
    Row(
        "one-by-one",
        "submit(n + 1).result(), 2,000 times one after the other; seconds for each",
        one_by_one,
        (Need("ProcessPoolExecutor", 3),),
    ),
    Row(
        "fan-out",
        "20,000 submits of n + 1, then all results",
        fan_out,
        (Need("ProcessPoolExecutor", 8), Need("multiprocessing.Pool", 2.5)),
    ),
    Row(
        "tiny-map",
        "list(map(n + 1, range(300,000))), no chunk size given unless said",
        tiny_map,
        (Need("multiprocessing.Pool", 1), Need("joblib", 10)),
        rounds=3,
    ),
    Row(
        "1ms-cpu",
        "map of 2,000 calls that each use 1 ms of a core",
        spin_map,
        (Limit(1 / 0.95),),
        unit="x ideal",
        rounds=3,
        ideal="2,000 x 1 ms / 2 workers",
    ),
    Row(
        "1ms-sleep",
        "map of 2,000 calls that each sleep 1 ms",
        doze_map,
        (Limit(1 / 0.95),),
        unit="x ideal",
        rounds=3,
        ideal="what the calls measured themselves to take, in order, each on the first free worker",
    ),
    Row(
        "long-tail",
        "map of 199 calls of 5 ms, then one of 200 ms (they sleep)",
        long_tail,
        (Limit(1 / 0.95),),
        unit="x ideal",
        ideal="as in 1ms-sleep: the long call starts when the first worker is free for it",
    ),
    Row(
        "arrays-in",
        "16 different, new arrays of 32 MB as arguments; each page is read",
        arrays_in,
        (Need("ProcessPoolExecutor", 5), Need("joblib", 1)),
    ),
    Row(
        "arrays-out",
        "16 arrays of 32 MB as results",
        arrays_out,
        (Need("ProcessPoolExecutor", 3), Need("joblib", 1)),
    ),
    Row(
        "threads",
        "20,000 submits of n + 1 to threads, then all results",
        fan_out_threads,
        (Need("ThreadPoolExecutor", 1),),
        ours="lightwork threads",
    ),
    Row(
        "import",
        "the import statement, in a fresh interpreter (lightwork loads its names on first use)",
        imports,
        (Limit(0.060),),
        rounds=7,
        ours="lightwork, with Pool",
    ),
    Row(
        "first-result",
        "making a pool, one submit, its result, in a fresh interpreter that has the imports done",
        first_result,
        (Need("ProcessPoolExecutor, forkserver", 1),),
        rounds=7,
    ),
    Row(
        "memory",
        "growth of resident memory (parent and workers) while 10,000,000 items go through map and "
        "are consumed one by one; highest less that after the first 200,000",
        memory,
        (Limit(30),),
        unit="MB",
        rounds=1,
    ),
)
