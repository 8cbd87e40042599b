"""Five processes use everything that can be shared, and are killed at random, for minutes:
``python benchmarks/soak_share.py``.

Whatever a worker has done it writes to a file first and last, which survives it. In the end the
books must balance: no item of the queue was seen twice, none is missing but those that the queue
says were lost; sums are what was added, give or take the one addition that each death may have cut
short; what changes together under a lock is equal; nobody hangs; and no record, descriptor or
process is left.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import gc
import os
import queue
import random
import signal
import struct
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from lightwork import DeadlockError, OwnerDied, Pool, WorkerCrashed, share
from lightwork.share.families import home

WORKERS = 5
PATIENCE = 60.0
"""Seconds without a step by anybody, after which something hangs."""

NOTE = struct.Struct("=cQ")
PUTTING, PUT, GOT, ADDING, ADDED = b"P", b"p", b"g", b"A", b"a"


class World:
    """What all share; travels to the workers."""

    def __init__(self) -> None:
        self.lock, self.other = share.Lock("first"), share.RLock("second")
        self.pair = share.Value("q", lock=False), share.Value("q", lock=False)
        self.condition = share.Condition(name="buffer")
        self.buffer = share.List(name="buffer")
        self.table = share.Dict({"n": 0})
        self.counter, self.number = share.Counter(), share.Value("q")
        self.semaphore, self.bounded = share.Semaphore(2), share.BoundedSemaphore(2)
        self.event, self.barrier = share.Event(), share.Barrier(2)
        self.queue, self.small = share.Queue(), share.Queue(3)
        self.ends = share.Pipe()
        self.array = share.Array(64, "q")
        self.steps, self.stop = share.Counter(), share.Event()
        self.started = share.Dict()  # the workers that may be hurt: a pool needs some that start


class Worker:
    """One worker's life, until it is told to stop, or killed."""

    def __init__(self, world: World, path: str, seed: int) -> None:
        self.world = world
        self.draw = random.Random(seed)
        self.file = os.open(path, os.O_WRONLY | os.O_APPEND)
        self.next = seed << 32

    def note(self, what: bytes, number: int = 0) -> None:
        os.write(self.file, NOTE.pack(what, number))

    def run(self) -> int:
        steps = 0
        self.world.started[os.getpid()] = True
        while not self.world.stop.is_set():
            self.draw.choice(STEPS)(self)
            self.world.steps.add()
            steps += 1
        os.close(self.file)
        return steps

    def under_lock(self) -> None:
        world = self.world
        try:
            world.lock.acquire()
        except OwnerDied:
            world.pair[1].value = world.pair[0].value
        try:
            expect(world.pair[0].value == world.pair[1].value)
            world.pair[0].value += 1
            world.pair[1].value += 1
        finally:
            world.lock.release()

    def two_locks(self) -> None:
        locks = [self.world.lock, self.world.other]
        self.draw.shuffle(locks)
        held = []
        try:
            for one in locks:
                try:
                    one.acquire()
                except OwnerDied:
                    self.world.pair[1].value = self.world.pair[0].value
                held.append(one)
        except DeadlockError as error:
            expect(len(error.circle) >= 2)
        finally:
            for one in reversed(held):
                one.release()

    def add(self) -> None:
        self.note(ADDING)
        self.world.counter.add(1)
        while True:
            try:
                with self.world.number.get_lock():
                    self.world.number.value += 1
                break
            except OwnerDied:
                self._repair(self.world.number.get_lock())
        self.world.table.update_with("n", lambda before: before + 1)
        self.note(ADDED)

    @staticmethod
    def _repair(lock: Any) -> None:
        with contextlib.suppress(OwnerDied):
            lock.acquire()
        lock.release()  # a single number is never half changed

    def put(self) -> None:
        for _ in range(self.draw.randrange(1, 20)):
            self.next += 1
            self.note(PUTTING, self.next)
            filler = bytes(self.draw.choice([0, 10, 1000, 100_000]))
            self.world.queue.put((self.next, filler))
            self.note(PUT, self.next)

    def get(self) -> None:
        with contextlib.suppress(queue.Empty):
            for _ in range(self.draw.randrange(1, 25)):
                number, _ = self.world.queue.get(timeout=0.01)
                self.note(GOT, number)

    def bounded_queue(self) -> None:
        with contextlib.suppress(queue.Full, queue.Empty):
            if self.draw.random() < 0.5:
                self.world.small.put(1, timeout=0.01)
            else:
                self.world.small.get(timeout=0.01)

    def in_buffer(self) -> None:
        condition, buffer = self.world.condition, self.world.buffer
        with contextlib.suppress(OwnerDied):
            condition.acquire()
        try:
            if self.draw.random() < 0.5:
                buffer.append([1, "two"])
                condition.notify()
            elif buffer.pop_if_any() is None:
                with contextlib.suppress(OwnerDied):
                    condition.wait(0.02)
        except OwnerDied:
            pass
        finally:
            condition.release()

    def permits(self) -> None:
        for one in (self.world.semaphore, self.world.bounded):
            if one.acquire(timeout=5):
                one.release()

    def flag(self) -> None:
        self.world.event.set() if self.draw.random() < 0.5 else self.world.event.clear()
        self.world.event.wait(0.005)

    def meet(self) -> None:
        try:
            self.world.barrier.wait(0.02)
        except threading.BrokenBarrierError:
            self.world.barrier.reset()

    def talk(self) -> None:
        here, there = self.world.ends
        here.send({"n": 1})
        expect(there.recv(PATIENCE) == {"n": 1})

    def cells(self) -> None:
        self.world.array[self.draw.randrange(64)] += 1

    def own(self) -> None:
        made: list[Any] = [share.Lock(), share.Queue(), share.List([1]), share.Array(10)]
        lock, items = made[0], made[1]
        with lock:
            items.put(lock)
            expect(items.get() is lock)


