"""``lightwork map``: the run itself.

Who does what:

* the main thread waits for news - the end, a signal, a failure that ends the run - and does
  nothing else, so that no signal can hit the middle of anything;
* the *driver* thread hands the items to the pool, burst by burst (see ``feed``), and writes the
  results as they finish. Where the source is live, each burst has a thread of its own to write
  its results, and the driver waits for the next item.

How it ends:

* all items are done; or
* SIGTERM, or the first failure with ``--on-error raise``: nothing more is started, what runs
  gets ten seconds, then it is killed; or
* SIGINT, or nobody reads the results any more: the workers are killed at once.

In each case what has finished is written, also behind gaps. A second SIGINT ends the process
on the spot; worker processes never outlive it.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from typing import Any, NamedTuple

from lightwork import (
    Checkpoint,
    CheckpointChanged,
    CheckpointError,
    Failure,
    LightworkError,
    Pool,
    PoolBroken,
    PoolClosed,
    TaskKilled,
)

from .feed import Feed
from .items import Source
from .job import Job, Outcome
from .news import News
from .output import Lines, Output
from .problem import describe, one_line, user_traceback
from .progress import Report

__all__ = ["Run", "Wishes"]

_MOST_HELD = 100_000
"""Lines that may wait for an earlier one before reading pauses; some tens of megabytes."""

_MOST_BURSTS = 64
"""Bursts of a live source that may be unfinished; arbitrary, only bounds the threads."""

_GRACE = 10.0
"""Seconds for the calls that run when nothing more is to be started."""

_SETTLE = 0.05
"""Seconds from the last item read to cancelling; enough to submit what was read before."""

_KILL_TIME = 0.4
"""Seconds for killed workers to be gone, and the last results to be written."""

_EXIT_TIME = 0.3
"""Seconds for the interpreter's exit, once calls were killed that may not have ended."""

_FINISHED = "finished"
_FAILED = "failed"
_UNWRITABLE = "unwritable"

_NOT_THEIR_FAULT = (CancelledError, PoolClosed, TaskKilled)


class Wishes(NamedTuple):
    """What the command line asked for, about the run."""

    ordered: bool
    on_error: str
    quiet: bool
    checkpoint: Checkpoint | None = None  # open
    failed: Output | None = None  # where failures go, beside
    finish: Callable[[], None] | None = None  # what is to be done when all is told


