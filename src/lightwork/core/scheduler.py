"""The scheduler: every decision of a pool, and nothing else.

Theory of operation
===================

Events come in (``handle``), commands go out. No thread, clock, I/O, or user object in here: time
is a number, chance a seeded ``Random``, a task an int. So a decision can be tested without a
process, replayed from a log, and simulated with ten thousand workers.

**Records** (``records.py``): a `Task` is a run of calls; it is in exactly one of these places, as
its state says (``TASK_MOVES`` is the table; tests check each move against it)::

      Submitted
          |
          v         dispatch                 Failed, Died: another attempt
        READY ----------------------> SENT -----------------------------> DELAYED
          ^                            |                                     |
          |   TakenBack, Died: unrun   |                                     |  Tick
          +----------------------------+                                     |
          +------------------------------------------------------------------+

    and from each of them to ENDED: answered; failed, crashed, timed out, killed for good;
    cancelled; broken; or all of its calls were carved out into other tasks.

A `Worker` (``WORKER_MOVES``)::

    STARTING --> IDLE <--> BUSY --> DRAINING --> LEAVING        any --> KILLED        any --> gone

LEAVING and KILLED only wait for their ``Died``. STARTING, IDLE and BUSY count for the pool's size.

**Parts**: ``queue.py`` orders what is ready, ``batching.py`` makes up batches and finds whom to
take work from, ``answers.py`` sees which answers count, ``moves.py`` moves tasks from state to
state, ``deadlines.py`` is the heap of timers, ``watch.py`` sees to time limits and silences,
``retry.py`` what a policy grants, ``life.py`` which workers there are, ``check.py`` the invariants.
They share the `Book` (``records.py``), and call each other only downwards; this file hears the
events and joins them.

Guarantees (checked by ``check_invariants`` and the state machine in tests/core):

1. Every accepted call ends exactly once.
2. A task is never with two workers. An answer counts only if it comes from the worker that holds
   the task, in the attempt that it holds; any other changes nothing.
3. A death is charged to the one call that was running. What was answered stays; what was not
   started goes back in front, uncharged.
4. While a task is ready, no worker is idle.
5. Batching never delays: while a worker is idle, no other holds back what would pay to hand over.
6. Nothing iterates over a set or depends on hashes of strings: same events, same commands.
7. The cost of an event does not grow with the number of tasks or workers (but for the logarithms
   of the heaps, and for resize, close and break, which look at each worker once).

Assumptions (on the engine): events come one at a time; commands are carried out in order;
``TakeBack`` and ``Inspect`` are answered before any other event; answers of a worker come in the
order of its calls, and all of them before its ``Died``; ``Failed`` is followed, with nothing but
such replies and other ``Failed`` in between, by the ``Answered`` that covers its call.
"""

from __future__ import annotations

import random as random_module
from collections import deque
from collections.abc import Callable
from math import inf
from typing import Any

from ..errors import InternalError
from . import answers, batching, check, story
from .batching import Batches, Victims
from .commands import Broken, Command, Inspect, Resolve, TakeBack
from .deadlines import CHECK, QUIET, RETRY, START, Timer, Timers
from .events import (
    Answered,
    CancelAsked,
    CloseAsked,
    Died,
    Event,
    Failed,
    KillAsked,
    Ready,
    ResizeAsked,
    Running,
    Seen,
    StartFailed,
    Submitted,
    TakenBack,
    Tick,
)
from .life import Crew
from .moves import Moves
from .queue import Ready as ReadyQueue
from .records import (
    BUSY,
    DRAINING,
    KILLED,
    STARTING,
    Book,
    Family,
    Statistics,
    Task,
    Worker,
)
from .retry import FamilyPolicy
from .watch import Watch, running_task

__all__ = ["Scheduler", "Statistics"]

STORY = 200
"""Events that are remembered, for the story of an InternalError."""


