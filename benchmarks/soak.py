"""Mixes everything at random for minutes, and checks what must hold: ``python benchmarks/soak.py``.

Several users (threads) share a few pools of all kinds; each does a random thing, again and again:
submits, maps, cancels, kills, time limits, retries, crashes, exceptions, big buffers, resizes,
pools that are opened and ended. Meanwhile workers are killed and stopped from outside.

Invariants: every result is exact; every error is one that was asked for, or a crash that came
from outside; nothing takes longer than a minute; at the end no thread, process or descriptor is
left. The same seed gives the same choices (though not the same timing).
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.work import bump
from lightwork import (
    CannotPickle,
    Failure,
    Pool,
    Retry,
    TaskKilled,
    TaskTimeout,
    WorkerCrashed,
)
from lightwork.testing import Saboteur, harm

PATIENCE = 60.0
"""Seconds that any one step may take at most; then all stacks are shown, and it has failed."""


def work(seconds: float, value: int) -> int:
    if seconds:
        time.sleep(seconds)
    return value * value


def fail(value: int) -> int:
    raise ValueError(value)


def maybe(value: int) -> int:
    """Fails for every seventh value, dies for every fiftieth."""
    if value % 50 == 49:
        harm("kill")
    if value % 7 == 6:
        raise ValueError(value)
    return value


def echo(data: bytes) -> bytes:
    return data


class World:
    """What the users share."""

    def __init__(self, pools: list[Pool]) -> None:
        self.pools = pools
        self.done: Counter[str] = Counter()
        self.errors: list[str] = []
        self.stopping = threading.Event()


class User:
    """A thread that does random things."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.draw = random.Random(seed)
        self.now = "nothing"
        self.since = time.monotonic()
        self.thread = threading.Thread(target=self.run, name=f"user-{seed}", daemon=True)

    def run(self) -> None:
        while not self.world.stopping.is_set():
            step = self.draw.choice(STEPS)
            pool = self.draw.choice(self.world.pools)
            self.now, self.since = f"{step.__name__} on {pool!r}", time.monotonic()
            try:
                step(self, pool)
            except BaseException as error:
                self.world.errors.append(f"{self.now}: {type(error).__name__}: {error}")
                self.world.stopping.set()
                raise
            self.world.done[step.__name__] += 1
        self.now = "nothing"

    # -- what it does ------------------------------------------------------------------------------

    def submit(self, pool: Pool) -> None:
        count = self.draw.randrange(1, 200)
        seconds = self.draw.choice([0, 0, 0, 0.001])
        futures = [pool.submit(work, seconds, n) for n in range(count)]
        for n, one in enumerate(futures):
            error = one.exception(PATIENCE)
            if error is None:
                expect(one.result() == n * n)
            else:
                expect(pool.kind == "processes" and isinstance(error, WorkerCrashed), error)

    def one_by_one(self, pool: Pool) -> None:
        stubborn = pool.options(retry=Retry(50, on=WorkerCrashed))
        for n in range(50):
            expect(stubborn.submit(bump, n).result(PATIENCE) == n + 1)

    def map(self, pool: Pool) -> None:
        stubborn = pool.options(retry=Retry(50, on=WorkerCrashed))
        count = self.draw.choice([0, 1, 10, 1000, 5000])
        chunksize = self.draw.choice([None, None, 1, 17, 1000])
        if self.draw.random() < 0.5:
            expect(
                list(stubborn.map(bump, range(count), chunksize=chunksize))
                == list(range(1, count + 1))
            )
        else:
            found = stubborn.map(bump, range(count), chunksize=chunksize, ordered=False)
            expect(sorted(found) == list(range(1, count + 1)))

    def map_with_failures(self, pool: Pool) -> None:
        if pool.kind != "processes":
            return
        results = list(pool.map(maybe, range(200), on_error="return"))
        expect(len(results) == 200)
        for n, one in enumerate(results):
            if isinstance(one, Failure):
                expect(one.index == n)
                expect(n % 50 == 49 or n % 7 == 6 or isinstance(one.exception, WorkerCrashed), one)
            else:
                expect(one == n and n % 50 != 49 and n % 7 != 6, n)

    def break_off(self, pool: Pool) -> None:
        stop = self.draw.randrange(100)
        with contextlib.suppress(WorkerCrashed):
            for at, one in enumerate(pool.map(bump, iter(int, 1))):
                expect(one == 1)
                if at == stop:
                    break

    def cancel(self, pool: Pool) -> None:
        futures = [pool.submit(work, 0.0005, n) for n in range(40)]
        for one in self.draw.sample(futures, 20):
            one.cancel()
        for n, one in enumerate(futures):
            try:
                expect(one.result(PATIENCE) == n * n)
            except (CancelledError, WorkerCrashed):
                pass

    def kill(self, pool: Pool) -> None:
        if pool.kind == "serial":
            return
        future = pool.submit(work, 0.05, 3)
        time.sleep(self.draw.random() * 0.06)
        future.kill()
        try:
            expect(future.result(PATIENCE) == 9)
        except (CancelledError, TaskKilled, WorkerCrashed):
            pass

    def time_limit(self, pool: Pool) -> None:
        if pool.kind == "serial":
            return
        try:
            expect(pool.options(timeout=0.02).submit(work, 0.04, 3).result(PATIENCE) == 9)
        except (TaskTimeout, WorkerCrashed):
            pass

    def error(self, pool: Pool) -> None:
        error = pool.submit(fail, 5).exception(PATIENCE)
        expect(isinstance(error, (ValueError, WorkerCrashed)), error)

    def sabotage(self, pool: Pool) -> None:
        if pool.kind != "processes":
            return
        stage = self.draw.choice(["pickle", "unpickle", "del"])
        how = "raise" if stage == "pickle" else self.draw.choice(["exit-0", "exit-3", "kill"])
        bad = Saboteur(stage, how, None if stage == "pickle" else os.getpid())
        error = pool.submit(id, bad).exception(PATIENCE)
        expect(isinstance(error, (CannotPickle, WorkerCrashed)), error)

    def big(self, pool: Pool) -> None:
        data = self.draw.randbytes(1000) * self.draw.choice([1, 70, 1000, 8000])
        stubborn = pool.options(retry=Retry(50, on=WorkerCrashed))
        expect(stubborn.submit(echo, data).result(PATIENCE) == data)
        expect(stubborn.submit(echo, bytearray(data)).result(PATIENCE) == data)

    def resize(self, pool: Pool) -> None:
        pool.resize(self.draw.randrange(1, 4))
        pool.statistics()

    def own_pool(self, _: Pool) -> None:
        kind = self.draw.choice(["threads", "processes", "processes", "serial"])
        method = self.draw.choice([None, None, "spawn"]) if kind == "processes" else None
        with Pool(kind, 2, start_method=method) as pool:
            for n in range(self.draw.randrange(10)):
                with contextlib.suppress(WorkerCrashed):
                    expect(pool.submit(bump, n).result(PATIENCE) == n + 1)
            ending = self.draw.randrange(4)
            if ending == 0:
                pool.kill_workers()
            elif ending == 1:
                pool.submit(work, 0.01, 1)
                pool.shutdown(wait=False, cancel_futures=True)


