"""A model of everything outside the scheduler: workers that obey, die, hang, and answer twice.

`World` carries out the scheduler's commands as an engine would, keeps its own account of every
call, and fails the test as soon as the scheduler does what it must not. It is driven by small
ints (which worker, which task), so that a random generator, Hypothesis or a fixed list of steps
can all be the driver.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

from lightwork.core import commands as do
from lightwork.core import events as ev
from lightwork.core.records import TASK_MOVES, WORKER_MOVES, Carved, Loose, Task, Worker
from lightwork.core.retry import FamilyPolicy
from lightwork.core.scheduler import Scheduler
from lightwork.options import Backoff

Call = tuple[int, int]  # the task that was submitted, and the offset in it

POLICIES = (
    FamilyPolicy(),
    FamilyPolicy(attempts_failed=3, attempts_crashed=2, attempts_timed_out=2, timeout=2.0),
    FamilyPolicy(attempts_failed=2, backoff=Backoff(0.5, 2, jitter=0.5), priority=5),
    FamilyPolicy(attempts_crashed=4, timeout=0.3, priority=-1, exact=True),
)

SECONDS = (1e-5, 1e-3, 8e-3, 0.05, 5.0)


class CheckedTask(Task):
    """A task that allows only the moves of the table."""

    __slots__ = ()

    def __setattr__(self, name: str, value: Any) -> None:
        _check(self, name, value, TASK_MOVES)
        super().__setattr__(name, value)


class CheckedLoose(Loose):
    """The same for calls that were submitted in a row."""

    __slots__ = ()

    def __setattr__(self, name: str, value: Any) -> None:
        _check(self, name, value, TASK_MOVES)
        super().__setattr__(name, value)


class CheckedCarved(Carved):
    """The same for parts of tasks."""

    __slots__ = ()

    def __setattr__(self, name: str, value: Any) -> None:
        _check(self, name, value, TASK_MOVES)
        super().__setattr__(name, value)


class CheckedWorker(Worker):
    """A worker that allows only the moves of the table."""

    __slots__ = ()

    def __setattr__(self, name: str, value: Any) -> None:
        _check(self, name, value, WORKER_MOVES)
        super().__setattr__(name, value)


def _check(record: object, name: str, value: Any, moves: dict[str, tuple[str, ...]]) -> None:
    if name == "state":
        old = getattr(record, "state", value)
        assert value == old or value in moves[old], f"{old} -> {value}"


class ModelWorker:
    """What a worker has: `todo` in order, of which the first `begun` have started."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.up = False
        self.told: str | None = None  # "retire", or how it is to be killed
        self.todo: deque[tuple[int, int, int]] = deque()  # (task, attempt, offset), not started
        self.running: tuple[int, int, int] | None = None
        self.since = 0.0
        self.finished: list[tuple[int, int, int, bool]] = []  # ... and whether it raised
        self.seconds = 0.0
        self.fresh: set[int] = set()  # tasks of several calls that were not unpacked yet


