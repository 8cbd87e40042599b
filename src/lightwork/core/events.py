"""What happens: the words in which the engine tells the scheduler about the world.

A *task* is what is scheduled: one call of a function (``submit``), or a chunk of consecutive
calls (``map``). A call within its task is named by its *offset*. A *family* is all tasks of one
function with one policy; tasks of a family share an estimate of how long a call takes. Tasks,
families and workers are ints that are never used twice; attempts count from 1.

Every event about a task's run carries ``(task, attempt)``, so that a late answer of an earlier
attempt changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

__all__ = [
    "Answer",
    "Answered",
    "CancelAsked",
    "CloseAsked",
    "Died",
    "Event",
    "Failed",
    "KillAsked",
    "Ready",
    "ResizeAsked",
    "Running",
    "Seen",
    "StartFailed",
    "Submitted",
    "TakenBack",
    "Tick",
]


class Running(NamedTuple):
    """The call that a worker is at, as its page says.

    `offset` -1: the worker is rebuilding the arguments of a task of several calls, so no one
    call of it can be named yet (it happens only where a single blob holds them all).
    """

    task: int
    attempt: int
    offset: int
    since: float  # when it was started, on the clock of `now`; 0.0 if not noted


class Answer(NamedTuple):
    """The calls of a task before offset `upto` have ended: with results, or errors that stand."""

    task: int
    attempt: int
    upto: int


class Submitted(NamedTuple):
    """A task of `calls` calls was accepted. Its number comes from ``Scheduler.new_task()``.

    `loose`: its calls belong together only by having been submitted in a row, so it may be
    divided anywhere; else it is somebody's chunk, and stays in one piece if that does no harm.
    """

    task: int
    family: int
    calls: int
    loose: bool = False


class Answered(NamedTuple):
    """A worker reported results. `seconds`: working time of all the calls answered here."""

    worker: int
    answers: Sequence[Answer]
    seconds: float
    calls: int  # how many calls `seconds` was spent on


class Failed(NamedTuple):
    """One call raised an error that its family's policy may retry (else it is just Answered).

    The scheduler replies ``Retrying`` or ``Ended(..., how="failed")`` for that call, and counts
    the call as answered in its task either way.
    """

    worker: int
    task: int
    attempt: int
    offset: int


class Ready(NamedTuple):
    """A worker that was started takes tasks now."""

    worker: int


class StartFailed(NamedTuple):
    """A worker could not be started. `fatal`: nor can any other (its initializer failed)."""

    worker: int
    fatal: bool


class Died(NamedTuple):
    """A worker is gone; all that it had answered was reported before this.

    `running`: the call that it died in; None when it was between calls.
    `how`: ``"crashed"``, or, when the scheduler asked for the kill, what is charged:
    ``"timed-out"``, ``"killed"``, ``"over-memory"``; ``"retired"``: it left as it was told to.
    """

    worker: int
    running: Running | None
    how: str


class TakenBack(NamedTuple):
    """Reply to ``TakeBack``: what the worker will now not start.

    `tasks`: (task, attempt, offset): the calls of that task from `offset` on were taken back.
    """

    worker: int
    tasks: Sequence[tuple[int, int, int]]


class Seen(NamedTuple):
    """Reply to ``Inspect``: the call that the worker is at now, or None."""

    worker: int
    running: Running | None


class CancelAsked(NamedTuple):
    """Someone wants a task not to start. Calls that have started go on.

    `offset`: of the one call that is meant; -1: all of them.
    """

    task: int
    offset: int = -1


class KillAsked(NamedTuple):
    """Someone wants a task ended, even while it runs; `offset` as in `CancelAsked`."""

    task: int
    offset: int = -1


class ResizeAsked(NamedTuple):
    """The number of workers to hold from now on."""

    workers: int


class CloseAsked(NamedTuple):
    """No more tasks will come. `cancel`: what has not started is cancelled."""

    cancel: bool


class Tick(NamedTuple):
    """Time has passed: ``next_deadline()`` is due."""


Event = (
    Submitted
    | Answered
    | Failed
    | Ready
    | StartFailed
    | Died
    | TakenBack
    | Seen
    | CancelAsked
    | KillAsked
    | ResizeAsked
    | CloseAsked
    | Tick
)