STEPS: list[Callable[[User, Pool], None]] = [
    User.submit,
    User.submit,
    User.one_by_one,
    User.map,
    User.map,
    User.map_with_failures,
    User.break_off,
    User.cancel,
    User.kill,
    User.time_limit,
    User.error,
    User.sabotage,
    User.big,
    User.resize,
    User.own_pool,
]


def expect(truth: bool, what: object = "") -> None:
    """Like assert, but not left out by -O."""
    if not truth:
        raise AssertionError(f"wrong: {what!r}")


class Violence(threading.Thread):
    """Kills, and stops for a moment, worker processes from outside."""

    def __init__(self, world: World, seed: int) -> None:
        super().__init__(name="violence", daemon=True)
        self.world = world
        self.draw = random.Random(seed)
        self.killed = self.stopped = 0

    def run(self) -> None:
        while not self.world.stopping.wait(self.draw.random() * 0.4):
            workers = _workers()
            if not workers:
                continue
            victim = self.draw.choice(workers)
            with contextlib.suppress(ProcessLookupError):
                if self.draw.random() < 0.7:
                    os.kill(victim, signal.SIGKILL)
                    self.killed += 1
                else:
                    os.kill(victim, signal.SIGSTOP)
                    time.sleep(self.draw.random() * 0.2)
                    os.kill(victim, signal.SIGCONT)
                    self.stopped += 1


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            text = Path(f"/proc/{pid}/task/{thread}/children").read_text()
            found += [int(one) for one in text.split()]
    return found