class Scheduler:
    """Decides what is run where and when. See the top of this file.

    Args:
        workers: how many workers to hold at most.
        random: the source of jitter.
        max_tasks_per_child: calls that a worker is given before it is replaced; None for any.
        idle_timeout: seconds after which an idle worker retires; None for never.
        prefetch: whether a worker may be given more than one task at a time.
        balance: whether tasks are divided among workers, and taken from one for another; not where
            workers are only in name, and one runs when the other does not.
        can_kill: whether ``Kill`` really ends a running call (else its worker is written off).

    Every method is to be called under one lock of the caller's. After an InternalError the state
    is not to be trusted, and every further event raises the same error.
    """

    def __init__(
        self,
        *,
        workers: int,
        random: random_module.Random,
        max_tasks_per_child: int | None = None,
        idle_timeout: float | None = None,
        prefetch: bool = True,
        balance: bool = True,
        can_kill: bool = True,
    ) -> None:
        self._ready = ReadyQueue()
        self._timers = Timers(self._is_needed)
        self._book = book = Book(
            workers=workers,
            random=random,
            ready=self._ready,
            timers=self._timers,
            max_calls=max_tasks_per_child,
            idle_timeout=idle_timeout,
            prefetch=prefetch,
            balance=balance,
            can_kill=can_kill,
        )
        self._tasks = book.tasks
        self._workers = book.workers
        self._families = book.families
        self._idle = book.idle
        self._victims = Victims(book.workers)
        self._batches = Batches(book, self._victims)
        self._moves = Moves(book)
        self._crew = Crew(book)
        self._watch = Watch(book, self._crew)
        self._asked: tuple[int, int, int] | None = None  # the TakeBack of `_even_out` in flight
        # The call for whose sake the TakeBack in flight is: (task, offset, "cancel" or "kill")
        self._unwanted: tuple[int, int, str] | None = None
        self._past: deque[tuple[float, Event, list[Command]]] = deque(maxlen=STORY)
        self._error: InternalError | None = None
        self._on: dict[type, Callable[[Any, float], list[Command]]] = {
            Submitted: self._submitted,
            Answered: self._answered,
            Failed: self._failed,
            Ready: self._worker_ready,
            StartFailed: self._start_failed,
            Died: self._died,
            TakenBack: self._taken_back,
            Seen: self._seen,
            CancelAsked: self._cancel_asked,
            KillAsked: self._kill_asked,
            ResizeAsked: self._resize_asked,
            CloseAsked: self._close_asked,
            Tick: self._tick,
        }

    # -- the front door --------------------------------------------------------------------------

    def new_task(self) -> int:
        """A number for the next task."""
        book = self._book
        book.last_task += 1
        return book.last_task

    def add_family(self, policy: FamilyPolicy) -> int:
        """A number for tasks that are treated by this policy and take alike long."""
        book = self._book
        book.last_family += 1
        self._families[book.last_family] = Family(book.last_family, policy)
        return book.last_family

    def forget_family(self, family: int) -> None:
        """No more tasks of this family will come. Those that are there go on."""
        self._families.pop(family, None)

    def handle(self, event: Event, now: float) -> list[Command]:
        """Say what happened at time `now` (seconds, never less than before); get what to do."""
        if self._error is not None:
            raise self._error
        try:
            commands = self._on[type(event)](event, now)
        except Exception as error:
            self._error = InternalError(
                f"{error!r} while handling {event!r}\n{story.tell(self._past)}"
            )
            raise self._error from error
        self._past.append((now, event, commands))
        return commands

    def next_deadline(self) -> float | None:
        """When ``Tick`` is to be sent, if nothing else happens; it may be for nothing."""
        return self._timers.next()

    @property
    def hungry(self) -> bool:
        """Whether a task that is submitted now would be sent, or a worker started for it, at
        once. While it is False, only another event can change that."""
        return bool(self._idle) or self._book.alive < self._book.target

    def span(self, task: int) -> tuple[int, int] | None:
        """The offsets between which the open calls of a task are; None when it has ended."""
        known = self._tasks.get(task)
        return None if known is None else (known.next, known.calls)

    def expected(self, family: int) -> float | None:
        """Seconds that a call of the family is expected to take; None while nothing is known."""
        known = self._families.get(family)
        return None if known is None or known.mean == inf else known.mean

    def measured(self, family: int) -> int:
        """How many calls of the family have been measured."""
        known = self._families.get(family)
        return 0 if known is None else known.seen

    def chunk_calls(self, family: int) -> int:
        """How many calls a map should put into its next task."""
        known = self._families.get(family)
        seconds = batching.CHUNK if self._book.balance else batching.CHUNK_IN_PLACE
        return 1 if known is None else batching.chunk_calls(known, seconds)

    def check_invariants(self) -> None:
        """Raise InternalError, with the story, unless all that must hold does. Slow: for tests."""
        wrong = check.problems(self._book, self._victims, self._asked is not None)
        if wrong:
            raise InternalError("\n".join([*wrong, story.tell(self._past)]))

    def explain(self, task: int) -> str:
        """Say, for people, where a task is and why it does not run."""
        return story.explain(self._book, task)

    def statistics(self) -> Statistics:
        """Counts, as of now."""
        return story.statistics(self._book)

    # -- dispatch ----------------------------------------------------------------------------------

    def _dispatch(self, now: float, commands: list[Command]) -> list[Command]:
        """Bring ready tasks and idle workers together; start, even out, or finish."""
        ready, idle, book = self._ready, self._idle, self._book
        while idle and ready.tasks:
            self._give(idle.popitem()[1], now, commands)
        if book.alive < book.target or idle:
            if ready.tasks:
                self._crew.start(ready.tasks, now, commands)
            else:
                self._even_out(now, commands)
        if book.closing and not self._tasks:
            self._crew.finish(commands)
        return commands

    def _give(self, worker: Worker, now: float, commands: list[Command]) -> None:
        """Send a worker, which is idle or at work, a batch if one is due."""
        worker.state = BUSY
        if self._batches.fill(worker, now, commands):
            self._watch.sent(worker, now)
            self._victims.note(worker, now)
            max_calls = self._book.max_calls
            if max_calls is not None and worker.given >= max_calls:
                self._crew.replace(worker, commands)

    def _even_out(self, now: float, commands: list[Command]) -> None:
        """Nothing is ready. Take work from the fullest worker for an idle one, or for a new one."""
        if self._asked is not None or not self._book.balance:
            return
        if self._idle:
            if self._idle[next(reversed(self._idle))].silent:
                return  # it would only hold it back again
        elif self._book.starting:
            return
        victim = self._victims.fullest()
        if victim is None:
            return
        if not self._idle:
            self._crew.start(1, now, commands)  # it will come back here when it is ready
            return
        task, offset = batching.cut_in_half(victim)
        self._asked = (victim.number, task, offset)
        commands.append(TakeBack(victim.number, task, offset))

    # -- events: tasks -----------------------------------------------------------------------------

    def _submitted(self, event: Submitted, now: float) -> list[Command]:
        number, family, calls, loose = event
        book = self._book
        kind = book.loose_class if loose else book.task_class
        task = kind(number, self._families[family], calls)
        self._tasks[number] = task
        if book.closing and (self._idle or book.alive < book.target):
            raise InternalError(f"task {number} was submitted after the end")
        if self._idle and calls == 1 and not self._ready.tasks and book.max_calls is None:
            # What `_dispatch` would do, for the most frequent case. Nobody is idle more than
            # before, so there is nothing to even out.
            worker = self._idle.popitem()[1]
            worker.state = BUSY
            commands: list[Command] = [self._batches.send_one(worker, task, now)]
            self._watch.sent(worker, now)
            return commands
        self._ready.append(task)
        if self._idle or book.alive < book.target:
            return self._dispatch(now, [])
        return []

    def _answered(self, event: Answered, now: float) -> list[Command]:
        worker = self._workers.get(event.worker)
        if worker is None:
            self._book.counts.late += len(event.answers)
            return []
        counted, learnt = answers.count(self._book, worker, event.answers)
        if event.calls > 0:
            answers.learn(learnt, worker, event.seconds, event.calls)
        worker.heard = now
        worker.silent = False
        worker.wage = None
        if not worker.proved:
            worker.proved = True
            self._crew.tries = 0
        commands: list[Command] = [Resolve(counted)] if counted else []
        if worker.state is BUSY:
            if self._ready.tasks and (not worker.open or self._batches.may_top_up(worker)):
                self._give(worker, now, commands)
            elif worker.open > 1:
                self._watch.answered(worker, now)
        if not worker.open:
            self._crew.rest(worker, now, commands)
        book = self._book
        if self._idle or book.alive < book.target or book.closing:
            self._dispatch(now, commands)
        return commands

    def _failed(self, event: Failed, now: float) -> list[Command]:
        commands: list[Command] = []
        self._moves.failed(event, now, commands)
        return self._dispatch(now, commands)

    def _cancel_asked(self, event: CancelAsked, now: float) -> list[Command]:
        return self._unwant(event, "cancel", now)

    def _kill_asked(self, event: KillAsked, now: float) -> list[Command]:
        # At a worker: take the task back first. What then still is there has started, and nothing
        # is behind it, so that an Inspect tells whether it runs, or its answer is on the way.
        return self._unwant(event, "kill", now)

    def _unwant(self, event: CancelAsked | KillAsked, wish: str, now: float) -> list[Command]:
        """A task, or one call of it, is not wanted; `wish`: even if it runs, or not."""
        task = self._tasks.get(event.task)
        at = event.offset
        if task is None or (at >= 0 and not task.next <= at < task.calls):
            return []  # it has ended
        commands: list[Command] = []
        if at >= 0 and task.calls - task.next > 1:
            self._unwant_one(task, at, wish, commands)
        elif task.worker is None:
            self._moves.end(task, "cancelled", commands)
        else:
            task.wish, task.one = task.wish if task.wish == "kill" else wish, -1
            if task.worker.state is not KILLED:
                commands.append(TakeBack(task.worker.number, task.number, task.next))
            return commands
        return self._dispatch(now, commands)

    def _unwant_one(self, task: Task, at: int, wish: str, commands: list[Command]) -> None:
        """One call among others is not wanted."""
        if task.worker is None:
            self._moves.cancel_one(task, at, commands)
        elif task.worker.state is KILLED:
            if not task.wish:  # of several, the first
                task.wish, task.one = wish, at
        else:
            self._unwanted = (task.number, at, wish)
            commands.append(TakeBack(task.worker.number, task.number, at))

    # -- events: replies ---------------------------------------------------------------------------

    def _taken_back(self, event: TakenBack, now: float) -> list[Command]:
        worker = self._workers.get(event.worker)
        asked = self._asked
        if asked is not None and asked[0] == event.worker:
            self._asked = None
        unwanted, self._unwanted = self._unwanted, None
        commands: list[Command] = []
        if worker is None:
            return self._dispatch(now, commands)
        taken = event.tasks
        # Less than was asked for: all that is before it has started, nothing is left to be had.
        if not taken or (
            asked is not None
            and asked[0] == worker.number
            and (taken[0][0] != asked[1] or taken[0][2] > asked[2])
        ):
            worker.dry = True
        for number, attempt, offset in reversed(taken):
            task = self._tasks.get(number)
            if task is None or task.worker is not worker or task.attempt != attempt:
                continue
            at = max(offset, task.next)
            if unwanted is not None and unwanted[0] == number and at <= unwanted[1]:
                self._moves.take_one(worker, task, at, unwanted[1], commands)
                unwanted = None
            else:
                self._moves.take(worker, task, at, commands)
        if unwanted is not None:
            # It has started, and all that was behind it was taken: it runs, or its answer is
            # on the way. Should that be lost with the worker, it is not to be run again.
            task = self._tasks.get(unwanted[0])
            if task is not None and task.worker is worker and task.wish != "kill":
                task.wish, task.one = unwanted[2], unwanted[1]
        if worker.state in (BUSY, DRAINING):
            self._victims.note(worker, now)
            if not worker.open and worker.wage is None:
                self._crew.rest(worker, now, commands)
            elif worker.held and worker.held[-1].wish == "kill":
                commands.append(Inspect(worker.number))
        return self._dispatch(now, commands)

    def _seen(self, event: Seen, now: float) -> list[Command]:
        worker = self._workers.get(event.worker)
        commands: list[Command] = []
        if worker is not None:
            self._watch.seen(worker, event.running, now, commands)
        return self._dispatch(now, commands)

    # -- events: workers ---------------------------------------------------------------------------

    def _worker_ready(self, event: Ready, now: float) -> list[Command]:
        worker = self._workers.get(event.worker)
        if worker is None or worker.state is not STARTING:
            return []
        self._crew.ready(worker, now)
        return self._dispatch(now, [])

    def _start_failed(self, event: StartFailed, now: float) -> list[Command]:
        worker = self._workers.get(event.worker)
        if worker is None:
            return []
        counts = worker.state is STARTING  # else it was told to die meanwhile
        self._crew.gone(worker)
        commands: list[Command] = []
        if counts and (event.fatal or self._crew.failed(now)):
            self._break(commands)
        return self._dispatch(now, commands)

    def _died(self, event: Died, now: float) -> list[Command]:
        number, running, how = event
        worker = self._workers.get(number)
        if worker is None:
            return []
        was = worker.state
        guilty = self._guilty(worker, running, how)
        self._crew.gone(worker)
        if how != "retired":
            self._book.counts.died += 1
        commands: list[Command] = []
        for task in worker.held:
            if task is not guilty or running is None:
                self._moves.requeue(task, commands)
            elif running.offset >= 0:
                self._moves.charge(task, running.offset, how, number, now, commands)
            elif task.calls - task.next == 1:
                self._moves.charge(task, task.next, how, number, now, commands)
            else:
                self._moves.split(task, commands)
        if guilty is not None:
            self._crew.tries = 0  # it had started, and got as far as a call
        fruitless = bool(worker.held) and not worker.proved and worker.condemned is None
        fruitless = fruitless and guilty is None and how == "crashed"
        if (was is STARTING or fruitless) and self._crew.failed(now):
            self._break(commands)
        return self._dispatch(now, commands)

    def _guilty(self, worker: Worker, running: Running | None, how: str) -> Task | None:
        """The task that a worker died in, if it is to be charged."""
        if running is None or how == "retired":
            return None
        at = (running.task, running.attempt, running.offset)
        if (
            worker.condemned is not None
            and worker.condemned[0] == how
            and worker.condemned[1] != at
        ):
            return None  # the call that it was told to die for has ended at the last moment
        return running_task(self._book, worker, running)

    def _break(self, commands: list[Command]) -> None:
        """Workers cannot be started: end everything."""
        book = self._book
        book.broken = book.closing = True
        for worker in self._workers.values():
            worker.held.clear()
            worker.load.clear()
            worker.open = 0
            if worker.state in (BUSY, DRAINING):
                self._crew.kill(worker, "killed", None, commands)
        for task in list(self._tasks.values()):
            self._moves.end(task, "broken", commands)
        commands.append(Broken())

    def _resize_asked(self, event: ResizeAsked, now: float) -> list[Command]:
        commands: list[Command] = []
        self._crew.resize(event.workers, commands)
        return self._dispatch(now, commands)

    def _close_asked(self, event: CloseAsked, now: float) -> list[Command]:
        book = self._book
        book.closing = True
        commands: list[Command] = []
        if event.cancel and not book.cancelling:
            book.cancelling = True
            for task in list(self._tasks.values()):
                if task.worker is None:
                    self._moves.end(task, "cancelled", commands)
            for worker in self._workers.values():
                if worker.state in (BUSY, DRAINING) and worker.held and not worker.dry:
                    head = worker.held[0]
                    commands.append(TakeBack(worker.number, head.number, head.next))
        return self._dispatch(now, commands)

    # -- events: time ------------------------------------------------------------------------------

    def _tick(self, event: Tick, now: float) -> list[Command]:
        commands: list[Command] = []
        for _, kind, number in self._timers.due(now):
            if kind == RETRY:
                self._moves.attempt_again(self._tasks[number])
            elif kind == CHECK:
                self._watch.check(self._workers[number], commands)
            elif kind == QUIET:
                self._watch.quiet(self._workers[number], now, commands)
            elif kind == START:
                self._crew.start_at = inf
            else:
                self._crew.retire_idle(now, commands)
        return self._dispatch(now, commands)

    def _is_needed(self, timer: Timer) -> bool:
        at, kind, number = timer
        if kind == RETRY:
            return self._book.delayed.get(number) == at
        if kind == START:
            return self._crew.start_at == at
        if kind in (CHECK, QUIET):
            worker = self._workers.get(number)
            if worker is None:
                return False
            return at == (worker.check_at if kind == CHECK else worker.armed)
        return self._crew.idle_check_at == at
