"""What it costs to keep results, to forward log records, and to remember a run.

``python benchmarks/observe.py [--rounds N] [--tasks N] [--only NAME] [--million] [--quick]``

Each is measured beside the same work without it, in turns, in one run, with two worker processes
and calls that take a millisecond of a core's own time. Two ratios are printed, medians of the
rounds: of the time on the clock, and of the processor time of all processes together, which a
busy machine disturbs less. Log records: five a call, so about 10,000 a second, to a handler that
only counts: one of the parent's, and beside it one of the workers' own.

``--million``: a million items through the command, with and without a checkpoint, and again from
it: the rate, and the memory of the command and of all its processes when 10, 50 and 90 % of the
time are over.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from lightwork import Pool

CALL = 1e-3
"""Seconds of processor time that a call takes."""

RECORDS = 5
"""Log records a call."""

LIMITS = {"checkpoint": 1.05, "log records": 1.05, "trace": 1.03}
"""What each may cost: the ratio that must not be passed."""

log = logging.getLogger("benchmarks.observe")


class Nowhere(logging.Handler):
    """Counts records, and does nothing with them."""

    count = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Count it."""
        Nowhere.count += 1


def spin(n: int) -> int:
    """Keep a core busy for CALL of its time."""
    end = time.thread_time() + CALL
    while time.thread_time() < end:
        pass
    return n


def talk(n: int) -> int:
    """The same, with RECORDS log records on the way."""
    for part in range(RECORDS):
        end = time.thread_time() + CALL / RECORDS
        while time.thread_time() < end:
            pass
        log.info("item %d, part %d", n, part)
    return n


def keep_records_here() -> None:
    """An initializer: records stay in the worker."""
    logging.getLogger().addHandler(Nowhere())
    logging.getLogger().setLevel(logging.INFO)


class Cost(NamedTuple):
    """What a run took."""

    wall: float
    cpu: float


class Pair(NamedTuple):
    """Work without, and with."""

    name: str
    without: Callable[[int], None]
    with_it: Callable[[int], None]


def processes(root: int) -> Iterator[int]:
    """A process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                fields = Path("/proc", name, "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(name))
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        yield pid
        waiting += children.get(pid, [])


def cpu_time() -> float:
    """Processor seconds of this process and all its workers."""
    ticks = 0
    for pid in processes(os.getpid()):
        try:
            fields = Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def measure(run: Callable[[int], None], tasks: int) -> Cost:
    """Do `tasks` calls."""
    cpu, wall = cpu_time(), time.perf_counter()
    run(tasks)
    return Cost(time.perf_counter() - wall, cpu_time() - cpu)


def pairs(stack: ExitStack) -> list[Pair]:
    """What is compared; the pools are there for all rounds."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    plain = stack.enter_context(Pool("processes", 2))
    alone = stack.enter_context(Pool("processes", 2, logs=False, initializer=keep_records_here))
    traced = stack.enter_context(Pool("processes", 2, trace=True))
    numbers = iter(range(10**9))

    def run(pool: Pool, fn: Callable[[int], int], tasks: int, **options: Any) -> None:
        assert list(pool.map(fn, range(tasks), **options)) == list(range(tasks))

    def checkpointed(tasks: int) -> None:
        path = folder / f"{next(numbers)}.db"
        run(plain, spin, tasks, checkpoint=path)
        path.unlink()

    return [
        Pair("checkpoint", lambda n: run(plain, spin, n), checkpointed),
        Pair("log records", lambda n: run(alone, talk, n), lambda n: run(plain, talk, n)),
        Pair("trace", lambda n: run(plain, spin, n), lambda n: run(traced, spin, n)),
    ]


def compare(rounds: int, tasks: int, only: str | None = None) -> None:
    """Run, and print the table."""
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    root.addHandler(Nowhere())
    print(f"{tasks} calls of {1000 * CALL:g} ms on two worker processes, {rounds} rounds")
    print(f"{'':12} {'without':>9} {'with':>9} {'clock':>7} {'cpu':>7} {'limit':>6}")
    with ExitStack() as stack:
        for pair in pairs(stack):
            if only is not None and only != pair.name:
                continue
            for run in (pair.without, pair.with_it):
                run(min(tasks, 200))  # start workers, learn how long calls take
            walls, cpus, before, after = [], [], [], []
            for _ in range(rounds):
                without = measure(pair.without, tasks)
                with_it = measure(pair.with_it, tasks)
                before.append(without.wall)
                after.append(with_it.wall)
                walls.append(with_it.wall / without.wall)
                cpus.append(with_it.cpu / max(without.cpu, 1e-9))
            middle = [statistics.median(one) for one in (before, after, walls, cpus)]
            print(
                f"{pair.name:12} {middle[0]:7.3f} s {middle[1]:7.3f} s {middle[2]:7.3f}"
                f" {middle[3]:7.3f} {LIMITS[pair.name]:6.2f}",
                flush=True,
            )
    root.handlers.clear()


def million(items: int) -> None:
    """Send many items through the command."""
    with tempfile.TemporaryDirectory() as folder:
        whole = b""
        for title, options in (
            ("plain", []),
            ("with a checkpoint", ["--resume"]),
            ("from the checkpoint", ["--resume"]),
        ):
            out = Path(folder, "out.jsonl")
            out.unlink(missing_ok=True)
            words = ["map", "math:sqrt", "--range", f"0:{items}", "-o", str(out), "--quiet"]
            begin = time.perf_counter()
            process = subprocess.Popen([sys.executable, "-m", "lightwork", *words, *options])
            sizes = list(_sizes(process))
            seconds = time.perf_counter() - begin
            assert process.returncode == 0
            found = out.read_bytes()
            assert found.count(b"\n") == items
            assert not whole or found == whole, "the results differ"
            whole = found
            print(
                f"{items:,} items, {title}: {seconds:.1f} s, {items / seconds:,.0f} a second; "
                f"memory (MiB): command {_told([own for own, _ in sizes])}, "
                f"all {_told([together for _, together in sizes])}",
                flush=True,
            )


def _told(sizes: list[float]) -> str:
    parts = " ".join(f"{sizes[len(sizes) * at // 10]:.0f}" for at in (1, 5, 9))
    return f"{parts}, at most {max(sizes):.0f}"


def _sizes(process: subprocess.Popen[bytes]) -> Iterator[tuple[float, float]]:
    """The resident memory in MiB of a process, and of it and its descendants, until it ends."""
    page = os.sysconf("SC_PAGE_SIZE")
    yield 0.0, 0.0
    while process.poll() is None:
        found = []
        for pid in processes(process.pid):
            try:
                found.append(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page / 2**20)
            except (OSError, IndexError):
                found.append(0.0)  # it is just ending
        yield found[0], sum(found)
        time.sleep(0.1)


def main() -> None:
    """Parse the options, and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--only", choices=sorted(LIMITS), help="measure this one alone")
    parser.add_argument("--million", action="store_true")
    parser.add_argument("--quick", action="store_true", help="only see that it runs")
    wanted = parser.parse_args()
    if wanted.quick:
        compare(1, 100)
        million(1000)
        return
    compare(wanted.rounds, wanted.tasks, wanted.only)
    if wanted.million:
        million(1_000_000)


if __name__ == "__main__":
    main()
