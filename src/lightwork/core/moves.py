"""What becomes of tasks: the moves between the queue, the workers, the delayed and the end.

Each keeps the records of the tasks, the queue and the delays in step, and says what the engine
must know: ``Carve``, ``Ended``, ``Retrying``.
"""

from __future__ import annotations

from . import retry
from .commands import Carve, Command, Ended, Retrying
from .deadlines import RETRY
from .events import Failed
from .records import DELAYED, ENDED, READY, Book, Carved, Task, Worker

__all__ = ["Moves", "carve"]


def carve(book: Book, task: Task, lo: int, hi: int, commands: list[Command]) -> Carved:
    """Make the calls `lo` to `hi` of a task a task of its own; the caller adjusts `task`."""
    book.last_task = number = book.last_task + 1
    part = book.carved_class(number, task, lo, hi)
    book.tasks[number] = part
    commands.append(Carve(task.number, number, lo, hi))
    return part


class Moves:
    """Moves tasks."""

    def __init__(self, book: Book) -> None:
        self._book = book

    def end(self, task: Task, how: str, commands: list[Command], worker: int | None = None) -> None:
        """End the unanswered calls of a task that no worker holds (any more)."""
        self.say_ended(task, task.next, task.calls, how, commands, worker)
        self.forget(task)

    def say_ended(
        self,
        task: Task,
        lo: int,
        hi: int,
        how: str,
        commands: list[Command],
        worker: int | None = None,
    ) -> None:
        """Say that some calls of a task end as `how`; the caller adjusts the task."""
        self._book.counts.ended[how] += hi - lo
        commands.append(Ended(task.number, task.attempt, lo, hi, how, worker))

    def cancel_one(self, task: Task, at: int, commands: list[Command]) -> None:
        """The call `at` of a task of several, which is in the queue, is not wanted any more."""
        ready = self._book.ready
        self.say_ended(task, at, at + 1, "cancelled", commands)
        ready.shrink()
        if at == task.next:
            task.next += 1
        elif at + 1 == task.calls:
            task.calls -= 1
        else:
            rest = self.carve(task, at + 1, task.calls, commands)
            task.calls = at
            ready.divide(task, rest)

    def forget(self, task: Task) -> None:
        """A task has no open call any more; wherever it is, it is there no longer."""
        was = task.state
        task.state = ENDED
        task.worker = None
        del self._book.tasks[task.number]
        if was is READY:
            self._book.ready.drop(task)
        elif was is DELAYED:
            del self._book.delayed[task.number]
            self._book.timers.outdated()

    def requeue(self, task: Task, commands: list[Command]) -> None:
        """A task that was sent is to be sent again, uncharged; unless nobody wants it any more."""
        task.worker = None
        one = task.one
        if self._book.cancelling or (task.wish and one < 0):
            self.end(task, "cancelled", commands)
            return
        if task.wish and task.next <= one < task.calls:
            task.wish, task.one = "", -1
            self.say_ended(task, one, one + 1, "cancelled", commands)
            self.without(task, one, commands)
            return
        task.state = READY
        self._book.ready.give_back(task)

    def retry(self, task: Task, why: str, now: float, commands: list[Command]) -> None:
        """A task of one call, which was charged, gets another attempt."""
        book = self._book
        seconds = retry.wait(task.family.policy, task.attempt, book.random)
        task.worker = None
        task.attempt += 1
        book.counts.retried += 1
        commands.append(Retrying(task.number, task.attempt, now + seconds, why))
        task.state = DELAYED
        book.delayed[task.number] = now + seconds
        if seconds > 0:
            self._book.timers.set(now + seconds, RETRY, task.number)
        else:
            self.attempt_again(task)

    def attempt_again(self, task: Task) -> None:
        """A delayed task is ready."""
        del self._book.delayed[task.number]
        task.state = READY
        self._book.ready.give_back(task)

    def grants(self, task: Task, at: int, how: str) -> bool:
        """Whether the call `at` of the task, which ended as `how`, gets another attempt."""
        if task.unwanted(at) or self._book.cancelling:
            return False
        return task.attempt < retry.attempts(task.family.policy, how)

    def charge(
        self, task: Task, at: int, how: str, worker: int, now: float, commands: list[Command]
    ) -> None:
        """The call `at` of a task is what its worker died of; the task's other calls go back."""
        again = self.grants(task, at, how)
        if again and task.calls - task.next == 1:
            self.retry(task, how, now, commands)
            return
        if again:
            one = self.carve(task, at, at + 1, commands)
            self.retry(one, how, now, commands)
        else:
            self.say_ended(task, at, at + 1, how, commands, worker)
        self.without(task, at, commands)

    def failed(self, event: Failed, now: float, commands: list[Command]) -> None:
        """A call raised; whatever follows for it, ``Answered`` will cover it in a moment."""
        number, task_number, attempt, at = event
        task = self._book.tasks.get(task_number)
        if task is None or task.worker is None or task.worker.number != number:
            return
        if task.attempt != attempt or not task.next <= at < task.calls:
            return
        worker = task.worker
        again = self.grants(task, at, "failed")
        if task.calls - task.next == 1:
            self.release(worker, task)
            worker.wage = task.family
            if again:
                self.retry(task, "failed", now, commands)
            else:
                self.end(task, "failed", commands, number)
        else:
            self._book.counts.done -= 1  # it will be counted with the answer
            if again:
                one = self.carve(task, at, at + 1, commands)
                self.retry(one, "failed", now, commands)
            else:
                self.say_ended(task, at, at + 1, "failed", commands, number)

    def without(self, task: Task, at: int, commands: list[Command]) -> None:
        """What is left of a task that no worker holds, when its call `at` has gone its own way."""
        before, after = at > task.next, at + 1 < task.calls
        rest = None
        if before and after:
            rest = self.carve(task, at + 1, task.calls, commands)
        if before:
            task.calls = at
        else:
            task.next = at + 1
        if before or after:
            self.requeue(task, commands)
        else:
            self.forget(task)
        if rest is not None:
            self.requeue(rest, commands)

    def carve(self, task: Task, lo: int, hi: int, commands: list[Command]) -> Carved:
        """A part of a sent task is with nobody from now on: the caller queues or ends it."""
        part = carve(self._book, task, lo, hi, commands)
        part.state = task.state
        return part

    def split(self, task: Task, commands: list[Command]) -> None:
        """One call of this task kills workers, none can be named: from now on each goes alone."""
        for at in range(task.next, task.calls):
            one = self.carve(task, at, at + 1, commands)
            one.suspect = True
            self.requeue(one, commands)
        self.forget(task)

    @staticmethod
    def release(worker: Worker, task: Task, calls: int | None = None) -> None:
        """A worker does not hold a task any more; or not its last `calls` calls."""
        if calls is None:
            calls = task.calls - task.next
            if worker.held[-1] is task:
                worker.held.pop()
            else:
                worker.held.remove(task)
        worker.open -= calls
        left = worker.load[task.family] - calls
        if left:
            worker.load[task.family] = left
        else:
            del worker.load[task.family]

    def take_one(
        self, worker: Worker, task: Task, at: int, one: int, commands: list[Command]
    ) -> None:
        """As `take`, where the call `one` at or behind `at` is not wanted any more."""
        self.take(worker, task, one + 1, commands)
        wish, where = task.wish, task.one
        task.wish, task.one = "cancel", one
        self.take(worker, task, one, commands)
        task.wish, task.one = wish, where
        if task.worker is worker:
            self.take(worker, task, at, commands)

    def take(self, worker: Worker, task: Task, at: int, commands: list[Command]) -> None:
        """A worker will not start the calls of a task from `at` on."""
        calls = task.calls - at
        if calls <= 0:
            return
        worker.given -= calls
        self._book.counts.taken_back += calls
        if at == task.next:
            self.release(worker, task)
            self.requeue(task, commands)
        else:
            part = self.carve(task, at, task.calls, commands)
            self.release(worker, task, calls)
            task.calls = at
            self.requeue(part, commands)