class Run:
    """One run of ``lightwork map``. Made and used by the main thread."""

    def __init__(
        self, pool: Pool, job: Job, source: Source, output: Output, wishes: Wishes
    ) -> None:
        self._pool = pool
        self._job = job
        self._wishes = wishes
        self._lines = Lines(output, ordered=wishes.ordered)
        self._output = output
        self._feed = Feed(source, lambda: self._lines.held > _MOST_HELD)
        self._live = source.live
        self._report = Report(source.total, quiet=wishes.quiet)
        self._news = News()
        self._stopping = False
        self._killed = False
        self.complete = False  # every item was handled, and all there is was written
        self._first: BaseException | None = None  # failure of an item, with --on-error raise
        self._trouble: BaseException | None = None  # what ended the run itself
        self._write_error: OSError | None = None
        self._failed_lock = threading.Lock()

    # -- the main thread -----------------------------------------------------------------------

    def run(self) -> int:
        """Do it all; return the exit status."""
        driver = threading.Thread(target=self._drive, name="lightwork-map", daemon=True)
        with self._news:
            driver.start()
            signum = self._watch()
            try:
                self._lines.write_rest()
            except OSError as error:
                self._write_error = error
            if not self._killed:
                self._pool.shutdown()
            if self._wishes.checkpoint is not None:
                self._wishes.checkpoint.close()
            status = self._conclude(signum)
            if self._wishes.finish is not None:
                self._wishes.finish()
        if self._killed:
            _leave_within(_EXIT_TIME, status)
        return status

    def _watch(self) -> int | None:
        """Wait for the end; return the signal that asked for it, if any."""
        signum: int | None = None
        deadline: float | None = None
        while True:
            timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
            news = self._news.get(timeout)
            if news == _FINISHED:
                return signum
            if isinstance(news, int):
                signum = signum or news
            if news in (signal.SIGTERM, _FAILED):
                self._stop()
                if deadline is None:
                    deadline = time.monotonic() + _GRACE
            elif news is not None or (deadline is not None and time.monotonic() >= deadline):
                if self._killed and news is None:
                    return signum  # some call cannot be ended
                self._kill()
                deadline = time.monotonic() + _KILL_TIME

    def _stop(self) -> None:
        """Start nothing more, and let run what runs."""
        if not self._stopping:
            self._stopping = True
            self._feed.stop()
            threading.Thread(target=self._cancel, daemon=True).start()

    def _cancel(self) -> None:
        time.sleep(_SETTLE)  # an item that finds the pool closed would end its map, unheard
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _kill(self) -> None:
        self._feed.stop()
        if not self._killed:
            self._stopping = self._killed = True
            # It waits for their end, longer than we want to.
            threading.Thread(target=self._pool.kill_workers, daemon=True).start()

    def _conclude(self, signum: int | None) -> int:
        report = self._report
        if isinstance(self._write_error, BrokenPipeError):
            report.finish(None)
            return 128 + signal.SIGPIPE
        if self._first is not None and not self._wishes.quiet:
            report.say(f"stopped at the first failure:\n{user_traceback(self._first)}")
        report.finish(_workers(self._pool))
        if self._feed.problem is not None:
            report.say(str(self._feed.problem))
        if self._write_error is not None:
            report.say(f"cannot write {self._output.name}: {self._write_error.strerror}")
            return 1
        if signum is not None:
            name = "interrupted" if signum == signal.SIGINT else "terminated"
            report.say(f"{name}; finished results are kept")
            return 128 + signum
        if self._trouble is not None:
            if not isinstance(self._trouble, LightworkError):
                raise self._trouble  # a bug of ours: its story is needed
            report.say(_broken(self._trouble))
            return 2 if isinstance(self._trouble, CheckpointChanged) else 1
        if self._feed.problem is not None:
            return 2
        self.complete = self._first is None
        return 1 if report.failed else 0

    # -- the driver, and the threads of bursts ---------------------------------------------------

    def _drive(self) -> None:
        slots = threading.Semaphore(_MOST_BURSTS)
        threads: list[threading.Thread] = []
        try:
            while self._feed.more() and self._trouble is None:
                if not self._live:
                    self._burst(None)
                    continue
                slots.acquire()
                over = threading.Event()
                thread = threading.Thread(target=self._live_burst, args=(over, slots), daemon=True)
                thread.start()
                over.wait()  # the source has one reader at a time
                threads = [one for one in threads if one.is_alive()] + [thread]
            checkpoint = self._wishes.checkpoint
            if checkpoint is not None and not self._stopping and self._feed.problem is None:
                checkpoint.check_end(self._feed.count)
        except BaseException as error:
            self._trouble = self._trouble or error
        finally:
            for thread in threads:
                thread.join()
            self._news.put(_FINISHED)

    def _live_burst(self, over: threading.Event, slots: threading.Semaphore) -> None:
        try:
            self._burst(over)
        except BaseException as error:
            self._trouble = self._trouble or error
            self._feed.stop()
        finally:
            over.set()
            slots.release()

    def _burst(self, over: threading.Event | None) -> None:
        base = self._feed.count
        items = self._items(over)
        checkpoint = self._wishes.checkpoint
        if checkpoint is not None:
            checkpoint, base = checkpoint.at(base), 0  # the items of the map are numbered so
        results = self._pool.map(
            self._job, items, ordered=False, on_error="return", checkpoint=checkpoint
        )
        try:
            for result in results:
                if isinstance(result, Failure):
                    self._failure(base, result)
                else:
                    self._outcome(base, result)
        except PoolClosed:
            if not self._stopping:
                raise
        except OSError as error:  # of writing; those of the user's function are Failures
            self._write_error = self._write_error or error
            self._news.put(_UNWRITABLE)

    def _items(self, over: threading.Event | None) -> Iterator[Any]:
        yield from self._feed.burst()
        if over is not None:
            over.set()

    def _outcome(self, base: int, outcome: Outcome) -> None:
        at, text = outcome
        self._lines.put(base + at, f'{{"index": {base + at}, {text}}}')
        self._report.success()

    def _failure(self, base: int, failure: Failure) -> None:
        error = failure.exception
        if self._stopping and isinstance(error, _NOT_THEIR_FAULT):
            return
        if isinstance(error, PoolBroken):
            raise error
        text = f'"item": {json.dumps(failure.item, ensure_ascii=False)}'
        self._failed(base + failure.index, text, error, failure.attempts, failure.worker)

    def _failed(
        self, index: int, item: str, error: BaseException, attempts: int, worker: int | None
    ) -> None:
        facts = json.dumps(describe(error, attempts, worker), ensure_ascii=False)
        line = f'{{"index": {index}, {item}, "error": {facts}}}'
        if self._wishes.failed is not None:
            with self._failed_lock:
                self._wishes.failed.write(line)
        self._lines.put(index, None if self._wishes.on_error == "skip" else line)
        self._report.failure(index, one_line(error))
        if self._wishes.on_error == "raise" and self._first is None:
            self._first = error
            self._news.put(_FAILED)


def _leave_within(seconds: float, status: int) -> None:
    """End the process when the interpreter has not done so by itself, for a call that still
    runs in a thread may hold its exit up. The results are written by now, and worker processes
    end with this one."""

    def leave() -> None:
        time.sleep(seconds)
        os._exit(status)

    threading.Thread(target=leave, daemon=True).start()


def _workers(pool: Pool) -> str:
    kind, count = pool.kind, pool.max_workers
    if kind == "auto":
        # So few calls that nothing had to be decided: one thread ran them all.
        kind, count = "threads", 1
        if decisions := pool.decisions:
            kind, count = decisions[-1].kind, decisions[-1].workers
    if kind == "serial":
        return "in place"
    name = kind if count != 1 else {"processes": "process"}.get(kind, kind[:-1])
    return f"{count:,} {name}"


def _broken(error: BaseException) -> str:
    if isinstance(error, CheckpointError):
        return str(error)
    cause = error.__cause__
    if cause is None:
        return one_line(error)
    return f"{one_line(error)}\n{user_traceback(cause)}"
