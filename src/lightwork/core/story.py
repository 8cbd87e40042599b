"""What the scheduler can tell people: where a task is and why, what has happened, counts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf

from .commands import Command
from .events import Event
from .records import (
    BUSY,
    DELAYED,
    DRAINING,
    IDLE,
    KILLED,
    LEAVING,
    READY,
    STARTING,
    Book,
    Statistics,
    Task,
    Worker,
)

__all__ = ["explain", "statistics", "tell"]


def tell(past: Iterable[tuple[float, Event, Sequence[Command]]]) -> str:
    """The events that led here, each with what was decided."""
    lines = ["The story, oldest first (time, event, commands):"]
    for now, event, commands in past:
        lines.append(f"  {now:.6f} {event!r}")
        lines.extend(f"      -> {command!r}" for command in commands)
    return "\n".join(lines)


def explain(book: Book, number: int) -> str:
    """Where a task is, and why it does not run."""
    task = book.tasks.get(number)
    if task is None:
        if 0 < number <= book.last_task:
            return f"Task {number} has ended, or its calls are in other tasks."
        return f"Task {number} is not known."
    calls = task.calls - task.next
    text = f"Task {number} (attempt {task.attempt}, {calls} call{'s' * (calls != 1)} left"
    text += f", part of task {task.root})" if task.root != number else ")"
    if task.state is READY:
        return f"{text} {_why_ready(book, task)}"
    if task.state is DELAYED:
        return f"{text} waits until {book.delayed[number]:.3f} for its next attempt."
    worker = task.worker
    assert worker is not None
    text += f" is with worker {worker.number}"
    text += f", {_place(worker, task)}"
    if task.wish:
        text += f"; asked to {task.wish}"
    if worker.state is KILLED:
        text += "; that worker was told to die"
    elif worker.silent:
        text += "; that worker has not answered for longer than expected"
    mean = task.family.mean
    return text + ("." if mean == inf else f". A call is expected to take {mean:.6f} s.")


def _place(worker: Worker, task: Task) -> str:
    before = worker.held.index(task)
    if before == 0:
        return "the first that it has not answered: it runs, or is about to"
    return f"behind {before} other{'s' * (before != 1)}"


def _why_ready(book: Book, task: Task) -> str:
    before = 0
    for other in book.ready:
        if other is task:
            break
        before += 1
    text = f"is ready, behind {before} other task{'s' * (before != 1)}"
    if book.starting:
        return f"{text}; {book.starting} worker(s) are starting."
    if not book.alive:
        return f"{text}; no worker is alive: the last could not be started, more will be tried."
    return f"{text}; all {book.alive} worker(s) are at work."


def statistics(book: Book) -> Statistics:
    """Counts, as of now."""
    workers = dict.fromkeys((STARTING, IDLE, BUSY, DRAINING, LEAVING, KILLED), 0)
    running = 0
    for worker in book.workers.values():
        workers[worker.state] += 1
        running += worker.open
    counts = book.counts
    ended = counts.ended
    return Statistics(
        queued=book.ready.calls,
        delayed=len(book.delayed),
        running=running,
        starting=workers[STARTING],
        idle=workers[IDLE],
        busy=workers[BUSY],
        leaving=workers[DRAINING] + workers[LEAVING] + workers[KILLED],
        done=counts.done,
        failed=ended["failed"],
        retried=counts.retried,
        crashed=ended["crashed"] + ended["over-memory"],
        timed_out=ended["timed-out"],
        killed=ended["killed"],
        cancelled=ended["cancelled"],
        broken=ended["broken"],
        died=counts.died,
        started=counts.started,
        taken_back=counts.taken_back,
        late=counts.late,
    )
