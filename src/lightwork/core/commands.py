"""What to do: the words in which the scheduler answers an event.

The engine carries commands out in order. ``TakeBack`` and ``Inspect`` are answered at once, by
feeding ``TakenBack`` / ``Seen`` to the scheduler before any other event.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .events import Answer

__all__ = [
    "Broken",
    "Carve",
    "Command",
    "Done",
    "Ended",
    "Inspect",
    "Kill",
    "Part",
    "Resolve",
    "Retire",
    "Retrying",
    "Send",
    "Start",
    "TakeBack",
]


class Part(NamedTuple):
    """The calls `lo` to `hi` (excluded) of a task, in attempt `attempt`."""

    task: int
    attempt: int
    lo: int
    hi: int


class Start(NamedTuple):
    """Start a worker under this number; reply, any time later, Ready, StartFailed or Died."""

    worker: int


class Send(NamedTuple):
    """Hand these to the worker, behind what it already has."""

    worker: int
    parts: Sequence[Part]


class Resolve(NamedTuple):
    """These answers count: hand their results out. Answers that are not named are late: drop."""

    answers: Sequence[Answer]


class Carve(NamedTuple):
    """Task `new` stands for the calls `lo` to `hi` of `task` from now on: offsets from 0."""

    task: int
    new: int
    lo: int
    hi: int


class Ended(NamedTuple):
    """The calls `lo` to `hi` of the task end here without a result.

    `how`: ``"crashed"``, ``"timed-out"``, ``"killed"``, ``"over-memory"`` (charged to this call,
    which ran on `worker`); ``"failed"`` (the error of the Failed event stands); ``"cancelled"``;
    ``"broken"`` (the pool cannot start workers).
    """

    task: int
    attempt: int
    lo: int
    hi: int
    how: str
    worker: int | None


class Retrying(NamedTuple):
    """A call will be run again as attempt `attempt`, not before time `at`. For logs and traces."""

    task: int
    attempt: int
    at: float
    why: str


class TakeBack(NamedTuple):
    """Take back what the worker has not started, from call `offset` of `task` on."""

    worker: int
    task: int
    offset: int


class Inspect(NamedTuple):
    """Read which call the worker is at."""

    worker: int


class Kill(NamedTuple):
    """End the worker at once. Its Died event must carry `how`."""

    worker: int
    how: str


class Retire(NamedTuple):
    """Tell an idle worker to leave; it answers with Died(how="retired")."""

    worker: int


class Broken(NamedTuple):
    """Workers cannot be started; every task was ended with how="broken"."""


class Done(NamedTuple):
    """Closed, nothing left to run, no worker alive: the engine can stop."""


Command = (
    Start
    | Send
    | Resolve
    | Carve
    | Ended
    | Retrying
    | TakeBack
    | Inspect
    | Kill
    | Retire
    | Broken
    | Done
)