def _workers() -> list[int]:
    """Our grandchildren: the workers that the fork server started."""
    return [pid for server in _children(os.getpid()) for pid in _children(server)]


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def soak(minutes: float, seed: int, users: int) -> int:
    """Run it all; return the exit status."""
    with Pool("processes", 2) as pool:  # the fork server comes, and stays
        pool.submit(bump, 1).result()
    before = threading.active_count(), _descriptors()
    pools = [
        Pool("processes", 2),
        Pool("processes", 2, max_tasks_per_child=20),
        Pool("processes", 3, idle_timeout=0.02),
        Pool("threads", 3),
        Pool("serial"),
    ]
    world = World(pools)
    crew = [User(world, seed * 1000 + number) for number in range(users)]
    violence = Violence(world, seed)
    violence.start()
    for one in crew:
        one.thread.start()
    end = time.monotonic() + minutes * 60
    status = _watch(world, crew, end)
    if status:
        return status
    faulthandler.dump_traceback_later(PATIENCE, exit=True)
    violence.join()
    for pool in pools:
        pool.shutdown()
    del pools, world.pools
    faulthandler.cancel_dump_traceback_later()
    after = _settled(before)
    print(f"seed {seed}: {sum(world.done.values())} steps {dict(sorted(world.done.items()))}")
    print(f"{violence.killed} workers killed, {violence.stopped} stopped from outside")
    print(
        f"threads and descriptors: {before} before, {after} after; {len(_workers())} workers left"
    )
    if after != before or _workers():
        print("something was left behind")
        return 1
    return 0


def _watch(world: World, crew: list[User], end: float) -> int:
    """Wait for the end, or for something that takes too long."""
    while True:
        left = end - time.monotonic()
        if left <= 0:
            world.stopping.set()
        world.stopping.wait(min(max(left, 0), 1.0))
        now = time.monotonic()
        slow = [one for one in crew if one.thread.is_alive() and now - one.since > PATIENCE + 10]
        if slow:
            print("hangs:", "; ".join(one.now for one in slow))
            faulthandler.dump_traceback(all_threads=True)
            return 2
        if world.errors:
            print("\n".join(world.errors))
            return 1
        if world.stopping.is_set():
            for one in crew:
                one.thread.join(0.2)
            if not any(one.thread.is_alive() for one in crew):
                return 0


def _settled(before: tuple[int, int]) -> tuple[int, int]:
    """Counts once nothing changes any more: what was ended without waiting needs a moment."""
    end = time.monotonic() + 5
    while True:
        now = threading.active_count(), _descriptors()
        if (now == before and not _workers()) or time.monotonic() > end:
            return now
        time.sleep(0.05)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=int(time.time()) % 100_000)
    parser.add_argument("--users", type=int, default=6)
    options = parser.parse_args(argv)
    print(f"soaking for {options.minutes:g} minutes with --seed {options.seed}", flush=True)
    status = soak(options.minutes, options.seed, options.users)
    sys.stdout.flush()
    if status == 2:
        os._exit(status)  # what hangs would hang the end, too
    return status


if __name__ == "__main__":
    sys.exit(main())
