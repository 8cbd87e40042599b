"""Measures what is shared beside its peers: ``python benchmarks/share.py [--quick] [--row NAME
...]``.

All contenders of a row are measured one after the other, in interleaved rounds of one run; the
medians are printed, and how many times as fast (or as slow) `lightwork.share` is. With ``--quick``
nothing is timed: it is only checked that everything works.
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from lightwork import share

FORK = multiprocessing.get_context("fork")
_BURSTS = 10
Measure = Callable[[int], float]  # repetitions -> seconds for one


@dataclass(frozen=True)
class Row:
    """One line: who is measured, how often, and what must hold: (peer, times as fast)."""

    name: str
    timed: str
    contenders: dict[str, Callable[[ExitStack], Measure]]
    repetitions: int
    needs: tuple[tuple[str, float], ...] = ()


def loop(statement: str, **names: Any) -> Measure:
    """Times a statement, without the loop's own cost: the best of ten bursts, since whatever else
    the machine does only ever adds."""
    import timeit

    timer = timeit.Timer(statement, globals=names)
    empty = timeit.Timer("pass")

    def measure(repetitions: int) -> float:
        count = max(repetitions // _BURSTS, 1)
        best = min(timer.repeat(_BURSTS, count)) - min(empty.repeat(_BURSTS, count))
        return max(best, 1e-12) / count

    return measure


def locks(kind: str, how: str) -> dict[str, Callable[[ExitStack], Measure]]:
    def of(lock: Any) -> Callable[[ExitStack], Measure]:
        return lambda _: loop(how, lock=lock)

    return {
        "lightwork": of(getattr(share, kind)()),
        "multiprocessing": of(getattr(multiprocessing, kind)()),
        "threading": of(getattr(threading, kind)()),
    }


def queues(item: Any, both: bool = False) -> dict[str, Callable[[ExitStack], Measure]]:
    """One process puts, another gets; seconds for an item, from the first put to the last get."""

    def measure_with(make: Callable[[], Any], put: Any, get: Any) -> Callable[[ExitStack], Measure]:
        def opened(_: ExitStack) -> Measure:
            def measure(repetitions: int) -> float:
                queue = make()
                ready = FORK.Event()
                reader = FORK.Process(target=_read, args=(queue, get, repetitions, ready))
                reader.start()
                ready.wait()
                begin = time.perf_counter()
                for _ in range(repetitions):
                    put(queue, item)
                reader.join()
                assert reader.exitcode == 0
                return (time.perf_counter() - begin) / repetitions

            return measure

        return opened

    def faster_fifo(_: ExitStack) -> Measure:
        from faster_fifo import Queue  # type: ignore[import-not-found]

        make = measure_with(
            lambda: Queue(max_size_bytes=64 << 20),
            lambda queue, one: queue.put(one, timeout=60),
            _get_many,
        )
        return make(_)

    return {
        "lightwork": measure_with(share.Queue, share.Queue.put, _get),
        "multiprocessing": measure_with(FORK.Queue, lambda queue, one: queue.put(one), _get),
        "multiprocessing.SimpleQueue": measure_with(
            FORK.SimpleQueue, lambda queue, one: queue.put(one), _get
        ),
        "faster-fifo": faster_fifo,
    }


def _get(queue: Any, count: int) -> None:
    for _ in range(count):
        queue.get()


def _get_many(queue: Any, count: int) -> None:
    while count > 0:
        count -= len(queue.get_many(max_messages_to_get=count, timeout=60))


def _read(queue: Any, get: Any, count: int, ready: Any) -> None:
    ready.set()
    get(queue, count)


@contextmanager
def _manager() -> Iterator[Any]:
    with FORK.Manager() as manager:
        yield manager


def managed(statement: str, ours: Callable[[], Any], theirs: Callable[[Any], Any]) -> Any:
    """Our object beside a manager's."""
    return {
        "lightwork": lambda _: loop(statement, it=ours()),
        "Manager": lambda stack: loop(statement, it=theirs(stack.enter_context(_manager()))),
    }


def numbers(statement: str, manager_statement: str) -> Any:
    def with_manager(stack: ExitStack) -> Measure:
        manager = stack.enter_context(_manager())
        return loop(manager_statement, it=manager.Value("q", 0), lock=manager.Lock())

    rows = {
        "lightwork": lambda _: loop(statement, it=share.Value("q")),
        "Manager": with_manager,
    }
    if "add" not in statement:
        rows["multiprocessing"] = lambda _: loop(statement, it=multiprocessing.Value("q"))
    return rows


def counters() -> Any:
    def with_manager(stack: ExitStack) -> Measure:
        manager = stack.enter_context(_manager())
        return loop("with lock: it.value += 1", it=manager.Value("q", 0), lock=manager.Lock())

    return {
        "lightwork": lambda _: loop("it.add(1)", it=share.Counter()),
        "multiprocessing": lambda _: loop(
            "with it.get_lock(): it.value += 1", it=multiprocessing.Value("q")
        ),
        "Manager": with_manager,
    }


