"""Which workers there are: when they are started, rest, are replaced, retire or are killed.

Workers are started on demand, when more tasks are ready than workers idle or starting, up to
the target. The idle one that worked last (its caches are warm) is given work first, so that the
others rest, and retire after ``idle_timeout``. A worker that is to leave first ends what it
holds; its replacement is asked for as soon as it is known to leave, not when it has left.

When workers cannot be started: one at a time is tried, after waits that grow from 0.05 s to
1 s, until one answers something. Five failures in a row with no worker alive break the pool.
A worker that dies before it has answered anything, and in no call, counts as one that could not
be started: else a worker that dies of whatever it is sent would be replaced for ever.
"""

from __future__ import annotations

from math import inf

from .commands import Command, Done, Kill, Retire, Start, TakeBack
from .deadlines import IDLE_LONG, START
from .records import BUSY, DRAINING, IDLE, KILLED, LEAVING, LIVE, STARTING, Book, Worker

__all__ = ["Crew"]

FIRST_WAIT = 0.05
"""Seconds after the first failed start; doubled with each further one."""

LONGEST_WAIT = 1.0
"""Seconds that are waited at most between attempts to start a worker."""

TRIES = 5
"""Failures in a row, with no worker alive, that break the pool."""


class Crew:
    """Starts and ends workers."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self.tries = 0  # failures in a row
        self.hold_until = -inf  # no start before this
        self.start_at = inf  # the timer that tries again
        self.idle_check_at = inf  # the timer that looks for those idle too long

    # -- beginning -----------------------------------------------------------------------------

    def start(self, wanted: int, now: float, commands: list[Command]) -> None:
        """Start workers for `wanted` ready tasks, as far as that is needed and allowed."""
        book = self._book
        missing = min(wanted - book.starting, book.target - book.alive)
        if missing <= 0:
            return
        if self.tries:
            if now < self.hold_until:
                if self.start_at == inf:
                    self.start_at = self.hold_until
                    book.timers.set(self.start_at, START)
                return
            missing = 1 - book.starting
        for _ in range(missing):
            self._start(commands)

    def _start(self, commands: list[Command]) -> None:
        book = self._book
        book.last_worker = number = book.last_worker + 1
        book.workers[number] = book.worker_class(number)
        book.alive += 1
        book.starting += 1
        book.counts.started += 1
        commands.append(Start(number))

    def ready(self, worker: Worker, now: float) -> None:
        """A worker that was started takes tasks now."""
        self._book.starting -= 1
        self._idle(worker, now)

    def failed(self, now: float) -> bool:
        """A worker could not be started; tell whether that breaks the pool."""
        book = self._book
        # Else it was started together with one that failed before. (After a success, none has.)
        if now >= self.hold_until or not self.tries:
            self.tries += 1
            wait = min(FIRST_WAIT * 2 ** min(self.tries - 1, 10), LONGEST_WAIT)
            self.hold_until = now + wait
        return self.tries >= TRIES and all(
            worker.state in (LEAVING, KILLED) for worker in book.workers.values()
        )

    # -- resting -------------------------------------------------------------------------------

    def rest(self, worker: Worker, now: float, commands: list[Command]) -> None:
        """A worker has nothing left to do."""
        worker.load.clear()
        worker.limit = worker.quiet_at = inf
        if worker.state is BUSY:
            self._idle(worker, now)
        elif worker.state is DRAINING:
            self.retire(worker, commands)

    def _idle(self, worker: Worker, now: float) -> None:
        book = self._book
        worker.state = IDLE
        worker.heard = now
        book.idle[worker.number] = worker
        if worker.silent:  # it did not even start what it was given: only when no other is there
            book.idle.move_to_end(worker.number, last=False)
        if book.idle_timeout is not None and self.idle_check_at == inf:
            self._check_idle(now + book.idle_timeout)

    def _check_idle(self, at: float) -> None:
        self.idle_check_at = at
        self._book.timers.set(at, IDLE_LONG)

    def retire_idle(self, now: float, commands: list[Command]) -> None:
        """Retire the workers that have been idle for too long. Called by its timer."""
        book = self._book
        self.idle_check_at = inf
        if book.idle_timeout is None:
            return
        while book.idle:
            worker = next(iter(book.idle.values()))  # the bottom of the stack has rested longest
            at = worker.heard + book.idle_timeout
            if at > now:
                self._check_idle(at)
                return
            self.retire(worker, commands)

    # -- ending --------------------------------------------------------------------------------

    def _leave(self, worker: Worker, state: str) -> None:
        """A worker does not count for the size of the pool any more."""
        book = self._book
        if worker.state in LIVE:
            book.alive -= 1
            if worker.state is STARTING:
                book.starting -= 1
            elif worker.state is IDLE:
                del book.idle[worker.number]
        worker.state = state

    def retire(self, worker: Worker, commands: list[Command]) -> None:
        """Tell a worker that holds nothing to leave."""
        self._leave(worker, LEAVING)
        commands.append(Retire(worker.number))

    def replace(self, worker: Worker, commands: list[Command]) -> None:
        """A worker has been given its last batch: another one gets ready meanwhile."""
        book = self._book
        self._leave(worker, DRAINING)
        needed = book.ready.tasks or not book.closing
        if needed and not self.tries and book.alive < book.target:
            self._start(commands)

    def kill(
        self,
        worker: Worker,
        how: str,
        condemned: tuple[int, int, int] | None,
        commands: list[Command],
    ) -> None:
        """End a worker at once, for the sake of the call `condemned`."""
        self._leave(worker, KILLED)
        worker.condemned = (how, condemned)
        commands.append(Kill(worker.number, how))

    def gone(self, worker: Worker) -> None:
        """A worker has ended, one way or other."""
        book = self._book
        if worker.state in LIVE:
            self._leave(worker, LEAVING if worker.state is IDLE else KILLED)
        del book.workers[worker.number]
        stale = (worker.check_at < inf) + (worker.armed < inf)
        if stale:
            book.timers.outdated(stale)

    def resize(self, target: int, commands: list[Command]) -> None:
        """Hold `target` workers from now on: who is too many, leaves; the idle ones first."""
        book = self._book
        book.target = target
        while book.alive > target and book.idle:
            self.retire(next(iter(book.idle.values())), commands)
        if book.alive <= target:
            return
        for state in (STARTING, BUSY):
            for worker in reversed(list(book.workers.values())):
                if book.alive <= target:
                    return
                if worker.state is state:
                    self._dismiss(worker, commands)

    def _dismiss(self, worker: Worker, commands: list[Command]) -> None:
        if worker.state is STARTING:
            self.kill(worker, "retired", None, commands)
            return
        self._leave(worker, DRAINING)
        if worker.open > 1:
            head = worker.held[0]
            commands.append(TakeBack(worker.number, head.number, head.next))

    def finish(self, commands: list[Command]) -> None:
        """Closed, and nothing is left to run: let everyone go, and say when they are gone."""
        book = self._book
        for worker in list(book.workers.values()):
            if worker.state is IDLE:
                self.retire(worker, commands)
            elif worker.state is STARTING:  # an initializer may take for ever
                self.kill(worker, "retired", None, commands)
        if not book.workers and not book.done:
            book.done = True
            commands.append(Done())
