"""What is looked at when time passes: time limits, and workers that are silent.

**Time limits.** The core does not know when a call starts. What is sent at `t` with a limit `T`
cannot be over it before ``t + T``; then the worker is asked what it is at (``Inspect``), and the
call either is over its limit, or cannot be before its own start + T. A worker that runs nothing
although it holds something that has a limit (it was stopped by a signal, say) is written off
after `UNRESPONSIVE` seconds, and nobody is charged.

The race with a call that ends just then::

    1. Seen: the call has run for longer than its limit.
    2. TakeBack: the worker starts nothing behind that call any more.
    3.                               the call ends; the worker writes its answer, and waits
    4. Kill: the worker dies; its answer is read, then Died(running=None).

Without step 2 the worker could be in the next call at step 4, which would be charged, or run
again although it had started. With it, ``Died`` names the condemned call, or none: then its
answer came before, and it ended well.

**Silence.** What is expected to take `e` seconds, and is not answered after ``10 e`` + 10 ms, was
misjudged: a call of it may take minutes. What the worker has not started is taken back, so that
no wrong estimate holds tasks hostage, and until it answers it is given nothing more.
"""

from __future__ import annotations

from math import inf

from .commands import Command, Inspect, TakeBack
from .deadlines import CHECK, QUIET
from .events import Running
from .life import Crew
from .records import BUSY, DRAINING, Book, Task, Worker

__all__ = ["Watch", "running_task"]

PATIENCE = 10
"""How many times the expected time a worker may be silent."""

GRACE = 10e-3
"""Seconds of silence that mean nothing: the machine may be busy."""

SLACK = 10e-3
"""Seconds by which the look at a silence may be late; saves setting a timer with each answer."""

UNRESPONSIVE = 5.0
"""Seconds after which a worker that starts nothing is given up, if a time limit is to be kept."""

AGAIN = 1e-3
"""Seconds between two looks at a time limit, at least."""


def running_task(book: Book, worker: Worker, running: Running | None) -> Task | None:
    """The task in which the worker is, if it holds it in this attempt, and has not answered."""
    if running is None:
        return None
    task = book.tasks.get(running.task)
    if task is None or task.worker is not worker or task.attempt != running.attempt:
        return None
    at = running.offset
    return task if at == -1 or task.next <= at < task.calls else None


class Watch:
    """Sets the timers of workers, and acts when they are due."""

    def __init__(self, book: Book, crew: Crew) -> None:
        self._book = book
        self._crew = crew

    def sent(self, worker: Worker, now: float) -> None:
        """A worker was given something."""
        if worker.limit < inf and now + worker.limit < worker.check_at:
            self._check(worker, now + worker.limit, now)
        if worker.open > 1:
            self.answered(worker, now)

    def answered(self, worker: Worker, now: float) -> None:
        """A worker that holds more than one call gave a sign."""
        # Watched also where there is no other worker to hand anything to: a backend that holds
        # finished answers back for company lets them go when it is asked to take back.
        if not (self._book.prefetch and self._book.balance):
            return
        worker.quiet_at = at = now + PATIENCE * worker.expected() + GRACE
        if at < worker.armed - SLACK:
            if worker.armed < inf:
                self._book.timers.outdated()
            worker.armed = at
            self._book.timers.set(at, QUIET, worker.number)

    def quiet(self, worker: Worker, now: float, commands: list[Command]) -> None:
        """The timer of `sent` and `answered`."""
        worker.armed = inf
        if worker.state not in (BUSY, DRAINING) or worker.dry or worker.open < 2:
            return
        if worker.quiet_at > now:
            if worker.quiet_at < inf:
                worker.armed = worker.quiet_at
                self._book.timers.set(worker.armed, QUIET, worker.number)
            return
        worker.silent = True
        worker.quiet_at = inf
        head = worker.held[0]
        commands.append(TakeBack(worker.number, head.number, head.next))

    def _check(self, worker: Worker, at: float, now: float) -> None:
        if worker.check_at < inf:
            self._book.timers.outdated()
        worker.check_at = max(at, now + AGAIN)
        self._book.timers.set(worker.check_at, CHECK, worker.number)

    def check(self, worker: Worker, commands: list[Command]) -> None:
        """The timer of a time limit."""
        worker.check_at = inf
        if worker.limit < inf and worker.state in (BUSY, DRAINING):
            commands.append(Inspect(worker.number))

    def seen(
        self, worker: Worker, running: Running | None, now: float, commands: list[Command]
    ) -> None:
        """The answer to an Inspect."""
        if worker.state not in (BUSY, DRAINING):
            return
        task = running_task(self._book, worker, running)
        if task is None or running is None:
            self._nothing_runs(worker, now, commands)
            return
        if task.wish == "kill" and task.one in (-1, running.offset):
            self._end(worker, task, running, "killed", commands)
            return
        limit = inf if task.family.timeout is None else task.family.timeout
        due = (running.since or worker.heard) + limit
        if due <= now:
            self._end(worker, task, running, "timed-out", commands)
        else:
            self._look_again(worker, due, now)

    def _nothing_runs(self, worker: Worker, now: float, commands: list[Command]) -> None:
        if worker.limit == inf or not worker.open:
            return
        given_up = worker.heard + max(worker.limit, UNRESPONSIVE)
        if given_up > now:
            self._look_again(worker, min(given_up, now + worker.limit), now)
            return
        head = worker.held[0]
        commands.append(TakeBack(worker.number, head.number, head.next))
        self._crew.kill(worker, "crashed", None, commands)

    def _look_again(self, worker: Worker, at: float, now: float) -> None:
        at = min(at, now + worker.limit)
        if at < worker.check_at:
            self._check(worker, at, now)

    def _end(
        self, worker: Worker, task: Task, running: Running, how: str, commands: list[Command]
    ) -> None:
        """Kill a worker for the sake of the call that it runs, and keep what is behind it."""
        after = running.offset + 1
        behind = None
        if 0 < after < task.calls:
            behind = (task.number, after)
        else:
            place = worker.held.index(task) + 1
            if place < len(worker.held):
                behind = (worker.held[place].number, worker.held[place].next)
        if behind is not None:
            commands.append(TakeBack(worker.number, *behind))
        condemned = (running.task, running.attempt, running.offset)
        self._crew.kill(worker, how, condemned, commands)