def arrays() -> Any:
    """A task gets an array of 64 MB, and changes one element of it."""
    import numpy

    from lightwork import Pool

    def measure_with(array: Any) -> Callable[[ExitStack], Measure]:
        def opened(stack: ExitStack) -> Measure:
            pool = stack.enter_context(Pool("processes", 1))

            def measure(repetitions: int) -> float:
                pool.submit(_touch, array).result()
                begin = time.perf_counter()
                for _ in range(repetitions):
                    pool.submit(_touch, array).result()
                return (time.perf_counter() - begin) / repetitions

            return measure

        return opened

    plain = numpy.zeros(8 << 20)
    return {
        "lightwork": measure_with(share.Array(plain)),
        "an ordinary array": measure_with(plain),
    }


def _touch(array: Any) -> None:
    array[0] += 1


def rows() -> list[Row]:
    import numpy

    million = numpy.zeros(1 << 17)
    both = "it.append(1); it.pop()"
    return [
        Row("lock", "acquire and release of a Lock that nobody else wants",
            locks("Lock", "lock.acquire(); lock.release()"), 200_000, (("multiprocessing", 0.2),)),
        Row("with", "the same, by `with`", locks("Lock", "with lock: pass"), 200_000,
            (("multiprocessing", 0.2),)),
        Row("rlock", "acquire and release of an RLock",
            locks("RLock", "lock.acquire(); lock.release()"), 200_000),
        Row("semaphore", "acquire and release of a Semaphore",
            locks("Semaphore", "lock.acquire(); lock.release()"), 50_000),
        Row("event", "a look whether an Event is set", locks("Event", "lock.is_set()"), 50_000),
        Row("queue, small items", "one process puts 100,000 small numbers, another gets them",
            queues(5), 100_000, (("multiprocessing", 2.0),)),
        Row("queue, tuples", "the same with tuples of a string and a dict",
            queues(("job", {"n": 1})), 50_000, (("multiprocessing", 2.0),)),
        Row("queue, arrays of 1 MB", "the same with arrays of 1 MB",
            queues(million), 500, (("multiprocessing", 5.0),)),
        Row("counter", "add one", counters(), 20_000, (("Manager", 10.0),)),
        Row("value, add", "add one to a Value under its lock",
            numbers("it.add(1)", "with lock: it.value += 1"), 10_000, (("Manager", 10.0),)),
        Row("value, read", "read a Value", numbers("it.value", "it.value"), 20_000,
            (("Manager", 10.0),)),
        Row("value, set", "set a Value", numbers("it.value = 1", "it.value = 1"), 20_000,
            (("Manager", 10.0),)),
        Row("list, append and pop", "append a number to a list, and take it out again",
            managed(both, share.List, lambda m: m.list()), 10_000, (("Manager", 10.0),)),
        Row("list, read", "read one item of a list of 1000",
            managed("it[500]", lambda: share.List(range(1000)), lambda m: m.list(range(1000))),
            20_000, (("Manager", 10.0),)),
        Row("dict, set", "set a key of a dict",
            managed("it['a'] = 1", share.Dict, lambda m: m.dict()), 20_000, (("Manager", 10.0),)),
        Row("dict, read", "read a key of a dict",
            managed("it['a']", lambda: share.Dict({"a": 1}), lambda m: m.dict({"a": 1})), 20_000,
            (("Manager", 10.0),)),
        Row("array of 64 MB", "a task changes one element of an array", arrays(), 10,
            (("an ordinary array", 5.0),)),
    ]  # fmt: skip


def run(row: Row, quick: bool, rounds: int) -> bool:
    """Measure a row, and print it; whether it reaches what it must."""
    found: dict[str, list[float]] = {}
    with ExitStack() as stack:
        measures = {}
        for name, opened in row.contenders.items():
            try:
                measures[name] = opened(stack)
            except ImportError as error:
                print(f"    {row.name}: {name} left out: {error}")
        if quick:
            for measure in measures.values():
                measure(max(row.repetitions // 1000, 2))
            print(f"{row.name}: works for {', '.join(measures)}")
            return True
        for _ in range(rounds):
            for name, measure in measures.items():
                found.setdefault(name, []).append(measure(row.repetitions))
    medians = {name: statistics.median(values) for name, values in found.items()}
    ours = medians["lightwork"]
    print(f"\n{row.name}: {row.timed}")
    for name, median in medians.items():
        low, high = min(found[name]) * 1e6, max(found[name]) * 1e6
        times = "" if name == "lightwork" else f"{median / ours:9.2f} x lightwork's"
        print(f"    {name:<30}{median * 1e6:11.3f} us   ({low:.3f} .. {high:.3f}){times}")
    reached = True
    for peer, least in row.needs:
        ratio = medians[peer] / ours
        word = "PASS " if ratio >= least else "below"
        reached = reached and ratio >= least
        print(f"    {word} at least {least:g} x as fast as {peer}: {ratio:.2f}")
    return reached


def main(argv: list[str] | None = None) -> int:
    made = rows()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--row", action="append", choices=[row.name for row in made])
    parser.add_argument("--quick", action="store_true", help="check, measure nothing")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(argv)
    print(f"Python {platform.python_version()}, Linux {platform.release()}; medians")
    for row in made:
        if not options.row or row.name in options.row:
            run(row, options.quick, options.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