class World:
    """Scheduler and workers."""

    def __init__(
        self, workers: int = 2, seed: int = 0, checked: bool = True, **options: Any
    ) -> None:
        self.now = 100.0
        self.scheduler = Scheduler(workers=workers, random=random.Random(seed), **options)
        book = self.scheduler._book
        if checked:
            book.task_class, book.carved_class = CheckedTask, CheckedCarved
            book.loose_class, book.worker_class = CheckedLoose, CheckedWorker
        self.max_calls: int | None = options.get("max_tasks_per_child")
        self.checked = checked
        self.policies = [self.scheduler.add_family(policy) for policy in POLICIES]
        self.workers: dict[int, ModelWorker] = {}
        self.log: list[do.Command] = []
        self.named: dict[int, dict[int, Call]] = {}  # task -> offset -> the call that stands there
        self.policy: dict[int, FamilyPolicy] = {}  # submitted task -> policy
        self.outcome: dict[Call, str] = {}
        self.open: dict[Call, None] = {}
        self.holder: dict[Call, int] = {}  # the worker that has the call
        self.executed: dict[Call, int] = {}
        self.excused: dict[Call, int] = {}  # how often a second run was right
        self.charges: dict[Call, int] = {}
        self.victims: dict[int, tuple[Call | None, str]] = {}  # dead worker -> what it ran, how
        self.unwanted: set[Call] = set()
        self.suspects: set[Call] = set()  # one of them kills, and nobody knows which
        self.given: dict[int, int] = {}
        self.past: list[ev.Answered] = []
        self.failing: tuple[int, int] | None = None  # the call that is being offered for retry
        self.arriving: dict[tuple[int, int, int], list[tuple[int, bool]]] = {}
        self.closed = self.cancelled = self.broken = self.done = False

    # -- telling the scheduler ---------------------------------------------------------------------

    def tell(self, event: ev.Event) -> list[do.Command]:
        """Feed an event, carry out what follows, check the invariants; return all commands."""
        said: list[do.Command] = []
        waiting = deque(self.scheduler.handle(event, self.now))
        while waiting:
            command = waiting.popleft()
            said.append(command)
            reply = self._carry_out(command)
            if reply is not None:
                waiting.extend(self.scheduler.handle(reply, self.now))
        if self.checked:
            self.scheduler.check_invariants()
        self.log += said
        return said

    def _carry_out(self, command: do.Command) -> ev.Event | None:
        name = "_do_" + type(command).__name__.lower()
        reply: ev.Event | None = getattr(self, name)(command)
        return reply

    def call(self, task: int, offset: int) -> Call:
        """The call that stands at this offset of a task."""
        return self.named[task][offset]

    def _end(self, call: Call, how: str) -> None:
        assert call not in self.outcome, f"{call} ended twice: {self.outcome[call]}, {how}"
        assert call in self.open
        self.outcome[call] = how
        del self.open[call]

    # -- carrying out ------------------------------------------------------------------------------

    def _do_start(self, command: do.Start) -> None:
        assert command.worker not in self.given
        self.workers[command.worker] = ModelWorker(command.worker)
        self.given[command.worker] = 0

    def _do_send(self, command: do.Send) -> None:
        worker = self.workers[command.worker]
        assert worker.up
        assert worker.told is None, f"{worker.number} cannot take work"
        assert command.parts
        for task, attempt, lo, hi in command.parts:
            assert lo < hi
            if hi - lo > 1:
                worker.fresh.add(task)
            for offset in range(lo, hi):
                call = self.call(task, offset)
                assert call in self.open, f"{call} was sent after its end"
                assert call not in self.holder, f"{call} is with two workers"
                assert call not in self.unwanted, f"{call} is not wanted any more"
                assert not self.cancelled
                if call in self.suspects:
                    assert len(command.parts) == hi - lo == 1
                    assert not worker.todo
                assert attempt == 1 + self.charges.get(call, 0)
                self.holder[call] = worker.number
                worker.todo.append((task, attempt, offset))
            self.given[worker.number] += hi - lo
        if self.max_calls is not None:
            assert self.given[worker.number] <= self.max_calls

    def _do_resolve(self, command: do.Resolve) -> None:
        assert command.answers
        for task, attempt, upto in command.answers:
            for offset, held in self.arriving.pop((task, attempt, upto)):
                if not held:  # else it has got a name of its own meanwhile
                    self._end(self.call(task, offset), "done")

    def _do_carve(self, command: do.Carve) -> None:
        assert command.new not in self.named
        assert command.lo < command.hi
        names = self.named[command.task]
        self.named[command.new] = {
            at - command.lo: names.pop(at) for at in range(command.lo, command.hi)
        }

    def _do_ended(self, command: do.Ended) -> None:
        for offset in range(command.lo, command.hi):
            call = self.call(command.task, offset)
            self._end(call, command.how)
            if command.how in ("crashed", "over-memory", "timed-out", "killed"):
                assert command.worker is not None
                assert self.victims[command.worker] == (call, command.how)
                assert command.attempt == 1 + self.charges.get(call, 0)
            elif command.how == "cancelled":
                assert call in self.unwanted or self.cancelled
                assert call not in self.holder, "it has started"
            elif command.how == "failed":
                assert self.failing == (command.task, offset)
            else:
                assert command.how == "broken"

    def _do_retrying(self, command: do.Retrying) -> None:
        (call,) = self.calls_of(command.task)
        self.charges[call] = self.charges.get(call, 0) + 1
        assert command.attempt == 1 + self.charges[call]
        policy = self.policy[call[0]]
        assert command.attempt <= max(
            policy.attempts_failed, policy.attempts_crashed, policy.attempts_timed_out
        )
        self.excused[call] = self.excused.get(call, 0) + (command.why == "failed")

    def calls_of(self, task: int) -> list[Call]:
        """The open calls that are named by this task."""
        return [call for call in self.named[task].values() if call in self.open]

    def _do_takeback(self, command: do.TakeBack) -> ev.TakenBack:
        worker = self.workers.get(command.worker)
        if worker is None:
            return ev.TakenBack(command.worker, [])
        place = 0  # when it has started or ended, everything that has not is behind it
        for at, (task, _, offset) in enumerate(worker.todo):
            if (task, offset) == (command.task, command.offset):
                place = at
        taken: list[tuple[int, int, int]] = []
        kept = list(worker.todo)[:place]
        for task, attempt, offset in list(worker.todo)[place:]:
            if not taken or taken[-1][0] != task:
                taken.append((task, attempt, offset))
            del self.holder[self.call(task, offset)]
            self.given[worker.number] -= 1
        worker.todo = deque(kept)
        return ev.TakenBack(command.worker, taken)

    def _do_inspect(self, command: do.Inspect) -> ev.Seen:
        worker = self.workers.get(command.worker)
        return ev.Seen(command.worker, self.running(worker) if worker else None)

    def _do_kill(self, command: do.Kill) -> None:
        assert self.workers[command.worker].told is None
        self.workers[command.worker].told = command.how

    def _do_retire(self, command: do.Retire) -> None:
        worker = self.workers[command.worker]
        assert worker.up
        assert worker.told is None
        assert not worker.todo
        assert not worker.finished
        assert worker.running is None or worker.running[2] == -1  # unpacks what was taken back
        worker.told = "retire"

    def _do_broken(self, command: do.Broken) -> None:
        assert not self.open
        self.broken = True

    def _do_done(self, command: do.Done) -> None:
        assert not self.workers
        assert not self.open
        assert self.closed or self.broken
        assert not self.done
        self.done = True

    # -- what may happen ---------------------------------------------------------------------------

    def submit(self, family: int = 0, calls: int = 1, loose: bool = False) -> int:
        """Submit a task of one of the families; return its number."""
        task = self.scheduler.new_task()
        self.named[task] = {offset: (task, offset) for offset in range(calls)}
        self.policy[task] = self.scheduler._families[self.policies[family]].policy
        for offset in range(calls):
            self.open[task, offset] = None
        self.tell(ev.Submitted(task, self.policies[family], calls, loose))
        return task

    def ready(self, number: int) -> list[do.Command]:
        """A worker that was started is ready."""
        self.workers[number].up = True
        return self.tell(ev.Ready(number))

    def start_failed(self, number: int, fatal: bool = False) -> list[do.Command]:
        """A worker could not be started."""
        del self.workers[number]
        return self.tell(ev.StartFailed(number, fatal))

    def running(self, worker: ModelWorker) -> ev.Running | None:
        """What the page of the worker says."""
        if worker.running is None:
            return None
        return ev.Running(*worker.running, worker.since)

    def unpack(self, number: int) -> None:
        """A worker begins to rebuild the arguments of its next task: it is at offset -1."""
        worker = self.workers[number]
        task, attempt, _ = worker.todo[0]
        assert worker.running is None
        assert task in worker.fresh
        worker.running = (task, attempt, -1)
        worker.since = self.now

    def begin(self, number: int) -> None:
        """A worker starts its next call."""
        worker = self.workers[number]
        assert worker.running is None or worker.running[2] == -1
        worker.running = None
        task, attempt, offset = worker.todo.popleft()
        worker.fresh.discard(task)
        call = self.call(task, offset)
        runs = self.executed[call] = self.executed.get(call, 0) + 1
        assert runs <= 1 + self.excused.get(call, 0), f"{call} runs again without need"
        worker.running = (task, attempt, offset)
        worker.since = self.now

    def end(self, number: int, raised: bool = False) -> None:
        """The call that a worker is at ends; the answer is not sent yet."""
        worker = self.workers[number]
        assert worker.running is not None
        assert worker.running[2] >= 0
        worker.finished.append((*worker.running, raised))
        worker.running = None

    def report(self, number: int, seconds: float = 0.0) -> list[do.Command]:
        """A worker sends its answers: first what may be retried, then everything."""
        worker = self.workers[number]
        finished, worker.finished = worker.finished, []
        groups: list[list[tuple[int, int, int, bool]]] = []
        for one in finished:
            if groups and groups[-1][-1][:3] == (one[0], one[1], one[2] - 1):
                groups[-1].append(one)
            else:
                groups.append([one])
        answers, said = [], []
        for group in groups:
            for task, attempt, offset, raised in group:
                del self.holder[self.call(task, offset)]
                if raised:
                    self.failing = (task, offset)
                    said += self.tell(ev.Failed(number, task, attempt, offset))
                    self.failing = None
            last = group[-1]
            answer = ev.Answer(last[0], last[1], last[2] + 1)
            self.arriving[answer] = [(one[2], one[3]) for one in group]
            answers.append(answer)
        event = ev.Answered(number, answers, seconds * len(finished), len(finished))
        said += self.tell(event)
        # What does not count: a task of one call that had failed; what a broken pool had ended.
        if not self.broken:
            assert all(held for group in self.arriving.values() for _, held in group)
        self.arriving.clear()
        self.past.append(event)
        return said

    def repeat(self, which: int, number: int | None = None) -> None:
        """An answer of the past comes once more, from its worker or another."""
        old = self.past[which]
        event = old if number is None else old._replace(worker=number)
        before = list(self.outcome.items())
        said = self.tell(event)
        assert not any(isinstance(one, do.Resolve) for one in said)
        assert before == list(self.outcome.items())

    def die(self, number: int, how: str = "crashed") -> list[do.Command]:
        """A worker dies where it is; its answers that were written are read first."""
        worker = self.workers[number]
        if worker.told is not None and worker.told != "retire" and how == "crashed":
            how = worker.told
        running = self.running(worker)
        call = None
        if running is not None and running.offset >= 0:
            call = self.call(running.task, running.offset)
            self.excused[call] = self.excused.get(call, 0) + 1
        elif running is not None:
            left = [offset for task, _, offset in worker.todo if task == running.task]
            call = self.call(running.task, left[0]) if left else None  # all taken back meanwhile
            if len(left) > 1 and how != "killed":
                self.suspects.update(self.call(running.task, offset) for offset in left)
                call = None
        self.victims[number] = (call, how)
        for task, _, offset, _ in worker.finished:  # finished, and lost
            lost = self.call(task, offset)
            self.excused[lost] = self.excused.get(lost, 0) + 1
        for one, holder in list(self.holder.items()):
            if holder == number:
                del self.holder[one]
        del self.workers[number]
        charged = dict(self.charges)
        said = self.tell(ev.Died(number, running, how))
        changed = [one for one in self.charges if self.charges[one] != charged.get(one, 0)]
        assert changed in ([], [call])
        return said

    def leave(self, number: int) -> list[do.Command]:
        """A worker that was told to retire does."""
        worker = self.workers[number]
        assert worker.told in ("retire", "retired")
        del self.workers[number]
        return self.tell(ev.Died(number, None, "retired"))

    def cancel(self, task: int, offset: int = -1) -> list[do.Command]:
        """Somebody cancels a task, or one call of it."""
        self._unwant(task, offset)
        return self.tell(ev.CancelAsked(task, offset))

    def kill(self, task: int, offset: int = -1) -> list[do.Command]:
        """Somebody kills a task, or one call of it."""
        self._unwant(task, offset)
        return self.tell(ev.KillAsked(task, offset))

    def _unwant(self, task: int, offset: int) -> None:
        known = self.scheduler._book.tasks.get(task)
        if offset < 0 or known is None or known.calls - known.next == 1:
            self.unwanted.update(self.calls_of(task))
            return
        call = self.call(task, offset)
        holder = self.workers.get(self.holder.get(call, -1))
        taken = holder is None or call not in self._started(holder)
        alive = holder is None or holder.told in (None, "retire")
        if (taken and alive) or not known.wish:
            self.unwanted.add(call)
        elif known.one >= 0 and known.wish != "kill":
            # What has started can be unwanted one by one only: the last one counts.
            self.unwanted.discard(self.call(task, known.one))
            self.unwanted.add(call)

    def _started(self, holder: ModelWorker) -> set[Call]:
        todo = {self.call(task, offset) for task, _, offset in holder.todo}
        return {call for call, number in self.holder.items() if number == holder.number} - todo

    def offset(self, task: int, at: int) -> int:
        """One of the offsets of the open calls of a task."""
        known = self.scheduler._book.tasks[task]
        return known.next + at % (known.calls - known.next)

    def resize(self, workers: int) -> list[do.Command]:
        """Somebody resizes the pool."""
        return self.tell(ev.ResizeAsked(workers))

    def close(self, cancel: bool = False) -> list[do.Command]:
        """Somebody closes the pool."""
        self.closed = True
        self.cancelled = self.cancelled or cancel
        return self.tell(ev.CloseAsked(cancel))

    def tick(self, seconds: float | None = None) -> list[do.Command]:
        """Time passes: so many seconds, or up to the next deadline."""
        deadline = self.scheduler.next_deadline()
        if seconds is not None:
            self.now += seconds
        elif deadline is not None:
            self.now = max(self.now, deadline)
        if deadline is None or deadline > self.now:
            return []
        return self.tell(ev.Tick())

    # -- all the way -------------------------------------------------------------------------------

    def start_all(self) -> None:
        """Let all workers that were asked for be ready."""
        for worker in list(self.workers.values()):
            if not worker.up and worker.told is None:
                self.ready(worker.number)

    def step(self, worker: ModelWorker, seconds: float = 1e-3) -> bool:
        """Let a worker do what it is to do next; False when there is nothing."""
        if worker.told is not None:
            if worker.told in ("retire", "retired"):
                self.leave(worker.number)
            else:
                self.die(worker.number)
        elif not worker.up:
            self.ready(worker.number)
        elif worker.running is not None and worker.running[2] >= 0:
            self.end(worker.number)
            self.report(worker.number, seconds)
        elif worker.finished:
            self.report(worker.number, seconds)
        elif worker.todo:
            self.begin(worker.number)
        else:
            return False
        return True

    def drain(self, seconds: float = 1e-3) -> None:
        """Let everything take its course until nothing moves."""
        for _ in range(100_000):
            moved = [self.step(worker, seconds) for worker in list(self.workers.values())]
            if any(moved):
                continue
            if not self.open and not self.workers:
                return
            deadline = self.scheduler.next_deadline()
            if deadline is None or not self.open:
                return
            self.tick()
        raise AssertionError("it never ends")

    def finish(self) -> None:
        """Drain, close, and look that everything has ended, exactly once."""
        self.drain()
        assert not self.open, f"left over: {list(self.open)}"
        if not self.done:
            self.close()
            self.drain()
        assert self.done
        assert not self.workers
        assert not self.scheduler._book.tasks
        statistics = self.scheduler.statistics()
        assert statistics.done == sum(how == "done" for how in self.outcome.values())
        assert not self.holder or self.broken
        assert statistics.queued == statistics.delayed == statistics.running == 0


