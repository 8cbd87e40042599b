"""The engine: the one place with a lock, a thread and a clock.

It tells the scheduler what happened, and carries out what the scheduler decides. The thread
that has an event handles it: ``submit`` writes to an idle worker itself, a worker thread
resolves its own future, and one *pump* thread waits for everything else (answers of processes,
deaths, deadlines). Nothing polls.

How a method works, always in this order:

1. under the lock: feed an event to the scheduler, carry out its commands. Commands that would
   block or run the user's code are only noted.
2. without the lock: ``backend.flush()`` writes what was queued, then outcomes are *settled*:
   futures get their results, which runs their callbacks.

Guarantees: no user code runs under the lock; every accepted call is settled exactly once; when
the lock's holder is hit by an asynchronous exception (Ctrl-C in the main thread), the state may
be half changed, so the engine is aborted at once rather than left to hang.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from . import exits
from .backends.base import Backend, Death, Result, WorkerOptions
from .carrier import Carrier
from .core import events as ev
from .core.scheduler import Scheduler, Statistics
from .errors import PoolClosed, TaskKilled
from .ledger import Entry, Ledger, Owed
from .options import TaskOptions
from .policy import family_policy
from .pump import Pump, log_failure, slices
from .weak import WeakList

if TYPE_CHECKING:
    from .core.events import Running
    from .future import Future
    from .observe.history import History
    from .stream import Chunk, Stream

__all__ = ["AtWork", "Engine"]

BACKLOG = 4096
"""Calls that are taken in at once at most: some milliseconds with the lock held."""


class AtWork(NamedTuple):
    """A worker, and the call that it is at, if any."""

    worker: int
    running: Running | None
    entry: Entry | Future | None
    kind: str
    pid: int | None


class Engine:
    """Runs tasks on one backend."""

    scattered = False
    """Whether answers come from other engines, too: see ``lane``."""

    def __init__(
        self,
        backend: Backend,
        options: WorkerOptions,
        *,
        workers: int,
        max_tasks_per_child: int | None = None,
        idle_timeout: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._backend = self.backend = backend
        self._options = options
        self._clock = clock
        self._scheduler = Scheduler(
            workers=workers,
            random=random.Random(options.seed),
            max_tasks_per_child=max_tasks_per_child,
            idle_timeout=idle_timeout,
            balance=backend.kind != "serial",  # in place there is nobody to share with
            can_kill=backend.can_kill,
        )
        self._lock = threading.RLock()  # an RLock, since the collector may run us inside us
        self._ledger = Ledger(clock, options.memory_limit)
        self._submitted = 0
        self._combines = backend.combines
        self._closed: str | None = None  # why no more tasks are taken
        self._aborted = False
        self._close_wanted = False
        self.streams: WeakList[Stream] = WeakList()  # whose input may not be read
        self._finished = threading.Event()
        self._all_gone = False
        self._deferred: deque[Callable[[], None]] = deque()  # outcomes that are the pump's to tell
        self.at_end: list[Callable[[], None]] = []  # called once, when all is over
        self._pump = Pump(
            f"{options.name}-pump",
            step=self._step,
            wake=backend.wake,
            end=self._end,
            failed=self._step_failed,
        )
        self._wake_at = math.inf  # what the pump sleeps until
        self._carrier = Carrier(
            backend,
            self._scheduler,
            self._ledger,
            clock,
            started=self._pump.start,
            done=self._done,
            broken=self._is_broken,
        )
        backend.open(self, options)
        exits.register(self)

    # -- for the pool --------------------------------------------------------------------------

    @property
    def history(self) -> History | None:
        """Who is told what happens, if anybody is."""
        return self._carrier.history

    def remember(self) -> None:
        """Remember what happens from now on, in a history. Before the first task."""
        from .observe.history import History

        self._carrier.history = History(self._options.name, self._backend.kind)

    def time_calls(self) -> None:
        """Let workers note when each call starts, though no time limit is watched."""
        self._carrier.timed = True

    @property
    def closed(self) -> bool:
        """Whether no more tasks are taken."""
        return self._closed is not None

    def check_open(self) -> None:
        """Raise PoolClosed or PoolBroken when no more tasks are taken."""
        if self._closed is not None:
            self._refuse()

    def add_family(self, options: TaskOptions) -> int:
        """Register the tasks of one function under one policy; return their family."""
        policy = family_policy(options, keeps_time=self._backend.keeps_time)
        with self._lock:
            family = self._scheduler.add_family(policy)
            self._ledger.families[family] = options
        return family

    def chunk_calls(self, family: int) -> int:
        """How many calls a map should put into its next task."""
        return self._scheduler.chunk_calls(family)

    def expected(self, family: int) -> float | None:
        """Seconds that a call of this family is expected to take; None while unknown."""
        return self._scheduler.expected(family)

    def submit(self, call: Any, future: Future, family: int, index: int | None = None) -> None:
        """Accept one call for its future. Raises PoolClosed and PoolBroken.

        `index`: its number among the submissions of a pool that has more engines than this one.
        """
        with self._lock:
            if self._closed is not None:
                self._refuse()
            future._call = call
            future._family = family
            future._index = self._submitted if index is None else index
            self._submitted += 1
            if self._combines and not self._scheduler.hungry:
                # Nobody waits for it: it is told to the scheduler with what comes behind it,
                # before the next thing that happens.
                backlog = self._carrier.backlog
                backlog.append(future)
                if len(backlog) >= BACKLOG:
                    self._take_in()
                return
            owed = self._accept(future, family, 1)
        if owed is not None:
            self._after(owed)

    def submit_chunk(self, call: Any, chunk: Chunk, family: int, index: int) -> None:
        """Accept calls of a map, the first of which is item `index`. Raises as `submit`."""
        with self._lock:
            self.check_open()
            calls = call.calls
            owed = self._accept(Entry(call, chunk, family, index, 0, calls), family, calls)
        if owed is not None:
            self._after(owed)

    def _accept(self, entry: Entry | Future, family: int, calls: int) -> Owed | None:
        """Locked. Returns what `_after` is to do, if anything."""
        carrier = self._carrier
        try:
            if carrier.backlog:
                carrier.take_in()
            task = carrier.file(entry)
            commands = self._scheduler.handle(ev.Submitted(task, family, calls), self._clock())
            if not commands:
                return None
            carrier.carry_out(commands)
        except BaseException as error:
            self._damaged(error)
            raise
        return self._leave()

    def _take_in(self) -> None:
        """Locked. See ``Carrier.take_in``."""
        try:
            self._carrier.take_in()
        except BaseException as error:
            self._damaged(error)
            raise

    def cancel(self, tasks: Iterable[int]) -> None:
        """Let these tasks not start, as far as they have not."""
        self._say(*[ev.CancelAsked(task) for task in tasks])

    def cancel_future(self, future: Future) -> None:
        """Let this call not start, if it has not."""
        self._unwant(future, ev.CancelAsked)

    def kill_future(self, future: Future) -> bool:
        """End a call even while it runs; return False if it has ended, or never was."""
        return self._unwant(future, ev.KillAsked)

    def _unwant(self, future: Future, event: type[ev.CancelAsked | ev.KillAsked]) -> bool:
        found = False

        def events() -> Iterator[ev.Event]:
            # Asked for with the lock held: before the event is handled the call may not move on
            # to another task, in which nobody would look for it.
            nonlocal found
            place = self._ledger.place(future)
            if place is not None:
                found = True
                yield event(*place)

        self._feed(events())
        return found

    def is_running(self, future: Future) -> bool:
        """Whether a worker is at this call now."""
        with self._lock:
            place = self._ledger.place(future)
            if place is None:
                return False
            task, offset = place
            worker = self._ledger.entries[task]._worker
            if worker is None or worker not in self._carrier.alive:
                return False
            running = self._backend.inspect(worker)
            return running is not None and running.task == task and offset in (-1, running.offset)

    def resize(self, workers: int) -> None:
        """Hold this many workers from now on."""
        self._say(ev.ResizeAsked(workers))

    def statistics(self) -> Statistics:
        """What is going on now."""
        with self._lock:
            self._take_in()
            return self._scheduler.statistics()

    def close(self, *, cancel: bool, why: str = "the pool was shut down") -> None:
        """Take no more tasks; end when what was accepted has ended. Does not wait."""
        if not cancel and self._closed is None:
            for stream in self.streams.living():
                stream.feed_rest()
        with self._lock:
            if self._closed is None:
                self._closed = why
        if not self._aborted:
            self._say(ev.CloseAsked(cancel))

    def drop(self) -> None:
        """The pool was forgotten: close soon. Safe in a finaliser, whatever thread it hit."""
        self._close_wanted = True
        self._backend.wake()

    def abort(self, why: str) -> None:
        """End everything now: kill all workers, whatever they do. Does not wait.

        Does not depend on the scheduler, whose state an interrupt may have left half changed.
        Another interrupt may end it half-way: called again, it goes on with what is left.
        """
        with self._lock:
            self._closed = self._closed or why
            if self._finished.is_set():
                return
            self._aborted = True
            error = TaskKilled(f"{why}, and what its workers ran was ended with them")
            self._ledger.abandon(error, self._span)
            for future in self._carrier.backlog:
                self._ledger.owed.append((future, future._cancelled, (0, 1)))
            self._carrier.backlog = []
            for worker in list(self._carrier.alive):
                self._backend.kill(worker, "killed")
            if not self._carrier.alive:
                self._done()
            owed = self._leave()
        self._after(owed)
        self._backend.wake()

    def orphan(self, why: str) -> None:
        """In a forked child: it has our objects, but none of our threads, and its copies must not
        touch the parent's workers, nor wait for anything."""
        self._lock = threading.RLock()  # the old one may be held by a thread that is not here
        self._closed = why
        self._aborted = True
        self._pump.forget()
        lost = PoolClosed(why)
        for entry in list(self._ledger.entries.values()):
            entry._target._orphaned(lost)
        for future in self._carrier.backlog:
            future._orphaned(lost)
        self._carrier.backlog = []
        self._finished = threading.Event()
        self._finished.set()

    @property
    def finished(self) -> bool:
        """Whether all is over."""
        return self._finished.is_set()

    def _span(self, task: int) -> tuple[int, int] | None:
        """Between which offsets the open calls of a task are, if the scheduler still knows."""
        try:
            return self._scheduler.span(task)
        except Exception:
            return None

    def wait_finished(self, timeout: float | None = None) -> bool:
        """Wait until the engine has ended; at once from a thread that it needs itself."""
        if threading.current_thread() is self._pump.thread or self._backend.inside():
            return self._finished.is_set()
        for moment in self.moments(timeout):
            if self._finished.wait(0.0 if self._pump.refused else moment):
                break
            self.drive(moment)
        if not self._finished.is_set():
            return False
        self._pump.join()
        self._backend.join()
        return True

    # -- what the backend says (Sink) ----------------------------------------------------------

    def ready(self, worker: int) -> None:
        """See Sink."""
        with self._lock:
            self._carrier.ready(worker)
        self._say(ev.Ready(worker))

    def start_failed(self, worker: int, error: BaseException, *, fatal: bool) -> None:
        """See Sink."""
        with self._lock:
            self._carrier.start_failed(worker, error, fatal=fatal)
        self._gone(worker, ev.StartFailed(worker, fatal))

    def died(self, worker: int, death: Death) -> None:
        """See Sink."""
        with self._lock:
            self._carrier.died(worker, death)
        self._gone(worker, ev.Died(worker, death.running, death.how))

    def failed(self, worker: int, error: BaseException) -> None:
        """See Sink."""
        if isinstance(error, Exception):
            log_failure(self._options.name, error)
        self._damaged(error)
        self.died(worker, Death("crashed", None))

    def results(self, worker: int, results: Sequence[Result]) -> None:
        """See Sink."""
        carrier = self._carrier
        with self._lock:
            if self._aborted:
                return  # everything was settled then
            try:
                if carrier.backlog:
                    carrier.take_in()
                carrier.answered(worker, results)
            except BaseException as error:
                self._damaged(error)
                raise
            owed = self._leave()
        self._after(owed)

    def remembered(self) -> tuple[History, Statistics, float] | None:
        """The history as of now, with the counts and the time; None if there is none."""
        with self._lock:
            if self.history is None:
                return None
            return self.history.snapshot(), self._scheduler.statistics(), self._clock()

    def running(self) -> list[AtWork]:
        """The workers, and the call that each is at."""
        backend = self._backend
        pid_of = getattr(backend, "pid_of", None)
        with self._lock:
            found: list[AtWork] = []
            for worker in self._carrier.alive:
                seen = self._backend.inspect(worker)
                entry = None if seen is None else self._ledger.entries.get(seen.task)
                pid = None if pid_of is None else pid_of(worker)
                found.append(AtWork(worker, seen, entry, backend.kind, pid))
            return found

    def nudged(self) -> None:
        """See Sink."""
        if self._close_wanted and self._closed is None:
            self.close(cancel=False, why="the pool was dropped")

    # -- handling ------------------------------------------------------------------------------

    def _say(self, *events: ev.Event) -> None:
        """Feed events, carry out, settle."""
        self._feed(events)

    def _feed(self, events: Iterable[ev.Event]) -> None:
        """`_say`, of events that may be made up with the lock held, one after the other."""
        carrier = self._carrier
        with self._lock:
            if self._aborted:
                return
            try:
                if carrier.backlog:
                    carrier.take_in()
                for event in events:
                    carrier.handle(event)
            except BaseException as error:
                self._damaged(error)
                raise
            owed = self._leave()
        self._after(owed)

    def _gone(self, worker: int, event: ev.Event) -> None:
        """A worker is gone: in an orderly life the scheduler hears it, else we count."""
        if not self._aborted:
            self._say(event)
            self._carrier.forget(worker)
            return
        with self._lock:
            if not self._carrier.alive and not self._finished.is_set():
                self._done()
            owed = self._leave()
        self._after(owed)

    def _leave(self) -> Owed:
        """Locked. Before the lock is released: see to the next deadline, take what is to settle."""
        if not self._aborted:
            deadline = self._scheduler.next_deadline()
            if deadline is not None and deadline < self._wake_at:
                self._wake_at = deadline
                self._pump.start()
                self._backend.wake()
        return self._ledger.take_owed()

    def _after(self, owed: Owed) -> None:
        """Free. Write what was queued, then hand out outcomes."""
        self._backend.flush()
        pump = self._pump
        helping = pump.helper == threading.get_ident()
        for target, action, args in owed:
            if helping and target is not None and target._has_listeners():
                self._deferred.append(partial(action, *args))
                pump.stir()
            else:
                action(*args)
        if not helping:
            helped = pump.helped
            if helped is not None and helped.done():
                self._backend.wake()

    def _damaged(self, error: BaseException) -> None:
        """Something escaped while the state was being changed: nothing may wait for it now."""
        interrupted = isinstance(error, (KeyboardInterrupt, SystemExit))
        self.abort("the pool was interrupted" if interrupted else f"internal error: {error!r}")

    def _refuse(self) -> None:
        broken = self._carrier.why_broken
        if broken is not None:
            raise broken
        raise PoolClosed(f"cannot schedule new futures: {self._closed}")

    # -- the end -------------------------------------------------------------------------------

    def _is_broken(self) -> None:
        self._closed = "the pool is broken"

    def _done(self) -> None:
        """Locked. Nothing is left to decide, nor to run."""
        self._all_gone = self._aborted = True
        if self._pump.thread is None:
            self._ledger.owed.append((None, self._end, ()))
        else:
            self._pump.stir()

    def _end(self) -> None:
        """Free. Nothing is left."""
        try:
            self._backend.close()
            while self.at_end:
                self.at_end.pop()()
        finally:
            self._finished.set()  # whatever happens: others wait for this

    # -- waiting -------------------------------------------------------------------------------

    def help(self, waited: Future | Stream, timeout: float | None) -> None:
        """Let the calling thread, which waits for `waited`, do the pump's waiting."""
        if self._backend.has_pump or self._pump.refused:
            self._pump.help(waited, timeout)

    def moments(self, timeout: float | None) -> Iterator[float | None]:
        """The `slices` of a wait in which the waiter may have to `drive`."""
        return slices(timeout, divide=self._pump.thread is None)

    def drive(self, seconds: float | None) -> bool:
        """Do the pump's work for a while, if there is no thread for it and none can be started."""
        if not self._pump.refused:
            return False
        if self._step(seconds):
            self._end()
        return True

    def stir(self, waited: Future | Stream) -> None:
        """There is news of it that is not from us: a caller may be waiting for that."""
        pump = self._pump
        if pump.helped is waited and pump.helper != threading.get_ident():
            self._backend.wake()

    def _step(self, timeout: float | None) -> bool:
        """Wait up to `timeout` seconds for whatever comes next, and handle it. True: all done."""
        while self._deferred and threading.get_ident() != self._pump.helper:
            self._deferred.popleft()()
        self.nudged()
        with self._lock:
            if self._all_gone:
                return True
            deadline = None if self._aborted else self._scheduler.next_deadline()
            now = self._clock()
            self._wake_at = math.inf if deadline is None else deadline
        if deadline is not None:
            if deadline <= now:
                self._say(ev.Tick())
                return False
            timeout = deadline - now if timeout is None else min(timeout, deadline - now)
        self._backend.wait(timeout)
        return False

    def _step_failed(self, error: BaseException) -> None:
        """Something escaped from a step: what was read may be lost, so nothing may wait for it."""
        if isinstance(error, Exception):
            log_failure(self._options.name, error)
        if self._aborted:
            self._all_gone = True  # the second time: there is nothing left to save
        self._damaged(error)
