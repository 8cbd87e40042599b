"""Simulate a pool of up to ten thousand workers, in virtual time, on the real scheduler.

::

    python benchmarks/simulate.py                 # a table of scenarios, in under a minute
    python benchmarks/simulate.py --workers 10000 --tasks 1000000 --times heavy

For each it prints the makespan against the bound max(total / workers, longest), below which no
scheduler can come, and against a pool that hands out calls in order, one by one, without losing
any time (greedy: what can be had without knowing how long calls will take); how many events a
second the scheduler decides on this machine; and what a waiting task costs in memory. No process
is started and nothing is waited for.

What is simulated: a message takes `--latency` each way; a worker answers when it has nothing left,
or a millisecond after its last answer; a worker starts in `--start` seconds; with `--failures`
each call kills its worker with that probability (and is run again). What is not: the time that
the scheduler itself takes, which is printed apart.
"""

from __future__ import annotations

import argparse
import random
import time
import tracemalloc
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush, heapreplace
from typing import Any

from lightwork.core import commands as do
from lightwork.core import events as ev
from lightwork.core.retry import FamilyPolicy
from lightwork.core.scheduler import Scheduler, Statistics

FLUSH = 1e-3
"""Seconds between the answers of a worker that goes on working."""

AHEAD = 0.5
"""Seconds of work that a map keeps submitted, as ``stream.py`` does."""


@dataclass(frozen=True)
class Scenario:
    """What is simulated. Times in seconds."""

    workers: int = 2
    tasks: int = 20_000
    times: str = "even"
    seconds: float = 1e-3
    failures: float = 0.0
    latency: float = 1e-4
    start: float = 5e-3
    chunked: bool = False
    seed: int = 0


@dataclass
class Outcome:
    """What came of it."""

    makespan: float
    bound: float
    greedy: float  # makespan of a pool that hands out in order, one by one, in no time
    lost: float  # seconds of work that was lost with workers that died
    events: int
    deciding: float  # seconds in the scheduler
    counts: Statistics