STEPS = [
    Worker.under_lock, Worker.two_locks, Worker.add, Worker.put, Worker.get, Worker.get,
    Worker.bounded_queue, Worker.in_buffer, Worker.permits, Worker.flag, Worker.meet,
    Worker.talk, Worker.cells, Worker.own,
]  # fmt: skip


def expect(truth: bool, what: object = "") -> None:
    """Like assert, but not left out by -O."""
    if not truth:
        raise AssertionError(f"wrong: {what!r}")


def work(world: World, path: str, seed: int) -> int:
    return Worker(world, path, seed).run()


def _workers() -> list[int]:
    """The workers: what our fork server has started."""
    found = []
    for server in _children(os.getpid()):
        found += _children(server)
    return found


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _hurt(world: World, draw: random.Random) -> int:
    """Kill a worker, or stop it for a moment; returns how many were killed."""
    workers = [pid for pid in _workers() if pid in world.started]
    if not workers:
        return 0
    victim = draw.choice(workers)
    with contextlib.suppress(ProcessLookupError):
        if draw.random() < 0.8:
            os.kill(victim, signal.SIGKILL)
            return 1
        os.kill(victim, signal.SIGSTOP)
        time.sleep(draw.random() * 0.3)
        os.kill(victim, signal.SIGCONT)
    return 0


def rampage(world: World, path: str, seed: int, seconds: float) -> int:
    """Let them work, and hurt them, for so long; returns how many were killed."""
    draw = random.Random(seed)
    killed, started = 0, seed * 1000
    seen, since = 0, time.monotonic()
    end = time.monotonic() + seconds
    with Pool("processes", WORKERS) as pool:
        tasks: list[Any] = []
        while time.monotonic() < end or tasks:
            if time.monotonic() >= end:
                world.stop.set()
            for one in [one for one in tasks if one.done()]:
                tasks.remove(one)
                error = one.exception()
                expect(error is None or isinstance(error, WorkerCrashed), error)
            while len(tasks) < WORKERS and not world.stop.is_set():
                started += 1
                tasks.append(pool.submit(work, world, path, started))
            time.sleep(draw.random() * 0.15)
            if not world.stop.is_set():
                killed += _hurt(world, draw)
            if world.steps.value != seen:
                seen, since = world.steps.value, time.monotonic()
            elif time.monotonic() - since > PATIENCE:
                for pid in _workers():
                    print(pid, Path(f"/proc/{pid}/wchan").read_text(), file=sys.stderr)
                raise TimeoutError(f"nobody has done a step for {PATIENCE:g} s")
    return killed


