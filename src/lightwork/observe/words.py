"""What a report says in words. Arithmetic and texts, nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .history import History
    from .report import WorkerReport

__all__ = ["hints", "seconds_text", "share_text"]

SMALL = 0.3
"""The share of the workers' time on the wire above which it is worth talking about."""

SHORT = 1e-3
"""Seconds: calls below this are short."""

IDLE = 0.4
"""The share of waiting above which it is worth talking about."""

BUSY = 0.9
"""The share of working above which workers are what is missing."""

ALONE = 0.15
"""The share of the run that one worker may be the last one at work without being a straggler."""


def seconds_text(seconds: float) -> str:
    """A duration for people: three digits and a unit."""
    if seconds < 0:
        return "-" + seconds_text(-seconds)
    for limit, factor, unit in ((1e-3, 1e6, "us"), (1.0, 1e3, "ms"), (120.0, 1.0, "s")):
        if seconds < limit:
            value = seconds * factor
            return f"{value:.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def share_text(share: float) -> str:
    """A share of the whole for people."""
    return f"{100 * share:.0f} %"


def hints(
    history: History, workers: Sequence[WorkerReport], *, max_workers: int, cpus: int
) -> tuple[str, ...]:
    """What to change, the most important first; never empty."""
    if not history.calls:
        return ("No call has ended yet.",)
    found = list(_hints(history, workers, max_workers, cpus))
    working = sum(one.working for one in workers)
    life = working + sum(one.wire + one.waiting for one in workers)
    if not found:
        share = share_text(working / life if life else 1.0)
        found.append(f"Nothing stands out: workers were at work {share} of their time.")
    return tuple(found)


def _hints(
    history: History, workers: Sequence[WorkerReport], max_workers: int, cpus: int
) -> Iterator[str]:
    working = sum(one.working for one in workers)
    wire = sum(one.wire for one in workers)
    waiting = sum(one.waiting for one in workers)
    starting = sum(one.starting for one in workers)
    life = max(working + wire + waiting, 1e-9)
    mean = working / history.calls
    crashes = history.outcomes.get("crashed", 0) + history.outcomes.get("over-memory", 0)
    if crashes:
        what = "One call ended with its" if crashes == 1 else f"{crashes:,} calls ended with their"
        yield (
            f"{what} worker. Each such end takes the start of another worker; the errors "
            "(WorkerCrashed) say what happened."
        )
    yield from _straggler(history, workers)
    if wire > SMALL * (working + wire) and mean < SHORT:
        yield (
            f"The calls are small: {seconds_text(mean)} each, beside "
            f"{seconds_text(wire / history.calls)} for the way there and back. Let each call do "
            "more (a slice of the items, say), or run them "
            + ("in place." if history.kind == "threads" else "on threads or in place.")
        )
    elif wire > SMALL * (working + wire) and history.kind == "processes" and max_workers > cpus:
        yield (
            f"{max_workers} workers share {cpus} CPUs, and were held up for "
            f"{share_text(wire / life)} of their time: where calls compute, as many workers as "
            "CPUs are enough."
        )
    elif wire > SMALL * (working + wire):
        yield (
            f"The wire is what takes time: {share_text(wire / life)} of the workers' time went "
            "into arguments and results on their way, or waiting for this process to serve them. "
            "Pass names of files rather than their contents, return less, or let workers keep the "
            "data."
        )
    most = max((one.queued for one in history.samples), default=0)
    if working > BUSY * life and most > 2 * max_workers:
        more = f"; this process may use {cpus} CPUs" if cpus else ""
        if max_workers < cpus or history.kind == "threads":
            yield (
                f"All {max_workers} workers were at work {share_text(working / life)} of their "
                f"time, and up to {most:,} calls waited: more workers would help{more}."
            )
    elif history.kind == "auto":
        pass  # how many there are is not for the user to mend
    elif waiting > IDLE * life and most <= 2 * max_workers and history.calls > max_workers:
        yield (
            f"Workers waited {share_text(waiting / life)} of their time with nothing in the queue: "
            "what hands out the items, or takes the results, is slower than they are; fewer "
            "workers would do."
        )
    if starting > SMALL * (starting + life):
        yield (
            f"Starting workers took {share_text(starting / (starting + life))} of their time: keep "
            "one pool for all of the work, rather than one for each piece."
        )


def _straggler(history: History, workers: Sequence[WorkerReport]) -> Iterator[str]:
    """Whether one worker was at work long after all others had ended."""
    ends = sorted((one.number, history.workers[one.number].ended) for one in workers if one.calls)
    if len(ends) < 2 or history.last <= history.first:
        return
    ends.sort(key=lambda pair: pair[1])
    last, before = ends[-1], ends[-2]
    slowest = sorted(history.slowest, reverse=True)
    slow = next((one for one in slowest if one.worker == last[0]), None)
    if slow is None or slow.started > before[1]:
        return  # the others had ended before it began: it was handed in late
    alone = last[1] - before[1]
    if alone <= ALONE * (history.last - history.first):
        return
    if slow.started + slow.seconds < last[1] - 0.1 * alone:
        return  # it was not this call, but many
    yield (
        f"One straggler: {slow.function}({slow.item}), index {slow.index}, took "
        f"{seconds_text(slow.seconds)}, and its worker was alone for the last "
        f"{seconds_text(alone)}. Start such calls first (options(priority=1)), or divide them."
    )
