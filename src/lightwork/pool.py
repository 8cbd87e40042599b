"""``Pool``: the face of it all. ``assembly`` puts the parts together."""

from __future__ import annotations

import concurrent.futures
import operator
import time
from collections.abc import AsyncIterator, Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from . import exits
from .assembly import PoolOptions, assemble
from .blame import function_name
from .current import Seeded
from .engine import Engine
from .errors import CannotPickle
from .future import Failure, Future
from .options import TaskOptions, _number, _whole
from .stream import END, Map, MapOptions, Stream

if TYPE_CHECKING:
    import os

    from .core.scheduler import Statistics
    from .decision import Decision
    from .journal import Checkpoint
    from .observe.report import Report

__all__ = ["Pool"]


class Pool(concurrent.futures.Executor):
    """Runs functions on worker threads, worker processes, or in place.

    A pool is a ``concurrent.futures.Executor``. Use it in a ``with`` statement, which waits for
    what was submitted and frees everything; a pool that is merely dropped finishes its work in
    the background. All methods may be called from any thread, and from tasks.

    Args:
        kind: ``"processes"``, ``"threads"``, ``"serial"`` (in the caller's thread), or
            ``"auto"``: measures the first calls of each function, and runs it where it runs best;
            `decisions` tells where, and why.
        max_workers: how many workers at most; None: for processes the CPUs that this process
            may use (affinity and container quota counted), or its share of them inside a
            worker; for threads four more than that, at most 32; for ``"auto"`` what pays. With
            ``"auto"`` it is the bound of each kind.
        initializer: called with `initargs` in each worker before its first task. If it fails,
            the pool is broken, with its error as the cause.
        max_tasks_per_child: calls after which a worker process is replaced by a fresh one.
        memory_limit: bytes of resident memory of one worker process; the task that goes over
            it ends with ``MemoryLimitExceeded``.
        native_threads: threads of BLAS and OpenMP in each worker process; None: its share of
            the CPUs.
        start_method: ``"forkserver"``, ``"spawn"`` or ``"fork"``; None: forkserver.
        idle_timeout: seconds after which an idle worker leaves; None: never.
        name: for threads, processes and log lines.
        seed: makes ``current_task().rng`` available, reproducibly for any number of workers.
        grace: seconds that running tasks get when SIGTERM arrives in the ``with`` block.
        logs: log records and warnings of worker processes arrive in this process's ``logging``
            and ``warnings``; False: workers are on their own.
        capture: what becomes of what worker processes print. None: it goes where theirs goes;
            ``"lines"``: it is printed by this process, in whole lines; ``"log"``: lines become
            records of the loggers ``lightwork.stdout`` and ``lightwork.stderr``.
        trace: remember what happens, for `report`.
        monitor: let ``lightwork top`` look at it, by a socket that only this user can open.

    Raises:
        ValueError, TypeError: naming the value and what was expected.
    """

    def __init__(
        self,
        kind: str = "auto",
        max_workers: int | None = None,
        *,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        max_tasks_per_child: int | None = None,
        memory_limit: int | None = None,
        native_threads: int | None = None,
        start_method: str | None = None,
        idle_timeout: float | None = None,
        name: str | None = None,
        seed: int | None = None,
        grace: float = 10.0,
        logs: bool = True,
        capture: str | None = None,
        trace: bool = False,
        monitor: bool = False,
    ) -> None:
        self._grace = _number("grace", grace, least=0)
        self._shared = assemble(
            PoolOptions(
                kind=kind,
                max_workers=max_workers,
                initializer=initializer,
                initargs=tuple(initargs),
                max_tasks_per_child=max_tasks_per_child,
                memory_limit=memory_limit,
                native_threads=native_threads,
                start_method=start_method,
                idle_timeout=idle_timeout,
                name=name,
                seed=seed,
                logs=logs,
                capture=capture,
                trace=trace,
                monitor=monitor,
            )
        )
        self._use(TaskOptions())

    def _use(self, options: TaskOptions) -> None:
        self._engine = self._shared.engine
        self._options = options
        self._families = self._shared.families.setdefault(options, {})

    # -- submitting ----------------------------------------------------------------------------

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        """Run ``fn(*args, **kwargs)`` on a worker; return its future at once.

        What cannot be pickled fails its own future with ``CannotPickle``. Changing an argument
        after submitting it is a race; a large array may be read until its task has started.

        Raises:
            PoolClosed: after shutdown. PoolBroken: when workers cannot be started.
        """
        engine = self._engine
        future = Future()
        future._engine = engine
        future._fn = fn
        future._args = args
        future._kwargs = kwargs
        future._submitted = time.monotonic()
        family = self._families.get(getattr(fn, "__code__", fn.__class__))
        if family is None:
            family = self._family(fn)
        if self._shared.seed is not None:
            fn = Seeded(fn, (self._shared.seed, 0))
        try:
            call = engine.backend.prepare(fn, args, kwargs)
        except CannotPickle as error:
            engine.check_open()
            future._settle(0, (None,), {0: error}, None, time.monotonic())
            return future
        engine.submit(call, future, family)
        return future

    def _family(self, fn: Callable[..., Any]) -> int:
        """The family of a function: calls that are expected to take alike, under our options."""
        if not callable(fn):
            raise TypeError(f"fn must be callable, not {fn!r}")
        code = getattr(fn, "__code__", None)
        key: object = code
        if code is None:
            inner = getattr(fn, "func", fn)
            code = getattr(inner, "__code__", None)
            key = (type(fn), code or getattr(inner, "__qualname__", None))
        families = self._families
        family = families.get(key)
        if family is None:
            if len(families) >= 10_000:  # code made by exec(), without end: share one
                key = "others"
            family = families.get(key) or self._engine.add_family(self._options)
            families[key] = family
            if self._engine.history is not None:
                self._engine.history.functions[family] = function_name(fn)
        return family

    def map(
        self,
        fn: Callable[..., Any],
        /,
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        ordered: bool = True,
        on_error: str | Callable[[Failure], object] = "raise",
        progress: object = False,
        seed: int | None = None,
        checkpoint: str | os.PathLike[str] | Checkpoint | None = None,
        restart: bool = False,
    ) -> Map:
        """Call `fn` on each item; return an iterator over the results.

        Starts at once, and reads its inputs lazily, a window ahead of the results that were
        taken, so inputs may be endless. Several iterables are read in step, as by ``map()``.

        Args:
            timeout: seconds from now until which all results must have been taken.
            chunksize: items a task; None: as many as calls are measured to want.
            buffersize: items ahead of the consumer at most; None: about half a second of work.
            ordered: False: results as they are finished.
            on_error: ``"raise"`` the first, in its place; ``"return"`` a `Failure` in its
                place; ``"skip"``; ``"group"``: run all, then raise an ``ExceptionGroup``;
                or a function of the `Failure`, whose result takes its place.
            progress: True or a label: a progress bar (tqdm); or an object with ``update(n)``
                and ``close()``.
            seed: for ``current_task().rng``; the same items give the same streams.
            checkpoint: a file in which each result is kept before it is handed out. The same call
                with the same file goes on where the last one stopped, however that ended: what is
                finished comes from the file, what has failed is tried again. See `Checkpoint`.
            restart: forget what the checkpoint has.

        Raises:
            TimeoutError: from the iterator, when `timeout` has passed.
            PoolClosed, PoolBroken: as `submit`.
            CheckpointError: the checkpoint cannot be opened (at once) or written (from the
                iterator).
            CheckpointChanged: it is of another function or Python (at once), or of other items
                (from the iterator, behind the results before it).
        """
        options = MapOptions(ordered, on_error, chunksize, buffersize, timeout)
        stream, bar = self._stream(fn, iterables, options, progress, seed, checkpoint, restart)
        return Map(stream, bar)

    def _stream(
        self,
        fn: Callable[..., Any],
        iterables: tuple[Iterable[Any], ...],
        options: MapOptions,
        progress: object,
        seed: int | None,
        checkpoint: str | os.PathLike[str] | Checkpoint | None,
        restart: bool,
    ) -> tuple[Stream, Any]:
        self._engine.check_open()
        if not iterables:
            raise TypeError("map() needs at least one iterable")
        options.check()
        shared = self._shared
        shared.maps += 1
        run = fn
        lane: tuple[int, ...] | None = None
        if seed is not None:
            lane = (_whole("seed", seed, least=0),)
        elif shared.seed is not None:
            lane = (shared.seed, shared.maps)
        if lane is not None:
            run = Seeded(fn, lane)
        bar = None
        if progress is not False and progress is not None:
            from .observe.progress import Captured, make_bar

            bar = make_bar(progress, iterables)
            if bar.shown and shared.kind in ("processes", "auto"):
                run = Captured(run)
        star = len(iterables) > 1
        items = zip(*iterables) if star else iterables[0]
        family = self._family(fn)
        engine, workers = self._engine, lambda: shared.workers
        if shared.router is not None:
            way = shared.router.lane(family, _lengths(iterables))
            engine, workers = cast(Engine, way), way.workers
        parts = (
            engine,
            fn,
            run,
            items,
            star,
            family,
            options,
            workers,
        )
        if checkpoint is None:
            if restart:
                raise TypeError("restart= is about a checkpoint: give checkpoint=, too")
            stream = Stream(*parts)
        else:
            stream = self._resumed(checkpoint, restart, lane, parts)
        if bar is not None:
            stream.on_progress = bar.update
        return stream, bar

    def _resumed(
        self,
        checkpoint: str | os.PathLike[str] | Checkpoint,
        restart: bool,
        lane: tuple[int, ...] | None,
        parts: tuple[Any, ...],
    ) -> Stream:
        """A stream that carries on from a checkpoint."""
        from .journal import Checkpoint
        from .journal.resume import Resumed

        if not isinstance(checkpoint, Checkpoint):
            checkpoint = Checkpoint(checkpoint, restart=restart)
        elif restart:
            raise TypeError("give restart= to the Checkpoint itself")
        checkpoint.open(parts[1], lane)
        if checkpoint not in self._shared.checkpoints:
            self._shared.checkpoints.add(checkpoint)
        return Resumed(checkpoint, checkpoint.start, *parts)

    async def amap(
        self,
        fn: Callable[..., Any],
        /,
        *iterables: Iterable[Any],
        chunksize: int | None = None,
        buffersize: int | None = None,
        ordered: bool = True,
        on_error: str | Callable[[Failure], object] = "raise",
        progress: object = False,
        seed: int | None = None,
        checkpoint: str | os.PathLike[str] | Checkpoint | None = None,
        restart: bool = False,
    ) -> AsyncIterator[Any]:
        """As `map`, for ``async for``: waits without blocking the event loop."""
        import asyncio

        loop = asyncio.get_running_loop()
        arrived = asyncio.Event()
        options = MapOptions(ordered, on_error, chunksize, buffersize)
        stream, bar = self._stream(fn, iterables, options, progress, seed, checkpoint, restart)

        def tell() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(arrived.set)

        stream._notify = tell
        try:
            while True:
                arrived.clear()
                piece = stream.take()
                if piece is END:
                    break
                if piece is None:
                    await arrived.wait()
                    continue
                values, error = stream.outcomes(piece)  # type: ignore[arg-type]
                for value in values:
                    yield value
                if error is not None:
                    raise error
            stream.raise_group()
        finally:
            stream.close()
            if bar is not None:
                bar.close()

    # -- options -------------------------------------------------------------------------------

    def options(self, **changes: Any) -> Pool:
        """The same pool with other options for its tasks: see `TaskOptions` for their names."""
        view = object.__new__(type(self))
        view._shared = self._shared
        view._grace = self._grace
        view._use(self._options.changed(**changes))
        return view

    @property
    def kind(self) -> str:
        """The kind of the workers."""
        return self._shared.kind

    @property
    def max_workers(self) -> int:
        """How many workers there are at most now."""
        return self._shared.workers

    def resize(self, max_workers: int) -> None:
        """Grow, or shrink as workers finish what they run. Nothing is lost."""
        _whole("max_workers", max_workers, least=1)
        if self._shared.kind != "serial":
            self._shared.workers = max_workers
            self._engine.resize(max_workers)

    @property
    def decisions(self) -> list[Decision]:
        """What ``kind="auto"`` chose so far, for which function, and why; the last one last.

        Empty for a pool whose kind was given.
        """
        return list(self._shared.decisions)

    def statistics(self) -> Statistics:
        """Counts of tasks and workers, as they are now."""
        return self._engine.statistics()

    def report(self) -> Report:
        """The run so far: where the time of each worker went, the slowest calls, hints.

        Raises RuntimeError unless the pool was made with ``trace=True``.
        """
        remembered = self._engine.remembered()
        if remembered is None:
            raise RuntimeError("this pool remembers nothing: make it with Pool(trace=True)")
        from .backends.processes.limits import usable_cpus
        from .observe.report import make_report

        history, counts, now = remembered
        workers = 1 if self.kind == "serial" else self.max_workers
        return make_report(history, counts, now, max_workers=workers, cpus=usable_cpus())

    # -- ending --------------------------------------------------------------------------------

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more tasks, and free everything when what was accepted has ended.

        Args:
            wait: wait for that; a call from a task or callback of this pool never waits.
            cancel_futures: cancel what has not started.
        """
        engine = self._engine
        engine.close(cancel=cancel_futures)
        if wait:
            try:
                engine.wait_finished()
            except KeyboardInterrupt:
                self.kill_workers()
                raise
            self._keep_results()

    def terminate_workers(self) -> None:
        """End the pool at once, whatever its workers do: as `kill_workers`.

        Calls that run end with ``TaskKilled``, others are cancelled.
        """
        self.kill_workers()

    def kill_workers(self) -> None:
        """End the pool at once: processes are killed, threads written off.

        Calls that run end with ``TaskKilled``, others are cancelled.
        """
        self._engine.abort("the pool was ended at once")
        self._engine.wait_finished(5.0)
        self._keep_results()

    def _keep_results(self) -> None:
        """All that will ever arrive has: let the checkpoints have it."""
        for checkpoint in self._shared.checkpoints.living():
            checkpoint.flush()

    def __enter__(self) -> Self:
        if exits.catch_sigterm():
            self._shared.caught += 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None or issubclass(kind, Exception):
                self.shutdown()
            elif issubclass(kind, exits.Terminated):
                self._drain(self._grace)
            elif issubclass(kind, KeyboardInterrupt):
                self.kill_workers()
            else:
                self.shutdown(cancel_futures=True)
        except exits.Terminated:
            self._drain(self._grace)
            raise
        finally:
            if self._shared.caught:
                self._shared.caught -= 1
                exits.release_sigterm()

    def _drain(self, grace: float) -> None:
        """SIGTERM: cancel what has not started, give the rest `grace` seconds, then kill it."""
        self._engine.close(cancel=True)
        if not self._engine.wait_finished(grace):
            self.kill_workers()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        import asyncio

        cancel = kind is not None and not issubclass(kind, Exception)
        await asyncio.to_thread(self.shutdown, cancel_futures=cancel)

    def __repr__(self) -> str:
        state = "closed" if self._engine.closed else "open"
        return f"<Pool {self.kind}, {self.max_workers} workers, {state}>"


def _lengths(iterables: tuple[Iterable[Any], ...]) -> int | None:
    """How many items there will be, where that is known."""
    hints = [operator.length_hint(one, -1) for one in iterables]
    known = [hint for hint in hints if hint >= 0]
    return min(known, default=None)  # map ends with the shortest