def balance(world: World, path: str, killed: int) -> None:
    """Look whether the books are right."""
    notes: dict[bytes, Counter[int]] = {
        kind: Counter() for kind in (PUTTING, PUT, GOT, ADDING, ADDED)
    }
    for what, number in NOTE.iter_unpack(Path(path).read_bytes()):
        notes[what][number] += 1
    left = Counter[int]()
    with contextlib.suppress(queue.Empty):
        while True:
            left[world.queue.get(timeout=0.3)[0]] += 1
    seen = notes[GOT] + left
    lost = world.queue.lost
    missing = [number for number in notes[PUT] if number not in seen]
    expect(max(seen.values(), default=1) == 1, "an item came twice")
    expect(all(number in notes[PUTTING] for number in seen), "an item that nobody put")
    expect(len(missing) <= lost <= killed, (len(missing), lost, killed))
    least, most = notes[ADDED][0], notes[ADDING][0]
    for found in (world.counter.value, world.number.value, world.table["n"]):
        expect(least <= found <= most, (least, found, most))
    expect(most - least <= killed)
    one: Any
    for one in (world.lock, world.other, world.condition):
        with contextlib.suppress(OwnerDied):
            expect(one.acquire(timeout=PATIENCE))
        one.release()
    expect(abs(world.pair[0].value - world.pair[1].value) <= 1)
    for one in (world.semaphore, world.bounded):
        expect(one.acquire(timeout=PATIENCE) and one.acquire(timeout=PATIENCE))
        expect(not one.acquire(blocking=False))
    print(
        f"{world.steps.value} steps; {killed} processes killed; {sum(notes[PUT].values())} items "
        f"put, {sum(notes[GOT].values())} got, {sum(left.values())} left, {lost} lost; {least} to "
        f"{most} additions, {world.counter.value} found"
    )


def soak(minutes: float, seed: int) -> int:
    """Run it all; return the exit status."""
    with Pool("processes", 1) as pool:  # the fork server comes, and stays
        pool.submit(abs, 1).result()
    commons = home()
    records, descriptors = sum(commons.states), len(os.listdir("/proc/self/fd"))
    faulthandler.dump_traceback_later(minutes * 60 + 4 * PATIENCE, exit=True)
    with tempfile.NamedTemporaryFile() as file:
        world = World()
        killed = rampage(world, file.name, seed, minutes * 60)
        balance(world, file.name, killed)
    del world
    left = _settled(records, descriptors)
    faulthandler.cancel_dump_traceback_later()
    print(f"records, descriptors: {records}, {descriptors} before; {left[0]}, {left[1]} after")
    return int(left != (records, descriptors) or bool(_workers()))


def _settled(records: int, descriptors: int) -> tuple[int, int]:
    """Counts once nothing changes any more."""
    from lightwork.share import commons as module

    module.IN_FLIGHT = 0  # as if the hour had passed that pickles of killed tasks are kept
    commons = home()
    end = time.monotonic() + 10
    while True:
        gc.collect()
        commons.sweep(now=True)
        with commons:
            commons._collect()
        now = sum(commons.states), len(os.listdir("/proc/self/fd"))
        if now == (records, descriptors) or time.monotonic() > end:
            return now
        time.sleep(0.05)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=int(time.time()) % 100_000)
    options = parser.parse_args(argv)
    print(f"soaking for {options.minutes:g} minutes with --seed {options.seed}", flush=True)
    return soak(options.minutes, options.seed)


if __name__ == "__main__":
    from benchmarks import soak_share  # so that the workers import this by its name

    sys.exit(soak_share.main())