def durations(scenario: Scenario) -> list[float]:
    """How long each call takes; their mean is about `scenario.seconds`."""
    rng = random.Random(scenario.seed)
    n, mean = scenario.tasks, scenario.seconds
    if scenario.times == "even":
        return [mean] * n
    if scenario.times == "noisy":  # exponential
        return [rng.expovariate(1 / mean) for _ in range(n)]
    if scenario.times == "heavy":  # Pareto, whose mean is 3 times its least; no finite variance
        return [mean / 3 * rng.paretovariate(1.5) for _ in range(n)]
    if scenario.times == "bimodal":  # one in fifty takes a thousand times as long
        short = mean / (0.98 + 0.02 * 1000)
        return [short * 1000 if rng.random() < 0.02 else short for _ in range(n)]
    if scenario.times == "last":  # short ones teach a wrong estimate, then come the long ones
        return [mean / 10] * (n - n // 100) + [mean * 90] * (n // 100)
    if scenario.times == "one-last":  # and one at the very end
        return [mean] * (n - 1) + [mean * (n / scenario.workers) / 2]
    if scenario.times == "sawtooth":  # alternately a long run of short ones and of long ones
        return [mean * (1.99 if (i // 500) % 2 else 0.01) for i in range(n)]
    raise ValueError(f"unknown times: {scenario.times}")


def greedy(times: Sequence[float], workers: int) -> float:
    """When the last call ends, if each worker that is free takes the next one at once."""
    free = [0.0] * workers
    for seconds in times:
        heapreplace(free, free[0] + seconds)
    return max(free)


class SimWorker:
    """A worker in virtual time."""

    __slots__ = ("begun", "finished", "last", "number", "spent", "todo", "version")

    def __init__(self, number: int) -> None:
        self.number = number
        self.todo: deque[tuple[int, int, int, float]] = deque()  # task, attempt, offset, seconds
        self.begun: tuple[int, int, int, float] | None = None
        self.finished: list[tuple[int, int, int, float]] = []
        self.last = -1.0
        self.spent = 0.0
        self.version = 0


class Simulation:
    """One run of a scenario."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.now = 0.0
        self.rng = random.Random(scenario.seed + 1)
        self.scheduler = Scheduler(workers=scenario.workers, random=random.Random(scenario.seed))
        policy = FamilyPolicy(attempts_crashed=1000)
        self.family = self.scheduler.add_family(policy)
        self.workers: dict[int, SimWorker] = {}
        self.agenda: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self.order = 0
        self.tick_at = float("inf")
        self.parts: dict[int, Sequence[float]] = {}  # task -> seconds of each of its calls
        self.inputs: Iterator[float] = iter(())
        self.ahead = 0  # calls submitted and not answered
        self.left = 0
        self.arriving: dict[ev.Answer, int] = {}  # what is being answered -> calls
        self.finished_at = 0.0
        self.lost = 0.0
        self.events = 0
        self.deciding = 0.0
        self.carry: dict[type, Callable[[Any], ev.Event | None]] = {
            do.Start: self._start,
            do.Send: self._send,
            do.Resolve: self._resolve,
            do.Carve: self._carve,
            do.TakeBack: self._take_back,
            do.Retire: self._retire,
            do.Retrying: lambda _: None,
        }

    def run(self) -> Outcome:
        """Run it to the end."""
        times = durations(self.scenario)
        self.left = len(times)
        if self.scenario.chunked:
            self.inputs = iter(times)
            self._feed()
        else:
            for seconds in times:
                self._submit([seconds])
        while self.left:
            self.now, _, action, args = heappop(self.agenda)
            action(*args)
        total, longest = sum(times), max(times)
        return Outcome(
            makespan=self.finished_at,
            bound=max(total / self.scenario.workers, longest),
            greedy=greedy(times, self.scenario.workers),
            lost=self.lost,
            events=self.events,
            deciding=self.deciding,
            counts=self.scheduler.statistics(),
        )

    def _at(self, when: float, action: Callable[..., None], *args: Any) -> None:
        self.order += 1
        heappush(self.agenda, (when, self.order, action, args))

    def _tell(self, event: ev.Event) -> None:
        clock = time.perf_counter
        begin = clock()
        commands = self.scheduler.handle(event, self.now)
        self.deciding += clock() - begin
        self.events += 1
        if not commands:
            return
        waiting = deque(commands)
        while waiting:
            command = waiting.popleft()
            reply = self.carry[type(command)](command)
            if reply is not None:
                begin = clock()
                waiting.extend(self.scheduler.handle(reply, self.now))
                self.deciding += clock() - begin
                self.events += 1
        deadline = self.scheduler.next_deadline()
        if deadline is not None and deadline < self.tick_at:
            self.tick_at = deadline
            self._at(max(deadline, self.now), self._tick, deadline)

    def _tick(self, deadline: float) -> None:
        if deadline == self.tick_at:
            self.tick_at = float("inf")
            self._tell(ev.Tick())

    # -- the caller --------------------------------------------------------------------------------

    def _submit(self, seconds: list[float]) -> None:
        task = self.scheduler.new_task()
        self.parts[task] = seconds
        self.ahead += len(seconds)
        self._tell(ev.Submitted(task, self.family, len(seconds)))

    def _feed(self) -> None:
        """Submit chunks until the window is full, as a map does."""
        while True:
            mean = self.scheduler.expected(self.family)
            workers = self.scenario.workers
            window = 2 * workers
            if mean is not None:
                window = max(min(int(AHEAD * workers / mean), 100_000), 4 * workers)
            calls = self.scheduler.chunk_calls(self.family)
            if self.ahead + calls > window and self.ahead:
                return
            chunk = [seconds for _, seconds in zip(range(calls), self.inputs)]
            if not chunk:
                return
            self._submit(chunk)

    # -- the workers -------------------------------------------------------------------------------

    def _start(self, command: do.Start) -> None:
        self.workers[command.worker] = SimWorker(command.worker)
        self._at(self.now + self.scenario.start, self._tell, ev.Ready(command.worker))

    def _send(self, command: do.Send) -> None:
        self._at(self.now + self.scenario.latency, self._arrive, command)
        worker = self.workers.get(command.worker)
        if worker is None:
            return  # it is dead, and the scheduler has not heard of it
        for task, attempt, lo, hi in command.parts:
            seconds = self.parts[task]
            for offset in range(lo, hi):
                worker.todo.append((task, attempt, offset, seconds[offset]))

    def _arrive(self, command: do.Send) -> None:
        worker = self.workers.get(command.worker)
        if worker is not None and worker.begun is None:
            self._begin(worker)

    def _begin(self, worker: SimWorker) -> None:
        if not worker.todo:
            return
        worker.begun = call = worker.todo.popleft()
        rate = self.scenario.failures
        if rate and self.rng.random() < rate:
            spent = call[3] * self.rng.random()
            self._at(self.now + spent, self._die, worker, spent)
        else:
            self._at(self.now + call[3], self._end, worker)

    def _end(self, worker: SimWorker) -> None:
        assert worker.begun is not None
        worker.finished.append(worker.begun)
        worker.spent += worker.begun[3]
        worker.begun = None
        if not worker.todo or self.now - worker.last >= FLUSH:
            self._answer(worker)
        self._begin(worker)

    def _answer(self, worker: SimWorker) -> None:
        """Send what is finished on its way."""
        worker.last = self.now
        finished, worker.finished = worker.finished, []
        groups: dict[ev.Answer, int] = {}
        first = 0
        for place, (task, attempt, offset, _) in enumerate(finished, 1):
            if place == len(finished) or finished[place][0] != task:
                groups[ev.Answer(task, attempt, offset + 1)] = place - first
                first = place
        event = ev.Answered(worker.number, list(groups), worker.spent, len(finished))
        worker.spent = 0.0
        self._at(self.now + self.scenario.latency, self._hear, event, groups)

    def _hear(self, event: ev.Answered, groups: dict[ev.Answer, int]) -> None:
        self.arriving = groups
        self._tell(event)
        if self.scenario.chunked:
            self._feed()

    def _resolve(self, command: do.Resolve) -> None:
        for answer in command.answers:
            self.left -= self.arriving[answer]
            self.ahead -= self.arriving[answer]
        self.finished_at = self.now

    def _die(self, worker: SimWorker, spent: float) -> None:
        """A worker dies in its call; what it had finished is read after its death."""
        assert worker.begun is not None
        task, attempt, offset, _ = worker.begun
        if worker.finished:
            self._answer(worker)
        del self.workers[worker.number]
        self.lost += spent
        running = ev.Running(task, attempt, offset, self.now - spent)
        event = ev.Died(worker.number, running, "crashed")
        self._at(self.now + self.scenario.latency, self._tell, event)

    def _carve(self, command: do.Carve) -> None:
        seconds = self.parts[command.task]
        self.parts[command.new] = seconds[command.lo : command.hi]

    def _take_back(self, command: do.TakeBack) -> ev.TakenBack:
        worker = self.workers.get(command.worker)
        taken: list[tuple[int, int, int]] = []
        if worker is None:
            return ev.TakenBack(command.worker, taken)
        place = 0
        for at, call in enumerate(worker.todo):
            if call[0] == command.task and call[2] == command.offset:
                place = at
                break
        while len(worker.todo) > place:
            task, attempt, offset, _ = worker.todo.pop()
            if taken and taken[-1][0] == task:
                taken.pop()
            taken.append((task, attempt, offset))
        return ev.TakenBack(command.worker, taken[::-1])

    def _retire(self, command: do.Retire) -> None:
        del self.workers[command.worker]
        self._at(self.now, self._tell, ev.Died(command.worker, None, "retired"))


def memory_per_task(tasks: int) -> float:
    """Bytes that the scheduler keeps for a task of one call that waits."""
    scheduler = Scheduler(workers=1, random=random.Random(0))
    family = scheduler.add_family(FamilyPolicy())
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for _ in range(tasks):
        scheduler.handle(ev.Submitted(scheduler.new_task(), family, 1), 0.0)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return (after - before) / tasks


TABLE = (
    Scenario(times="even", seconds=20e-6, tasks=100_000),
    Scenario(times="even", seconds=1e-3, tasks=4000),
    Scenario(times="even", seconds=10e-3, tasks=2000),
    Scenario(times="noisy", seconds=100e-6, tasks=50_000),
    Scenario(times="noisy", seconds=5e-3, tasks=4000),
    Scenario(times="heavy", seconds=200e-6, tasks=50_000),
    Scenario(times="heavy", seconds=5e-3, tasks=10_000),
    Scenario(times="bimodal", seconds=200e-6, tasks=20_000),
    Scenario(times="one-last", seconds=1e-3, tasks=200),
    Scenario(times="last", seconds=1e-3, tasks=20_000),
    Scenario(times="sawtooth", seconds=1e-3, tasks=20_000),
    Scenario(times="heavy", seconds=1e-3, tasks=20_000, failures=1e-3),
    Scenario(times="even", seconds=5e-6, tasks=300_000, chunked=True),
    Scenario(times="heavy", seconds=100e-6, tasks=50_000, chunked=True),
    Scenario(times="bimodal", seconds=200e-6, tasks=20_000, chunked=True, failures=1e-3),
    Scenario(times="even", seconds=2e-3, tasks=100_000, workers=64),
    Scenario(times="heavy", seconds=10e-3, tasks=100_000, workers=1000),
    Scenario(times="sawtooth", seconds=10e-3, tasks=100_000, workers=1000, failures=1e-4),
    Scenario(times="even", seconds=100e-3, tasks=200_000, workers=10_000),
)

HEAD = """\
                                   ms a     fail-             makespan makespan      1000     us a
times    kind   workers    calls     call     ures  makespan / bound / greedy  events/s     call\
  died  stolen"""

QUICK = (
    Scenario(times="even", seconds=20e-6, tasks=3000),
    Scenario(times="heavy", seconds=5e-3, tasks=1000, workers=8, failures=1e-2),
    Scenario(times="sawtooth", seconds=1e-3, tasks=2000, chunked=True, failures=1e-3),
    Scenario(times="one-last", seconds=1e-3, tasks=200),
)

TIMES = ("even", "noisy", "heavy", "bimodal", "last", "one-last", "sawtooth")


def show(scenario: Scenario) -> Outcome:
    """Simulate and print a line."""
    outcome = Simulation(scenario).run()
    kind = "map" if scenario.chunked else "submit"
    print(
        f"{scenario.times:<9}{kind:<7}{scenario.workers:>7}{scenario.tasks:>9}"
        f"{scenario.seconds * 1e3:>9.3f}{scenario.failures:>9.0e}"
        f"{outcome.makespan:>10.3f}{outcome.makespan / outcome.bound:>8.3f}"
        f"{outcome.makespan / outcome.greedy:>9.3f}"
        f"{outcome.events / outcome.deciding / 1e3:>10.0f}"
        f"{outcome.deciding / scenario.tasks * 1e6:>9.2f}"
        f"{outcome.counts.died:>6}{outcome.counts.taken_back:>8}",
        flush=True,
    )
    return outcome


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workers", type=int)
    parser.add_argument("--tasks", type=int)
    parser.add_argument("--times", choices=(*TIMES, "adversarial"), help="how long calls take")
    parser.add_argument("--seconds", type=float, help="of a call, on average")
    parser.add_argument("--failures", type=float, help="share of calls that kill their worker")
    parser.add_argument("--latency", type=float, help="seconds of a message, one way")
    parser.add_argument("--start", type=float, help="seconds until a worker is ready")
    parser.add_argument("--chunked", action="store_true", help="a map: chunks, a window of them")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--quick", action="store_true", help="a few small scenarios")
    args = parser.parse_args(argv)
    wanted = {
        name: value
        for name, value in vars(args).items()
        if value not in (None, False) and name != "quick"
    }
    if wanted.get("times") == "adversarial":
        del wanted["times"]
        table: Sequence[Scenario] = [
            Scenario(times=times, **wanted) for times in ("bimodal", "last", "one-last", "sawtooth")
        ]
    elif wanted:
        table = [Scenario(**wanted)]
    else:
        table = QUICK if args.quick else TABLE
    print(HEAD)
    for scenario in table:
        show(scenario)
    print(f"memory: {memory_per_task(2000 if args.quick else 50_000):.0f} bytes a waiting task")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
