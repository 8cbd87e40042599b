"""The pools that lightwork is compared with, each in its best documented use.

A peer is a name, and a pool with two workers that stays open while a row is measured, so that
nobody pays for starting workers but in the rows that are about that. Whoever is not installed is
left out, and said to be.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

WORKERS = 2

Fn = Callable[[Any], Any]


class Peer:
    """A pool. What it cannot do raises NotImplementedError."""

    name = ""

    def apply(self, fn: Fn, item: Any) -> Any:
        """One call, and wait for it."""
        raise NotImplementedError

    def fan_out(self, fn: Fn, items: Sequence[Any]) -> list[Any]:
        """Submit one call for each item, then take all results."""
        raise NotImplementedError

    def map(self, fn: Fn, items: Sequence[Any]) -> Iterable[Any]:
        """Results in order, without a word about chunks."""
        raise NotImplementedError

    def map_chunks(self, fn: Fn, items: Sequence[Any], chunksize: int) -> Iterable[Any]:
        """Results in order, in chunks of this size."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class OfExecutor(Peer):
    """Whatever follows ``concurrent.futures``."""

    def __init__(self, pool: Executor) -> None:
        self.pool = pool

    def apply(self, fn: Fn, item: Any) -> Any:
        return self.pool.submit(fn, item).result()

    def fan_out(self, fn: Fn, items: Sequence[Any]) -> list[Any]:
        return [one.result() for one in [self.pool.submit(fn, item) for item in items]]

    def map(self, fn: Fn, items: Sequence[Any]) -> Iterable[Any]:
        return self.pool.map(fn, items)

    def map_chunks(self, fn: Fn, items: Sequence[Any], chunksize: int) -> Iterable[Any]:
        return self.pool.map(fn, items, chunksize=chunksize)

    def close(self) -> None:
        self.pool.shutdown()


class Lightwork(OfExecutor):
    name = "lightwork"

    def __init__(self) -> None:
        from lightwork import Pool

        super().__init__(Pool("processes", WORKERS))


class LightworkThreads(OfExecutor):
    name = "lightwork threads"

    def __init__(self) -> None:
        from lightwork import Pool

        super().__init__(Pool("threads", WORKERS))


class Processes(OfExecutor):
    name = "ProcessPoolExecutor"

    def __init__(self) -> None:
        super().__init__(ProcessPoolExecutor(WORKERS))


class Threads(OfExecutor):
    name = "ThreadPoolExecutor"

    def __init__(self) -> None:
        super().__init__(ThreadPoolExecutor(WORKERS))


class Loky(OfExecutor):
    name = "loky"

    def __init__(self) -> None:
        import loky

        super().__init__(loky.ProcessPoolExecutor(WORKERS))


class Multiprocessing(Peer):
    name = "multiprocessing.Pool"

    def __init__(self) -> None:
        self.pool = multiprocessing.Pool(WORKERS)

    def apply(self, fn: Fn, item: Any) -> Any:
        return self.pool.apply(fn, (item,))

    def fan_out(self, fn: Fn, items: Sequence[Any]) -> list[Any]:
        return [one.get() for one in [self.pool.apply_async(fn, (item,)) for item in items]]

    def map(self, fn: Fn, items: Sequence[Any]) -> Iterable[Any]:
        return self.pool.map(fn, items)

    def map_chunks(self, fn: Fn, items: Sequence[Any], chunksize: int) -> Iterable[Any]:
        return self.pool.map(fn, items, chunksize)

    def close(self) -> None:
        self.pool.close()
        self.pool.join()


class Joblib(Peer):
    name = "joblib"

    def __init__(self) -> None:
        import joblib

        self.joblib = joblib
        self.parallel = joblib.Parallel(n_jobs=WORKERS)
        self.parallel.__enter__()

    def map(self, fn: Fn, items: Sequence[Any]) -> Iterable[Any]:
        call = self.joblib.delayed(fn)
        results: list[Any] = self.parallel(call(item) for item in items)
        return results

    def close(self) -> None:
        from joblib.externals.loky import get_reusable_executor

        self.parallel.__exit__(None, None, None)
        get_reusable_executor().shutdown(wait=True)


class Pebble(Peer):
    name = "pebble"

    def __init__(self) -> None:
        import pebble

        self.pool = pebble.ProcessPool(max_workers=WORKERS)

    def apply(self, fn: Fn, item: Any) -> Any:
        return self.pool.submit(fn, None, item).result()

    def fan_out(self, fn: Fn, items: Sequence[Any]) -> list[Any]:
        return [one.result() for one in [self.pool.submit(fn, None, item) for item in items]]

    def map(self, fn: Fn, items: Sequence[Any]) -> Iterable[Any]:
        results: Iterable[Any] = self.pool.map(fn, items).result()
        return results

    def map_chunks(self, fn: Fn, items: Sequence[Any], chunksize: int) -> Iterable[Any]:
        results: Iterable[Any] = self.pool.map(fn, items, chunksize=chunksize).result()
        return results

    def close(self) -> None:
        self.pool.close()  # type: ignore[no-untyped-call]
        self.pool.join()


class Mpire(Peer):
    name = "mpire"

    def __init__(self) -> None:
        import mpire

        self.pool = mpire.WorkerPool(WORKERS, keep_alive=True)  # type: ignore[attr-defined]

    def fan_out(self, fn: Fn, items: Sequence[Any]) -> list[Any]:
        return [one.get() for one in [self.pool.apply_async(fn, (item,)) for item in items]]

    def map(self, fn: Fn, items: Sequence[Any]) -> Iterable[Any]:
        results: Iterable[Any] = self.pool.map(fn, items)
        return results

    def close(self) -> None:
        self.pool.stop_and_join()
        self.pool.terminate()
