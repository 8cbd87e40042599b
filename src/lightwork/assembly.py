"""Puts the parts of a pool together: the one place that knows them all.

Options are checked first, in one record; then the engine, or the router with several, is made of
the backends that are needed, which are loaded by name.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from .backends.base import Backend, WorkerOptions
from .engine import Engine
from .errors import LightworkError
from .options import TaskOptions, _number, _whole
from .weak import WeakList

if TYPE_CHECKING:
    from .decision import Decision
    from .journal import Checkpoint
    from .router import Router

__all__ = ["PoolOptions", "Shared", "assemble"]

_BACKENDS = {
    "processes": "processes:ProcessBackend",
    "serial": "serial:SerialBackend",
    "threads": "threads:ThreadBackend",
}
KINDS = ("auto", *_BACKENDS)
CAPTURE = (None, "lines", "log")

_OF_PROCESSES = (
    "initializer",
    "max_tasks_per_child",
    "memory_limit",
    "native_threads",
    "start_method",
    "capture",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOptions:
    """What a pool was asked for; see `Pool`. Raises ValueError and TypeError, naming the value."""

    kind: str
    max_workers: int | None
    initializer: Callable[..., object] | None
    initargs: tuple[Any, ...]
    max_tasks_per_child: int | None
    memory_limit: int | None
    native_threads: int | None
    start_method: str | None
    idle_timeout: float | None
    name: str | None
    seed: int | None
    logs: bool
    capture: str | None
    trace: bool
    monitor: bool

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown kind {self.kind!r}; known: {', '.join(KINDS)}")
        if self.initializer is not None and not callable(self.initializer):
            raise TypeError(f"initializer must be a callable or None, not {self.initializer!r}")
        workers = self.max_workers
        if workers is not None and _whole("max_workers", workers, least=-(2**63)) <= 0:
            raise ValueError(f"max_workers must be greater than 0, not {workers}")
        for what in ("max_tasks_per_child", "memory_limit", "native_threads"):
            if (value := getattr(self, what)) is not None:
                _whole(what, value, least=1)
        if self.idle_timeout is not None:
            _number("idle_timeout", self.idle_timeout, least=0)
        if self.seed is not None:
            _whole("seed", self.seed, least=0)
        if self.capture not in CAPTURE:
            raise ValueError(f"capture must be one of {CAPTURE}, not {self.capture!r}")
        if self.capture is not None and not self.logs:
            raise ValueError("capture= needs logs=True: it goes the same way")

    def only_processes(self) -> str | None:
        """Why ``kind="auto"`` is processes: an option was given that only they have."""
        for name in _OF_PROCESSES:
            if getattr(self, name) is not None:
                return f"{name}=, which is for worker processes"
        return None


class Shared:
    """What a pool and its views (``Pool.options``) have in common."""

    def __init__(
        self,
        engine: Engine,
        kind: str,
        workers: int,
        seed: int | None,
        router: Router | None,
        decisions: Sequence[Decision],
    ) -> None:
        self.engine = engine  # with kind="auto" the router, which looks like one
        self.router = router
        self.decisions = decisions
        self.kind = kind
        self.workers = workers
        self.seed = seed
        self.maps = 0
        self.families: dict[TaskOptions, dict[object, int]] = {}
        self.caught = 0  # how often `with` caught SIGTERM
        self.checkpoints: WeakList[Checkpoint] = WeakList()
        weakref.finalize(self, engine.drop).atexit = False


def assemble(given: PoolOptions) -> Shared:
    """Make what was asked for. Raises LightworkError where this system does not have it."""
    kind = given.kind
    decisions: Sequence[Decision] = ()
    if kind == "auto" and (only := given.only_processes()):
        # What was asked for decides.
        from .decision import for_all

        kind = "processes"
        decisions = [for_all(f"the pool has {only}")]
    workers = given.max_workers or _default_workers(kind)
    if kind == "serial":
        workers = 2**31  # one for each task that a task waits for; they cost nothing
    name = given.name or f"lightwork-{kind}"
    options = WorkerOptions(
        initializer=given.initializer,
        initargs=given.initargs,
        start_method=given.start_method,
        native_threads=given.native_threads,
        memory_limit=given.memory_limit,
        max_workers=workers,
        name=name,
        seed=given.seed,
        logs=given.logs,
        capture=given.capture,
        apart=given.trace,
    )
    router: Router | None = None
    if kind == "auto":
        router = _router(options, given.max_workers, given.idle_timeout)
        decisions = router.decisions
    engine = router or Engine(
        _load(kind, given.start_method),
        options,
        workers=workers,
        max_tasks_per_child=given.max_tasks_per_child if kind == "processes" else None,
        idle_timeout=given.idle_timeout,
    )
    shown = 1 if kind == "serial" else workers
    shared = Shared(cast(Engine, engine), kind, shown, given.seed, router, decisions)
    if given.trace:
        shared.engine.remember()
    if given.monitor:
        _let_be_watched(shared, name)
    return shared


def _let_be_watched(shared: Shared, name: str) -> None:
    from .observe.look import watch

    shared.engine.time_calls()
    weakly = weakref.ref(shared)
    watch(
        shared.engine,
        name,
        shared.kind,
        lambda: found.workers if (found := weakly()) is not None else 0,
    )


def _router(options: WorkerOptions, bound: int | None, idle_timeout: float | None) -> Router:
    """For ``kind="auto"``: makes engines of the kinds that turn out to be needed."""
    from .router import Router

    def make(kind: str, workers: int, place: str) -> Engine:
        own = options._replace(max_workers=workers, name=f"{options.name}-{place}")
        return Engine(_load(kind, None), own, workers=workers, idle_timeout=idle_timeout)

    processes = True
    try:
        # Now: once a function of the user's computes, every import would wait for its GIL.
        _load("processes", None)
    except LightworkError:
        processes = False  # not on this system
    return Router(
        make,
        name=options.name,
        max_workers=bound,
        cpus=_default_workers("processes"),
        processes=processes,
    )


def _default_workers(kind: str) -> int:
    from .backends.processes.limits import usable_cpus

    cpus = usable_cpus()
    return min(32, cpus + 4) if kind == "threads" else cpus


def _load(kind: str, start_method: str | None) -> Backend:
    if kind == "processes" and "lightwork.backends.processes.backend" not in sys.modules:
        # The fork server boots while we import what talks to it: half of the time to the first
        # result of a program's first pool. Should it fail, it will be said at the first launch.
        from .backends.processes.launch import WORKER, launcher

        with contextlib.suppress(OSError):
            launcher(start_method).warm(WORKER)
    module, name = _BACKENDS[kind].split(":")
    backend: Backend = getattr(importlib.import_module(f"lightwork.backends.{module}"), name)()
    return backend
