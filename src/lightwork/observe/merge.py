"""One history of the several of a pool with ``kind="auto"``: each of its engines has one.

They are merged when a report is asked for. Workers are numbered anew, in the order in which they
were started, so that a later report gives the same worker the same number; functions are known by
their names.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

from .history import SLOWEST, Event, History, Sample

__all__ = ["merged"]


def merged(parts: Sequence[History], name: str, kind: str, begun: float) -> History:
    """All of them as one; they are snapshots, and may be taken apart.

    Args:
        parts: in a fixed order.
        name, kind, begun: of the pool; `begun` on the clock of ``time.monotonic()``.
    """
    whole = History(name, kind)
    whole.wall += whole.begun - begun
    whole.begun = begun
    workers = _numbers(parts)
    families = _families(parts, whole)
    for at, part in enumerate(parts):
        for number, worker in part.workers.items():
            worker.kind = worker.kind or part.kind
            worker.number = workers[at, number]
            whole.workers[worker.number] = worker
        whole.calls += part.calls
        whole.failed += part.failed
        whole.retried += part.retried
        whole.not_kept += part.not_kept
        if part.calls:
            whole.first = min(whole.first or part.first, part.first)
            whole.last = max(whole.last, part.last)
        for how, count in part.outcomes.items():
            whole.outcomes[how] = whole.outcomes.get(how, 0) + count
        for place, count in part.durations.items():
            whole.durations[place] = whole.durations.get(place, 0) + count
        for family, figures in part.by_family.items():
            found = whole.by_family.setdefault(families[at, family], [0, 0.0, 0])
            for which, figure in enumerate(figures):
                found[which] += figure
        for slow in part.slowest:
            whole.slowest.append(slow._replace(worker=workers.get((at, slow.worker), 0)))
        whole.starts.extend(part.starts)
        whole.seconds.extend(part.seconds)
        whole.count.extend(part.count)
        whole.index.extend(part.index)
        whole.state.extend(part.state)
        whole.worker.extend(workers.get((at, number), 0) for number in part.worker)
        whole.family.extend(families[at, family] for family in part.family)
    whole.workers = dict(sorted(whole.workers.items()))
    whole.slowest = sorted(whole.slowest, reverse=True)[:SLOWEST][::-1]
    whole.events.extend(sorted(_events(parts, workers), key=lambda event: event.at))
    whole.samples.extend(_samples(parts))
    return whole


def _numbers(parts: Sequence[History]) -> dict[tuple[int, int], int]:
    """The new number of each worker of each part."""
    started = sorted(
        (worker.started, at, number)
        for at, part in enumerate(parts)
        for number, worker in part.workers.items()
    )
    return {(at, number): new for new, (_, at, number) in enumerate(started, 1)}


def _families(parts: Sequence[History], whole: History) -> dict[tuple[int, int], int]:
    """The new number of each function of each part; notes their names."""
    numbers: dict[str, int] = {}
    found: dict[tuple[int, int], int] = {}
    for at, part in enumerate(parts):
        for family in {**part.functions, **part.by_family}:
            name = part.functions.get(family, "?")
            number = numbers.setdefault(name, len(numbers))
            found[at, family] = number
            whole.functions[number] = name
    return found


def _events(parts: Sequence[History], workers: dict[tuple[int, int], int]) -> Iterator[Event]:
    for at, part in enumerate(parts):
        for event in part.events:
            if event.worker is None:
                yield event
                continue
            new = workers.get((at, event.worker), 0)
            what = event.what.replace(f"worker {event.worker} ", f"worker {new} ", 1)
            yield Event(event.at, new, what)


def _samples(parts: Sequence[History]) -> Iterator[Sample]:
    """At each moment, the sum of what each part had seen last."""
    latest = [(0, 0)] * len(parts)
    streams = [
        [(sample.at, at, sample) for sample in part.samples] for at, part in enumerate(parts)
    ]
    for moment, at, sample in heapq.merge(*streams):
        latest[at] = (sample.queued, sample.running)
        yield Sample(moment, sum(one[0] for one in latest), sum(one[1] for one in latest))
