"""Carries out what the scheduler decides: the hands of the engine, all of it under its lock.

The engine says what happened (`Carrier.handle`); the scheduler answers with commands; here they
become calls of the backend, notes in the ledger, and lines of the history. Nothing here blocks or
runs the user's code: what would is only noted (``Ledger.owed``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from . import blame
from .backends.base import Backend, Death, Parcel, Result
from .bunch import bunches
from .core import commands as do
from .core import events as ev
from .core.scheduler import Scheduler
from .ledger import Arrived, Entry, Ledger

if TYPE_CHECKING:
    from .future import Future
    from .observe.history import History

__all__ = ["Carrier"]

TINY = 20e-6
"""Calls expected to be shorter than this many seconds may be answered in groups."""

TINY_KNOWN = 100
"""Calls that must have been measured before that."""


class Carrier:
    """See above.

    Args:
        backend, scheduler, ledger, clock: the engine's.
        started: called when there are workers to wait for.
        done: called when nothing is left to decide.
        broken: called when workers cannot be started at all.
    """

    def __init__(
        self,
        backend: Backend,
        scheduler: Scheduler,
        ledger: Ledger,
        clock: Callable[[], float],
        *,
        started: Callable[[], None],
        done: Callable[[], None],
        broken: Callable[[], None],
    ) -> None:
        self.scheduler = scheduler
        self.ledger = ledger
        self.history: History | None = None  # who is told what happens, if anybody is
        self.timed = False  # note when each call starts, though no time limit is watched
        self.alive: dict[int, None] = {}
        self.backlog: list[Future] = []  # accepted while all were busy: see `take_in`
        self.why_broken: BaseException | None = None
        self._backend = backend
        self._clock = clock
        self._started = started
        self._is_done = done
        self._is_broken = broken
        self._deaths: dict[int, Death] = {}
        self._start_error: tuple[BaseException, bool] | None = None
        self._arrived: Sequence[Arrived] = ()
        self._carry = {
            do.Start: self._start,
            do.Send: self._send,
            do.Resolve: self._resolve,
            do.Carve: ledger.carve,
            do.Ended: self._ended,
            do.Retrying: self._retrying,
            do.TakeBack: self._take_back,
            do.Inspect: self._inspect,
            do.Kill: self._kill,
            do.Retire: self._retire,
            do.Broken: self._broken,
            do.Done: self._done,
        }

    def handle(self, event: ev.Event) -> None:
        """One event, and all that follows from it."""
        self.carry_out(self.scheduler.handle(event, self._clock()))

    def carry_out(self, commands: Sequence[do.Command]) -> None:
        """In order; what follows from an answer comes behind what was decided before."""
        carry = self._carry
        if len(commands) == 1:
            reply = carry[type(commands[0])](commands[0])  # type: ignore[operator]
            if reply is None:
                return
            commands = self.scheduler.handle(reply, self._clock())
        waiting: deque[do.Command] = deque(commands)
        while waiting:
            command = waiting.popleft()
            reply = carry[type(command)](command)  # type: ignore[operator]
            if reply is not None:
                waiting.extend(self.scheduler.handle(reply, self._clock()))

    def file(self, entry: Entry | Future) -> int:
        """Give an entry its task."""
        task = self.scheduler.new_task()
        self.ledger.entries[task] = entry
        entry._target._carved(task)
        return task

    def take_in(self) -> None:
        """Tell the scheduler what was submitted while all were busy, before anything else.

        What could be sent, or would start a worker, never waits here (``Scheduler.hungry``), so
        whatever waits is taken in before an event that lets it be sent.
        """
        backlog: list[Future] = []
        try:
            backlog, self.backlog = self.backlog, []
            for entry, family, calls in bunches(backlog, self._backend.combine):
                task = self.file(entry)
                self.handle(ev.Submitted(task, family, calls, calls > 1))
        except BaseException:
            place = self.ledger.place
            self.backlog += [one for one in backlog if place(one) is None and not one.done()]
            raise

    # -- what workers say ------------------------------------------------------------------------

    def answered(self, worker: int, results: Sequence[Result]) -> None:
        """A worker has reported results. Those of tasks that have ended otherwise are late."""
        entries = self.ledger.entries
        answers: list[ev.Answer] = []
        arrived: list[Arrived] = []
        seconds, calls = 0.0, 0
        for result in results:
            task, attempt, lo, hi, _, errors, _, spent = result
            entry = entries.get(task)
            if entry is None:
                continue
            seconds += spent
            calls += hi - lo
            held = self._offer(worker, entry, result) if errors else None
            if held and entry._open == 0:
                entries.pop(task, None)
            answers.append(ev.Answer(task, attempt, hi))
            arrived.append(Arrived(entry, result, held))
        self._arrived = arrived
        if self.history is not None:
            self._note_answers(worker, arrived)
        self.handle(ev.Answered(worker, answers, seconds, calls))
        self._arrived = ()

    def _offer(self, worker: int, entry: Entry | Future, result: Result) -> set[int] | None:
        """Ask the scheduler about each error that the policy may retry."""
        retry = self.ledger.families[entry._family].retry
        errors = result.errors
        if retry is None or not errors:
            return None
        held = set()
        for offset in sorted(errors):
            if isinstance(errors[offset], retry.on):
                self.ledger.failing = (result, offset)
                self.handle(ev.Failed(worker, result.task, result.attempt, offset))
                self.ledger.failing = None
                held.add(offset)
        return held or None

    def _note_answers(self, worker: int, arrived: Sequence[Arrived]) -> None:
        """Tell the history, and now and then how many calls wait."""
        history = self.history
        assert history is not None
        history.answered(worker, arrived)
        if self._clock() >= history.next_sample:
            counts = self.scheduler.statistics()
            history.sample(counts.queued + counts.delayed, counts.running)

    def ready(self, worker: int) -> None:
        """A worker is ready."""
        if self.history is not None:
            self.history.ready(worker)

    def start_failed(self, worker: int, error: BaseException, *, fatal: bool) -> None:
        """A worker could not be started."""
        self.alive.pop(worker, None)
        self._start_error = (error, fatal)
        if self.history is not None:
            self.history.gone(worker, "could not be started")

    def died(self, worker: int, death: Death) -> None:
        """A worker is gone."""
        self.alive.pop(worker, None)
        self._deaths[worker] = death
        if self.history is not None:
            self.history.gone(worker, death.how)

    def forget(self, worker: int) -> None:
        """All that follows from a worker's end has been done."""
        self._deaths.pop(worker, None)

    # -- commands ------------------------------------------------------------------------------

    def _start(self, command: do.Start) -> None:
        # In this order: Ctrl-C in between must not leave us waiting for one that nobody starts.
        self._backend.start(command.worker)
        self.alive[command.worker] = None
        if self.history is not None:
            self.history.starting(command.worker)
        if self._backend.has_pump:
            self._started()

    def _send(self, command: do.Send) -> None:
        worker = command.worker
        entries, families = self.ledger.entries, self.ledger.families
        known = -1
        flags = (False, False, False)  # timed, tiny, exact
        parcels = []
        for task, attempt, lo, hi in command.parts:
            entry = entries[task]
            entry._worker = worker
            family = entry._family
            if family != known:
                known = family
                options = families[family]
                mean = self.scheduler.expected(family)
                # A result that waits for company is held back by a long call behind it, so each
                # travels alone until the family is known; see TINY_KNOWN.
                known_well = self.scheduler.measured(family) >= TINY_KNOWN
                exact = options.exact or not known_well
                tiny = mean is not None and mean < TINY and not exact
                flags = (self.timed or options.timeout is not None, tiny, exact)
            parcels.append(
                Parcel(task, attempt, lo, hi, entry._base, entry._index, entry._call, *flags)
            )
        if self.history is not None:
            self.history.sent(worker)
        self._backend.send(worker, parcels)

    def _resolve(self, command: do.Resolve) -> None:
        self.ledger.resolve(command.answers, self._arrived)

    def _ended(self, command: do.Ended) -> None:
        death = self._deaths.get(command.worker) if command.worker is not None else None
        broken = self._blame() if command.how == "broken" else None
        if self.history is not None:
            entry = self.ledger.entries.get(command.task)
            self.history.ended(command.how, entry, command.lo, command.hi)
        self.ledger.end(command, death, broken)

    def _retrying(self, command: do.Retrying) -> None:
        if self.history is not None:
            self.history.retrying(command.attempt, command.why)

    def _take_back(self, command: do.TakeBack) -> ev.TakenBack:
        taken = self._backend.take_back(command.worker, command.task, command.offset)
        return ev.TakenBack(command.worker, taken)

    def _inspect(self, command: do.Inspect) -> ev.Seen:
        return ev.Seen(command.worker, self._backend.inspect(command.worker))

    def _kill(self, command: do.Kill) -> None:
        self._backend.kill(command.worker, command.how)

    def _retire(self, command: do.Retire) -> None:
        self._backend.retire(command.worker)

    def _broken(self, command: do.Broken) -> None:
        self._blame()

    def _blame(self) -> BaseException:
        if self.why_broken is None:
            error, fatal = self._start_error or (None, False)
            self.why_broken = blame.broken(error, initializer=fatal)
            self._is_broken()
        return self.why_broken

    def _done(self, command: do.Done) -> None:
        self._is_done()
