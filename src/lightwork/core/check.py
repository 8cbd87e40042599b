"""The invariants, checked one by one against the whole state. Slow: for tests."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

from .batching import Victims
from .deadlines import QUIET, RETRY, START
from .records import (
    BUSY,
    DELAYED,
    DRAINING,
    IDLE,
    LIVE,
    READY,
    SENT,
    STARTING,
    TASK_MOVES,
    WORKER_MOVES,
    Book,
    Family,
    Worker,
)

__all__ = ["problems"]


def problems(book: Book, victims: Victims, asked: bool) -> list[str]:
    """What does not hold; empty when all is well. `asked`: work is being taken back just now."""
    return [
        *_tasks(book),
        *_queue(book),
        *(text for worker in book.workers.values() for text in _worker(book, worker)),
        *_crew(book),
        *_progress(book, victims, asked),
    ]


def _tasks(book: Book) -> Iterator[str]:
    for number, task in book.tasks.items():
        if task.number != number or task.state not in TASK_MOVES:
            yield f"task {number} is filed wrongly: {task.number}, {task.state}"
        if not 0 <= task.next < task.calls:
            yield f"task {number} has no open call, and has not ended"
        if (task.state is SENT) != (task.worker is not None):
            yield f"task {number} is {task.state}, with worker {task.worker}"
        if task.worker is not None and task.worker.held.count(task) != 1:
            yield f"task {number} is not once with its worker {task.worker.number}"
        if (task.state is DELAYED) != (number in book.delayed):
            yield f"task {number} is {task.state}, and that is not what the delays say"
        if task.state is DELAYED and (RETRY, number) not in book.timers:
            yield f"task {number} is delayed for ever"


def _queue(book: Book) -> Iterator[str]:
    ready = list(book.ready)
    numbers = [task.number for task in ready]
    if sorted(numbers) != sorted(n for n, task in book.tasks.items() if task.state is READY):
        yield f"the queue holds {numbers}, which are not the ready tasks, each once"
    if len(ready) != book.ready.tasks:
        yield f"{len(ready)} tasks are queued, {book.ready.tasks} counted"
    calls = sum(task.calls - task.next for task in ready)
    if calls != book.ready.calls:
        yield f"{calls} calls are queued, {book.ready.calls} counted"
    order = [(-task.family.priority, task.root, task.base + task.next) for task in ready]
    if order != sorted(order):
        yield f"the queue is not in order: {order}"


def _worker(book: Book, worker: Worker) -> Iterator[str]:
    name = f"worker {worker.number} ({worker.state})"
    load: dict[Family, int] = {}
    for task in worker.held:
        load[task.family] = load.get(task.family, 0) + task.calls - task.next
        if task.worker is not worker:
            yield f"{name} holds task {task.number}, which is not with it"
    if load != worker.load or sum(load.values()) != worker.open:
        yield f"{name} holds {load}, but counts {worker.load}, {worker.open}"
    if worker.state not in WORKER_MOVES:
        yield f"{name}: no such state"
    if worker.state in (STARTING, IDLE) and worker.held:
        yield f"{name} holds tasks"
    if worker.state in (BUSY, DRAINING) and not worker.open and worker.wage is None:
        yield f"{name} has nothing to do"
    if (worker.state is IDLE) != (worker.number in book.idle):
        yield f"{name}: the stack of the idle says otherwise"
    if any(task.suspect for task in worker.held) and len(worker.held) > 1:
        yield f"{name} holds a suspect beside others"
    if book.max_calls is not None and worker.given > book.max_calls:
        yield f"{name} was given {worker.given} calls of {book.max_calls}"
    if worker.state is BUSY and worker.limit < inf and worker.check_at == inf:
        yield f"{name}: nobody watches its time limit"
    if worker.armed < inf and (QUIET, worker.number) not in book.timers:
        yield f"{name}: its timer is lost"


def _crew(book: Book) -> Iterator[str]:
    live = [worker for worker in book.workers.values() if worker.state in LIVE]
    if len(live) != book.alive or book.alive > book.target:
        yield f"{len(live)} workers live, {book.alive} counted, {book.target} wanted"
    starting = sum(worker.state is STARTING for worker in live)
    if starting != book.starting:
        yield f"{starting} workers start, {book.starting} counted"


def _progress(book: Book, victims: Victims, asked: bool) -> Iterator[str]:
    if book.ready.tasks and book.idle:
        yield "tasks are ready, and workers idle"
    if book.ready.tasks and not book.alive and (START, 0) not in book.timers:
        yield "tasks are ready, no worker is alive, and none will be started"
    awake = any(not worker.silent for worker in book.idle.values())
    even = asked or not book.balance
    if awake and not book.ready.tasks and not even and victims.fullest() is not None:
        yield "a worker is idle, while another holds what would pay to hand over"
    if book.closing and not book.tasks and (book.idle or book.starting):
        yield "closed, nothing is left, and workers stay"
    if book.done and (book.tasks or book.workers):
        yield "done, and something is left"
