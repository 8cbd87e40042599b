"""The timeline in the Trace Event format (JSON), as Perfetto and Chrome's tracing open it.

Format: Google, "Trace Event Format" (2016): duration events ``X``, counters ``C``, instants ``i``,
and metadata ``M`` with the names of processes and threads.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .history import FAILED, RETRIED, History

if TYPE_CHECKING:
    from .report import Report

__all__ = ["events", "write"]

_STATES = {FAILED: "failed", RETRIED: "failed, run again"}


def events(report: Report, history: History) -> Iterator[dict[str, Any]]:
    """The events: times are in microseconds since the pool was made."""
    pid = report.pid

    def at(moment: float) -> float:
        return round(1e6 * (moment - report.begun), 3)

    yield _named("process_name", pid, 0, f"{report.name} ({report.kind})")
    yield _named("thread_name", pid, 0, "pool")
    for worker in report.workers:
        kind = "" if worker.kind == report.kind else f" ({worker.kind})"
        yield _named("thread_name", pid, worker.number, f"worker {worker.number}{kind}")
        yield {
            "name": "start",
            "cat": "worker",
            "ph": "X",
            "ts": at(worker.began),
            "dur": round(1e6 * worker.starting, 3),
            "pid": pid,
            "tid": worker.number,
        }
    for number, started in enumerate(history.starts):
        args: dict[str, Any] = {"index": history.index[number]}
        if history.count[number] > 1:
            args["calls"] = history.count[number]
        state = history.state[number]
        if state:
            args["outcome"] = _STATES[state]
        yield {
            "name": history.functions.get(history.family[number], "call"),
            "cat": "call",
            "ph": "X",
            "ts": at(started),
            "dur": round(1e6 * history.seconds[number], 3),
            "pid": pid,
            "tid": history.worker[number],
            "args": args,
        }
    for sample in report.queue:
        yield {
            "name": "calls",
            "ph": "C",
            "ts": at(sample.at),
            "pid": pid,
            "args": {"waiting": sample.queued, "with workers": sample.running},
        }
    for event in report.events:
        yield {
            "name": event.what,
            "cat": "event",
            "ph": "i",
            "s": "p" if event.worker is None else "t",
            "ts": at(event.at),
            "pid": pid,
            "tid": event.worker or 0,
        }


def _named(what: str, pid: int, thread: int, name: str) -> dict[str, Any]:
    return {"name": what, "ph": "M", "pid": pid, "tid": thread, "args": {"name": name}}


def write(report: Report, history: History, path: str | os.PathLike[str]) -> None:
    """Write the file, event by event. Raises OSError."""
    encode = json.JSONEncoder(separators=(",", ":")).encode
    with open(path, "w", encoding="utf-8") as file:
        file.write('{"displayTimeUnit":"ms","traceEvents":[\n')
        before = ""
        for event in events(report, history):
            file.writelines((before, encode(event)))
            before = ",\n"
        file.write("\n]}\n")
