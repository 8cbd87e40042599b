"""The tasks that are ready to be sent.

Higher priorities first; within one, in the order in which they were submitted. What comes back
(taken back, left by a dead worker, due for another attempt) was submitted before everything
that still waits for its first turn, so it goes in front, and there in the order of submission:
a small heap before a plain queue.

Tasks that end while they wait are dropped lazily; when they are the greater part, at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from heapq import heapify, heappop, heappush

from .records import READY, Task

__all__ = ["Ready"]

LEVELS_KEPT = 8
"""Empty levels that are kept for the next task of their priority. Arbitrary."""

DEAD_KEPT = 64
"""Dropped tasks that may lie about before anybody looks at their share. Arbitrary."""


class Level:
    """The ready tasks of one priority."""

    __slots__ = ("back", "dead", "front", "listed", "priority")

    def __init__(self, priority: int) -> None:
        self.priority = priority
        self.front: list[tuple[int, int, int, Task]] = []  # a heap by order of submission
        self.back: deque[Task] = deque()
        self.dead = 0  # tasks in it that are to be dropped
        self.listed = False  # stands in the heap of levels


class Ready:
    """A queue by priority and order. `tasks`, `calls`: how many there are in it."""

    __slots__ = ("_levels", "_order", "_top", "calls", "tasks")

    def __init__(self) -> None:
        self.tasks = 0
        self.calls = 0
        self._levels: dict[int, Level] = {}
        self._order: list[int] = []  # a heap of the negated priorities of the listed levels
        self._top = Level(0)  # the level in which `first` found its task

    def append(self, task: Task) -> None:
        """Put a new task behind all others of its priority."""
        level = self._levels.get(task.family.priority)
        if level is None or not level.listed:
            level = self._list(task.family.priority)
        level.back.append(task)
        self.tasks += 1
        self.calls += task.calls

    def give_back(self, task: Task) -> None:
        """Put a task that was sent before in front, in the order of submission."""
        level = self._levels.get(task.family.priority)
        if level is None or not level.listed:
            level = self._list(task.family.priority)
        heappush(level.front, (task.root, task.base + task.next, task.number, task))
        self.tasks += 1
        self.calls += task.calls - task.next

    def first(self) -> Task | None:
        """The task that is to be sent next, or None. It stays in the queue."""
        if not self.tasks:
            return None
        while True:
            level = self._levels[-self._order[0]]
            front, back = level.front, level.back
            while front:
                task = front[0][3]
                if task.state is READY:
                    self._top = level
                    return task
                heappop(front)
                level.dead -= 1
            while back:
                task = back[0]
                if task.state is READY:
                    self._top = level
                    return task
                back.popleft()
                level.dead -= 1
            heappop(self._order)
            level.listed = False
            if len(self._levels) > LEVELS_KEPT:
                del self._levels[level.priority]

    def pop(self) -> None:
        """Take out the task that `first` has just returned."""
        level = self._top
        task = heappop(level.front)[3] if level.front else level.back.popleft()
        self.tasks -= 1
        self.calls -= task.calls - task.next

    def shrink(self) -> None:
        """A call of a task in the queue has ended otherwise."""
        self.calls -= 1

    def divide(self, task: Task, rest: Task) -> None:
        """`rest` was the end of `task`, which is in the queue: put it right behind.

        Looks for the place among all that wait: for what is done rarely.
        """
        level = self._levels[task.family.priority]
        try:
            place = level.back.index(task)
        except ValueError:
            heappush(level.front, (rest.root, rest.base + rest.next, rest.number, rest))
        else:
            level.back.insert(place + 1, rest)
        self.tasks += 1

    def drop(self, task: Task) -> None:
        """A task in the queue has ended otherwise: its state is READY no longer."""
        self.tasks -= 1
        self.calls -= task.calls - task.next
        level = self._levels[task.family.priority]
        level.dead += 1
        if level.dead > DEAD_KEPT and level.dead * 2 > len(level.front) + len(level.back):
            level.front = [entry for entry in level.front if entry[3].state is READY]
            heapify(level.front)
            level.back = deque(one for one in level.back if one.state is READY)
            level.dead = 0

    def __iter__(self) -> Iterator[Task]:
        """All tasks in it, in the order in which they will be sent."""
        for priority in sorted(self._levels, reverse=True):
            level = self._levels[priority]
            yield from (entry[3] for entry in sorted(level.front) if entry[3].state is READY)
            yield from (task for task in level.back if task.state is READY)

    def _list(self, priority: int) -> Level:
        """Put the level of this priority, which is empty, into the heap of levels."""
        level = self._levels.get(priority)
        if level is None:
            level = self._levels[priority] = Level(priority)
        level.listed = True
        heappush(self._order, -priority)
        return level