OPERATIONS = {
    "submit": 4,
    "begin": 6,
    "end": 5,
    "report": 5,
    "ready": 3,
    "unpack": 1,
    "die": 2,
    "over-memory": 1,
    "obey": 3,
    "start-failed": 1,
    "tick": 2,
    "pass": 1,
    "repeat": 1,
    "cancel": 1,
    "kill": 1,
    "resize": 0.1,
    "close": 0.1,
    "fatal": 0.1,
}
"""What may happen, and how often it does, in `wander`."""


def wander(world: World, rng: random.Random, steps: int) -> None:
    """Let anything happen that can, at random."""
    names, weights = list(OPERATIONS), list(OPERATIONS.values())
    for _ in range(steps):
        name = rng.choices(names, weights)[0]
        if not _outside(world, name, rng) and world.workers:
            worker = world.workers[rng.choice(list(world.workers))]
            happen(world, worker, name, rng.random() < 0.3, rng.choice(SECONDS))


def _outside(world: World, name: str, rng: random.Random) -> bool:
    """What people and time do; False when this is for a worker."""
    tasks = list(world.scheduler._book.tasks)
    if name == "submit":
        if not (world.closed or world.broken):
            calls = rng.choice((1, 1, 1, 2, 3, 6, 40))
            world.submit(rng.randrange(len(POLICIES)), calls, rng.random() < 0.5)
    elif name == "tick":
        world.tick()
    elif name == "pass":
        world.tick(rng.choice((1e-4, 1e-2, 1.0, 10.0)))
    elif name == "repeat":
        if world.past:
            whose = rng.choice([None, *world.workers])
            world.repeat(rng.randrange(len(world.past)), whose)
    elif name in ("cancel", "kill"):
        if tasks:
            task = rng.choice(tasks)
            getattr(world, name)(task, rng.choice((-1, world.offset(task, rng.randrange(40)))))
    elif name == "resize":
        world.resize(rng.randint(1, 5))
    elif name == "close":
        world.close(rng.random() < 0.5)
    else:
        return False
    return True


