"""What is made of answers: which of them count, and what they teach."""

from __future__ import annotations

from collections.abc import Iterable

from .events import Answer
from .records import ENDED, Book, Family, Worker

__all__ = ["count", "learn"]


def count(
    book: Book, worker: Worker, answers: Iterable[Answer]
) -> tuple[list[Answer], dict[Family, int]]:
    """Note what a worker has answered; return the answers that count, and calls by family."""
    tasks, held, load = book.tasks, worker.held, worker.load
    counted: list[Answer] = []
    learnt: dict[Family, int] = {}
    total = 0
    for answer in answers:
        number, attempt, upto = answer
        task = tasks.get(number)
        if task is None or task.worker is not worker:
            book.counts.late += 1
            continue
        done = upto - task.next
        if task.attempt != attempt or done <= 0 or upto > task.calls:
            book.counts.late += 1
            continue
        counted.append(answer)
        total += done
        family = task.family
        learnt[family] = learnt.get(family, 0) + done
        if upto < task.calls:
            task.next = upto
            continue
        task.state = ENDED
        task.worker = None
        del tasks[number]
        if held[0] is task:
            held.popleft()
        else:
            held.remove(task)
    worker.open -= total
    book.counts.done += total
    for family, calls in learnt.items():
        left = load[family] - calls
        if left:
            load[family] = left
        else:
            del load[family]
    return counted, learnt


def learn(learnt: dict[Family, int], worker: Worker, seconds: float, calls: int) -> None:
    """`calls` calls took `seconds` together; what is known of each family is corrected by that."""
    if not learnt:
        if worker.wage is not None:  # the calls failed, and have their outcome already
            worker.wage.learn(seconds, calls)
        return
    if len(learnt) == 1:
        for family in learnt:
            family.learn(seconds, calls)
        return
    expected = sum(family.mean * count for family, count in learnt.items())
    for family, count in learnt.items():
        # Families that nothing is known of are never sent together with others.
        family.learn(seconds * family.mean * count / expected, count)
