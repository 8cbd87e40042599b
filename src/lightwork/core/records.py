"""The records that the scheduler keeps: tasks, workers, families; and the tables of their states.

Tasks and workers are plain records with slots, made and changed on the hot path. Who changes
them is told in ``scheduler.py``; the tables here are held by the tests, which swap in records
that check every move.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass
from math import inf
from random import Random
from typing import TYPE_CHECKING

from .retry import FamilyPolicy

if TYPE_CHECKING:
    from .deadlines import Timers
    from .queue import Ready

__all__ = [
    "TASK_MOVES",
    "WORKER_MOVES",
    "Book",
    "Carved",
    "Family",
    "Loose",
    "Statistics",
    "Task",
    "Worker",
]

READY = "ready"  # in the queue
DELAYED = "delayed"  # waits for its next attempt
SENT = "sent"  # with a worker: started or not
ENDED = "ended"  # every call has its outcome, or stands in another task

TASK_MOVES: dict[str, tuple[str, ...]] = {
    READY: (SENT, ENDED),
    DELAYED: (READY, ENDED),
    SENT: (READY, DELAYED, ENDED),
    ENDED: (),
}
"""The states of a task, and where each may lead. A new one is READY."""

STARTING = "starting"  # asked for, not yet heard of
IDLE = "idle"  # holds nothing, takes anything
BUSY = "busy"  # holds something, may be given more
DRAINING = "draining"  # ends what it holds, is given nothing, then retires
LEAVING = "leaving"  # was told to retire
KILLED = "killed"  # was told to die

WORKER_MOVES: dict[str, tuple[str, ...]] = {
    STARTING: (IDLE, KILLED),
    IDLE: (BUSY, LEAVING),
    BUSY: (IDLE, DRAINING, KILLED),
    DRAINING: (LEAVING, KILLED),
    LEAVING: (),
    KILLED: (),
}
"""The states of a worker, and where each may lead. From every one it may die, and is forgotten."""

LIVE = (STARTING, IDLE, BUSY)
"""The states of the workers that count for the size of the pool."""

EVIDENCE = 8
"""Calls after which the past counts no more than the present. 64 forgot outliers too slowly."""

SURPRISE = 4.0
"""A call this many times longer than expected is believed at once (`SURPRISED`)."""

SURPRISED = 4
"""As EVIDENCE, after a surprise."""

SHORTEST = 1e-7
"""Seconds. Nothing is believed to be shorter: the loop around a call takes its worker as long."""


class Family:
    """The tasks of one function under one policy, and what a call of it is expected to take."""

    __slots__ = ("mean", "number", "policy", "priority", "seen", "timeout")

    def __init__(self, number: int, policy: FamilyPolicy) -> None:
        self.number = number
        self.policy = policy
        self.priority = policy.priority
        self.timeout = policy.timeout
        # Unknown is infinitely long: whatever is done for calls that may be long is right then.
        self.mean = inf  # seconds a call
        self.seen = 0  # calls that were measured

    def learn(self, seconds: float, calls: int) -> None:
        """`calls` calls took `seconds` of working time together."""
        each = seconds / calls
        if each < SHORTEST:
            each = SHORTEST
        seen = self.seen
        self.seen = seen + calls
        if not seen:
            self.mean = each
            return
        mean = self.mean
        past = SURPRISED if each > SURPRISE * mean else min(seen, EVIDENCE)
        self.mean = mean + (each - mean) * calls / (calls + past)


class Task:
    """Consecutive calls of one function: what is scheduled."""

    __slots__ = ("attempt", "calls", "family", "next", "number", "one", "state", "wish", "worker")

    # What only carved tasks have. A class attribute costs the many others nothing.
    suspect = False  # may be what kills workers: is never sent together with another
    base = 0  # the offset of its first call in the task that was submitted
    # What only submitted runs have (`Loose`).
    loose = False  # may be divided anywhere

    def __init__(self, number: int, family: Family, calls: int) -> None:
        self.number = number
        self.family = family
        self.calls = calls
        self.next = 0  # all calls before this one have their outcome
        self.attempt = 1
        self.state = READY
        self.worker: Worker | None = None
        self.wish = ""  # "cancel", "kill": what somebody asked for,
        self.one = -1  # for the call at this offset; -1: for all

    @property
    def root(self) -> int:
        """The task that was submitted, whose calls these are."""
        return self.number

    def unwanted(self, at: int) -> bool:
        """Whether somebody asked for this call not to be run (again)."""
        return self.wish != "" and self.one in (-1, at)


class Loose(Task):
    """Calls that were submitted in a row: may be divided anywhere."""

    __slots__ = ()
    loose = True


class Carved(Task):
    """A part of another task that goes its own way."""

    __slots__ = ("base", "loose", "root", "suspect")

    def __init__(self, number: int, parent: Task, lo: int, hi: int) -> None:
        super().__init__(number, parent.family, hi - lo)
        self.attempt = parent.attempt
        if parent.one < 0:
            self.wish = parent.wish
        elif lo <= parent.one < hi:
            self.wish, self.one = parent.wish, parent.one - lo
        self.root = parent.root  # type: ignore[misc]  # a slot, in place of the property
        self.base = parent.base + lo
        self.suspect = parent.suspect
        self.loose = parent.loose


class Worker:
    """A worker, and what it holds."""

    __slots__ = (
        "armed",
        "check_at",
        "condemned",
        "dry",
        "given",
        "heard",
        "held",
        "limit",
        "load",
        "number",
        "open",
        "proved",
        "quiet_at",
        "silent",
        "state",
        "version",
        "wage",
    )

    def __init__(self, number: int) -> None:
        self.number = number
        self.state = STARTING
        self.held: deque[Task] = deque()  # in the order in which it runs them
        self.open = 0  # calls that it holds and has not answered
        self.load: dict[Family, int] = {}  # the same by family; insertion order
        self.given = 0  # calls in its whole life
        self.heard = 0.0  # when it last gave a sign, or was given work while idle
        self.proved = False  # has answered something
        self.wage: Family | None = None  # of the call that last failed for good
        # Taking back (batching.py).
        self.version = 0  # of its entry among the victims
        self.dry = False  # nothing unstarted there, as far as known
        self.silent = False  # has not answered for far too long: is given no batches
        # Deadlines (deadlines.py).
        self.quiet_at = inf  # when its silence becomes suspicious
        self.armed = inf  # the timer that looks at that
        self.limit = inf  # the shortest time limit among what it was given
        self.check_at = inf  # the timer that looks at the time limit
        # What its death was asked for: how, and (task, attempt, offset) or None.
        self.condemned: tuple[str, tuple[int, int, int] | None] | None = None

    def expected(self) -> float:
        """Seconds that what it holds is expected to take, all of it counted as not begun."""
        total = 0.0
        for family, calls in self.load.items():
            total += family.mean * calls
        return total

    def unstarted(self) -> float:
        """Seconds that what it has not started is expected to take."""
        if self.open < 2:
            return 0.0
        return self.expected() * (self.open - 1) / self.open


@dataclass(frozen=True, slots=True)
class Statistics:
    """What is going on, and what has been. All counts but the workers' are of calls.

    Attributes:
        queued: ready, waiting for a worker.
        delayed: waiting for their next attempt.
        running: with a worker, running or about to.
        starting, idle, busy, leaving: workers, by what they do.
        done: ended with a result, or an error that was not retried.
        failed: ended with the last of several attempts failing.
        retried: attempts after the first that were granted, for whatever reason.
        crashed, timed_out, killed, cancelled: ended so (``crashed`` with those over memory).
        broken: ended since no worker could be started.
        died: workers that ended other than by being told to leave.
        started: workers that were asked for.
        taken_back: handed from one worker to another before they started.
        late: answers that came for what had ended otherwise.
    """

    queued: int
    delayed: int
    running: int
    starting: int
    idle: int
    busy: int
    leaving: int
    done: int
    failed: int
    retried: int
    crashed: int
    timed_out: int
    killed: int
    cancelled: int
    broken: int
    died: int
    started: int
    taken_back: int
    late: int


class Counts:
    """The running totals of ``Statistics``."""

    __slots__ = ("died", "done", "ended", "late", "retried", "started", "taken_back")

    def __init__(self) -> None:
        self.done = self.retried = self.died = self.started = self.taken_back = self.late = 0
        self.ended: dict[str, int] = dict.fromkeys(
            ("failed", "crashed", "over-memory", "timed-out", "killed", "cancelled", "broken"), 0
        )


class Book:
    """The whole state: what the parts of the scheduler share."""

    def __init__(
        self,
        *,
        workers: int,
        random: Random,
        ready: Ready,
        timers: Timers,
        max_calls: int | None,
        idle_timeout: float | None,
        prefetch: bool,
        balance: bool,
        can_kill: bool,
    ) -> None:
        self.random = random
        self.ready = ready
        self.timers = timers
        self.max_calls = max_calls
        self.idle_timeout = idle_timeout
        self.prefetch = prefetch
        self.balance = balance
        self.can_kill = can_kill
        self.tasks: dict[int, Task] = {}
        self.families: dict[int, Family] = {}
        self.workers: dict[int, Worker] = {}
        self.delayed: dict[int, float] = {}  # task -> when it is ready again
        self.idle: OrderedDict[int, Worker] = OrderedDict()  # the last one is warmest
        self.target = workers
        self.alive = 0  # workers that are STARTING, IDLE or BUSY
        self.starting = 0
        self.last_task = self.last_worker = self.last_family = 0
        self.closing = self.cancelling = self.broken = self.done = False
        self.counts = Counts()
        self.task_class: type[Task] = Task  # tests put records here that check each move
        self.loose_class: type[Loose] = Loose
        self.carved_class: type[Carved] = Carved
        self.worker_class: type[Worker] = Worker