def happen(world: World, worker: ModelWorker, name: str, raises: bool, seconds: float) -> None:
    """Let something happen to a worker, if it can."""
    number = worker.number
    if name in ("die", "over-memory"):
        if worker.up or name == "die":
            world.die(number, "crashed" if name == "die" else name)
    elif name == "obey":
        if worker.told is not None:
            world.step(worker)
    elif worker.up:
        _work(world, worker, name, raises, seconds)
    elif name == "ready" and worker.told is None:
        world.ready(number)
    elif name in ("start-failed", "fatal"):
        world.start_failed(number, name == "fatal")


def _work(world: World, worker: ModelWorker, name: str, raises: bool, seconds: float) -> None:
    """What happens to a worker that is ready."""
    number, running = worker.number, worker.running
    unpacking = running is not None and running[2] == -1
    if name == "begin":
        if worker.todo and (running is None or unpacking):
            world.begin(number)
    elif name == "unpack":
        if running is None and worker.todo and worker.todo[0][0] in worker.fresh:
            world.unpack(number)
    elif name == "end":
        if running is not None and not unpacking:
            call = world.call(running[0], running[2])
            world.end(number, raises and world.policy[call[0]].attempts_failed > 1)
    elif name == "report" and worker.finished:
        world.report(number, seconds)


def kinds(said: Iterable[do.Command]) -> list[str]:
    """The names of commands."""
    return [type(one).__name__ for one in said]


def only(said: Sequence[do.Command], kind: type) -> list[Any]:
    """The commands of one kind."""
    return [one for one in said if isinstance(one, kind)]
