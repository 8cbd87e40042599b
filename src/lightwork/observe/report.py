"""``Report``: the run of a pool, in figures and in words."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from .history import Event, History, Sample, Slow, Worker
from .words import hints, seconds_text, share_text

if TYPE_CHECKING:
    from ..core.scheduler import Statistics

__all__ = ["FunctionReport", "Report", "WorkerReport", "make_report"]


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """Where the time of a worker went, in seconds.

    Attributes:
        number: its number, from 1.
        kind: ``"threads"``, ``"processes"`` or ``"serial"``.
        calls: calls that it ended.
        starting: from the decision to start it until it took calls.
        working: in calls.
        wire: calls and answers on their way, packed and unpacked.
        waiting: without anything to do.
        began, ended: on the clock of ``time.monotonic()``; `ended` is now for one that is alive.
        how: how it ended; empty for one that is alive.
    """

    number: int
    kind: str
    calls: int
    starting: float
    working: float
    wire: float
    waiting: float
    began: float
    ended: float
    how: str

    @property
    def utilisation(self) -> float:
        """The share of its life, once started, that it worked: 0 to 1."""
        life = self.working + self.wire + self.waiting
        return self.working / life if life > 0 else 0.0


@dataclass(frozen=True, slots=True)
class FunctionReport:
    """The calls of one function under one set of options; `seconds` is their sum."""

    name: str
    calls: int
    seconds: float
    failed: int


@dataclass(frozen=True, slots=True)
class Report:
    """The run of a pool so far; ``print(report)`` tells it in a few lines.

    Times are in seconds; moments are on the clock of ``time.monotonic()``.

    Attributes:
        name, kind, pid: of the pool.
        begun, seconds: when it was made, and how long ago that was, or how long it lived.
        max_workers, cpus: how many workers it may have; how many CPUs this process may use.
        calls, failed: calls that were answered, and those of them with an error that stands.
        retried, crashed, timed_out, killed, cancelled: calls; attempts for `retried`.
        died: workers that ended other than by being told to leave.
        workers, functions: the times of each.
        slowest: the calls that took longest, the slowest first.
        queue: how many calls waited and ran over time.
        events: retries, and ends of workers.
        durations: (from, to, calls) for each class of durations.
        hints: what to change, in words; the first matters most.
        complete: whether each call has its span in the timeline.
    """

    name: str
    kind: str
    pid: int
    begun: float
    seconds: float
    max_workers: int
    cpus: int
    calls: int
    failed: int
    retried: int
    crashed: int
    timed_out: int
    killed: int
    cancelled: int
    died: int
    workers: tuple[WorkerReport, ...]
    functions: tuple[FunctionReport, ...]
    slowest: tuple[Slow, ...]
    queue: tuple[Sample, ...]
    events: tuple[Event, ...]
    durations: tuple[tuple[float, float, int], ...]
    hints: tuple[str, ...]
    complete: bool
    _history: History

    @property
    def utilisation(self) -> float:
        """The share of their life, once started, that the workers worked: 0 to 1."""
        life = sum(one.working + one.wire + one.waiting for one in self.workers)
        return sum(one.working for one in self.workers) / life if life > 0 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """All of it but the timeline, in what JSON has."""
        found = {
            name: value
            for name, value in ((field, getattr(self, field)) for field in self.__slots__)
            if not name.startswith("_")
        }
        found["workers"] = [{**asdict(one), "utilisation": one.utilisation} for one in self.workers]
        found["functions"] = [asdict(one) for one in self.functions]
        for name in ("slowest", "queue", "events"):
            found[name] = [one._asdict() for one in found[name]]
        found["durations"] = [list(one) for one in self.durations]
        found["hints"] = list(self.hints)
        found["utilisation"] = self.utilisation
        return found

    def to_html(self, path: str | os.PathLike[str]) -> None:
        """Write it as one page that needs nothing but itself. Raises OSError."""
        from .page import write

        write(self, self._history, path)

    def to_trace(self, path: str | os.PathLike[str]) -> None:
        """Write the timeline in the Trace Event format, which https://ui.perfetto.dev opens.

        Raises OSError.
        """
        from .trace import write

        write(self, self._history, path)

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def _lines(report: Report) -> Iterator[str]:
    failed = f", {report.failed:,} failed" if report.failed else ""
    yield (
        f"{report.name}: {report.calls:,} calls{failed} in {seconds_text(report.seconds)}; workers "
        f"({report.kind}) were at work {share_text(report.utilisation)} of their time"
    )
    rare = [
        f"{value:,} {name}"
        for name, value in (
            ("retried", report.retried),
            ("crashed", report.crashed),
            ("timed out", report.timed_out),
            ("killed", report.killed),
            ("cancelled", report.cancelled),
        )
        if value
    ]
    if rare or report.died:
        calls = "calls: " + ", ".join(rare) if rare else ""
        workers = f"workers that died: {report.died:,}" if report.died else ""
        yield "  " + "; ".join(filter(None, (calls, workers)))
    shown = report.workers[:16]
    if shown:
        yield "  worker      calls   working      wire   waiting  starting"
    for one in shown:
        times = (one.working, one.wire, one.waiting, one.starting)
        columns = "".join(f"{seconds_text(value):>10}" for value in times)
        yield f"  {one.number:6} {one.calls:10,}{columns}"
    if len(report.workers) > len(shown):
        yield f"  ... and {len(report.workers) - len(shown):,} more"
    for slow in report.slowest[:3]:
        call = f"{slow.function}({slow.item}), index {slow.index}"
        yield f"  slow: {call}: {seconds_text(slow.seconds)}"
    for hint in report.hints:
        yield f"  hint: {hint}"


def make_report(
    history: History, statistics: Statistics, now: float, *, max_workers: int, cpus: int
) -> Report:
    """Make a report of a snapshot of the history."""
    workers = tuple(_worker(one, history.kind, now) for one in history.workers.values())
    alive = [one for one in history.workers.values() if one.gone is None]
    end = now if alive or not history.workers else max(one.ended for one in workers)
    slowest = tuple(sorted(history.slowest, reverse=True))
    return Report(
        name=history.name,
        kind=history.kind,
        pid=history.pid,
        begun=history.begun,
        seconds=end - history.begun,
        max_workers=max_workers,
        cpus=cpus,
        calls=history.calls,
        failed=history.failed,
        retried=history.retried,
        crashed=statistics.crashed,
        timed_out=statistics.timed_out,
        killed=statistics.killed,
        cancelled=statistics.cancelled,
        died=statistics.died,
        workers=workers,
        functions=tuple(
            FunctionReport(history.functions.get(family, "?"), int(calls), seconds, int(failed))
            for family, (calls, seconds, failed) in history.by_family.items()
        ),
        slowest=slowest,
        queue=(*history.samples, *_last_sample(history, statistics, now)),
        events=tuple(history.events),
        durations=tuple(
            (10 ** (place / 8) / 1e6, 10 ** ((place + 1) / 8) / 1e6, calls)
            for place, calls in sorted(history.durations.items())
        ),
        hints=hints(history, workers, max_workers=max_workers, cpus=cpus),
        complete=not history.not_kept,
        _history=history,
    )


def _last_sample(history: History, statistics: Statistics, now: float) -> tuple[Sample, ...]:
    """How it is now. Samples are taken when answers arrive, and not at each of these: the last one
    may have seen calls that have ended since."""
    if not history.samples:
        return ()
    queued, running = statistics.queued + statistics.delayed, statistics.running
    at = now if queued or running else max(history.last, history.samples[-1].at)
    return (Sample(at, queued, running),)


def _worker(one: Worker, kind: str, now: float) -> WorkerReport:
    end = one.gone if one.gone is not None else now
    ready = one.ready
    starting = (end if ready is None else ready) - one.started
    waiting = one.waiting
    if ready is not None:
        waiting += max(0.0, end - max(one.ended, ready))  # since its last call
    return WorkerReport(
        number=one.number,
        kind=one.kind or kind,
        calls=one.calls,
        starting=starting,
        working=one.working,
        wire=one.wire,
        waiting=waiting,
        began=one.started,
        ended=end,
        how=one.how,
    )
