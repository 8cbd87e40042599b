"""In the parent: what worker processes log, warn of and print arrives here.

One thread for all pools reads the pipes, and hands each record to the logger of its name, so that
the levels, filters and handlers of this process decide. It sleeps for 20 ms after each round of
reading: so ten thousand records a second wake it up fifty times, and none waits longer than that.
When a pool ends, what is left in its pipes is handed over before ``shutdown`` returns.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import pickle
import selectors
import sys
import threading
import traceback
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

from ..wire.remote import unpack_error
from .sending import DROPPED, LENGTH, LINE, PLACE, RECORD, WARNING, Wishes

__all__ = ["Forwarder"]

PAUSE = 0.02
"""Seconds between two rounds of reading."""

_PIPE = 1 << 18  # bytes; the kernel's default of 64 KiB is two rounds of a talkative worker
_READ = 1 << 18
_PATIENCE = 5.0  # seconds that a user's handler may hold up the end of a pool


class _Place(NamedTuple):
    """Where records come from, with all that they have in common."""

    logger: Any
    fields: dict[str, Any]
    logging: ModuleType
    started: float  # when logging was loaded, as `relativeCreated` counts


class _Batch(contextlib.ExitStack):
    """Messages that were read together. Ends when all were handed over."""

    _looked = False

    def pause_bars(self) -> None:
        """Take progress bars away until the end: most handlers print."""
        if not self._looked:
            self._looked = True
            if "tqdm" in sys.modules:
                from .bars import pause_bars

                self.enter_context(pause_bars())


class Forwarder:
    """The pipes of one pool.

    Args:
        name: of the pool.
        capture: see ``Pool``.
        forked: workers are forked from this process.
        opened, closed: told each descriptor that is to stay in this process.
    """

    def __init__(
        self,
        name: str,
        capture: str | None,
        *,
        forked: bool,
        opened: Callable[[int], object],
        closed: Callable[[int], object],
    ) -> None:
        self._name = name
        self._capture = capture
        self._forked = forked
        self._opened = opened
        self._closed = closed
        self._pipes: list[_Pipe] = []
        self._seen: set[tuple[Any, ...]] = set()  # warnings that were shown

    def wishes(self) -> tuple[Any, ...]:
        """What a worker that starts now is told."""
        levels: dict[str, int] = {}
        disabled = 0
        logging = sys.modules.get("logging")
        if logging is not None:
            manager = logging.root.manager
            disabled = manager.disable
            levels[""] = logging.root.level
            for name, logger in list(manager.loggerDict.items()):
                level = getattr(logger, "level", 0)
                if level:
                    levels[name] = level
        import warnings

        filters: bytes | None = None
        with contextlib.suppress(Exception):
            filters = pickle.dumps(list(warnings.filters))
        return tuple(Wishes(levels, disabled, filters, self._capture, self._forked))

    def open(self, worker: int) -> int | None:
        """Make a pipe for a worker; return its writing end, to be closed by the caller.

        None where descriptors are used up: better a worker that is not heard than none.
        """
        try:
            read, write = os.pipe()
        except OSError:
            return None
        os.set_blocking(read, False)
        with contextlib.suppress(ImportError, AttributeError, OSError):
            import fcntl

            fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, _PIPE)
        places: dict[int, _Place] = {}
        pipe = _Pipe(
            read, lambda message, batch: self._take(worker, places, message, batch), self._closed
        )
        try:
            _reader.add(pipe)
        except OSError:
            os.close(read)
            os.close(write)
            return None
        self._opened(read)
        self._pipes = [pipe for pipe in self._pipes if pipe.fd >= 0]
        self._pipes.append(pipe)
        return write

    def close(self) -> None:
        """The workers are gone: hand over what is left, and let go of the pipes."""
        for pipe in self._pipes:
            pipe.drain()
            pipe.close()
        _reader.rest()
        self._pipes = []

    # -- messages --------------------------------------------------------------------------------

    def _take(
        self,
        worker: int,
        places: dict[int, _Place],
        message: tuple[Any, ...],
        batch: _Batch,
    ) -> None:
        kind = message[0]
        try:
            if kind != PLACE:
                batch.pause_bars()
            if kind == RECORD:
                self._record(places, message)
            elif kind == PLACE:
                places[message[1]] = self._place(worker, message)
            elif kind == LINE:
                self._line(worker, message)
            elif kind == WARNING:
                self._warning(message)
            elif kind == DROPPED:
                import logging

                logging.getLogger("lightwork").warning(
                    "%s: %d log records of worker %d were dropped: they were not taken in time",
                    self._name,
                    message[1],
                    worker,
                )
        except Exception:  # of a user's filter: logging itself would let it pass
            traceback.print_exc()

    def _place(self, worker: int, message: tuple[Any, ...]) -> _Place:
        import logging

        _, _, name, level, path, line, function, thread_name, thread, pid = message
        file = os.path.basename(path)
        fields: dict[str, Any] = {
            "name": name,
            "msg": "",
            "args": None,
            "levelname": logging.getLevelName(level),
            "levelno": level,
            "pathname": path,
            "filename": file,
            "module": os.path.splitext(file)[0],
            "exc_info": None,
            "exc_text": None,
            "stack_info": None,
            "lineno": line,
            "funcName": function,
            "created": 0.0,
            "msecs": 0.0,
            "relativeCreated": 0.0,
            "thread": thread,
            "threadName": thread_name,
            "processName": f"{self._name}-{worker}",
            "process": pid,
            "taskName": None,
            "lightwork_worker": worker,
            "lightwork_task": None,
            "lightwork_attempt": None,
        }
        started = float(logging._startTime)  # type: ignore[attr-defined]
        if started > 1e12:  # nanoseconds, since Python 3.13
            started /= 1e9
        return _Place(logging.getLogger(name), fields, logging, started)

    @staticmethod
    def _record(places: dict[int, _Place], message: tuple[Any, ...]) -> None:
        _, place, created, text, args, where, more = message
        logger, common, logging, started = places[place]
        if not logger.isEnabledFor(common["levelno"]):
            return
        fields = common.copy()
        fields["msg"] = text
        fields["args"] = args
        fields["created"] = created
        fields["msecs"] = created % 1 * 1000 // 1  # whole ones, as logging has them
        fields["relativeCreated"] = (created - started) * 1000
        if where is not None:
            fields["lightwork_task"], fields["lightwork_attempt"] = where[0], where[1]
        if more is not None:
            failure, trace, fields["stack_info"], extra = more
            if failure is not None:
                error = unpack_error(failure)
                fields["exc_info"] = type(error), error, error.__traceback__
            fields["exc_text"] = trace
            if extra is not None:
                with contextlib.suppress(Exception):  # a class that is not to be had here
                    fields.update(pickle.loads(extra))
        logger.handle(_make(logging, fields))

    def _line(self, worker: int, message: tuple[Any, ...]) -> None:
        _, number, text, where = message
        if self._capture == "log":
            import logging

            name = "lightwork.stdout" if number == 1 else "lightwork.stderr"
            level = logging.INFO if number == 1 else logging.WARNING
            task = None if where is None else where[0]
            extra = {"lightwork_worker": worker, "lightwork_task": task}
            logging.getLogger(name).log(level, "%s", text, extra=extra)
            return
        from .bars import write_line

        write_line(text, sys.stdout if number == 1 else sys.stderr)

    def _warning(self, message: tuple[Any, ...]) -> None:
        import warnings

        _, text, kind, name, file, lineno, line = message
        key = (text, name, file, lineno)
        if key in self._seen:
            return  # each worker has said it once: once is enough
        self._seen.add(key)
        category: type[Warning] = UserWarning
        if kind is not None:
            with contextlib.suppress(Exception):
                category = pickle.loads(kind)
        warnings.showwarning(text, category, file, lineno, None, line)


def _make(logging: Any, fields: dict[str, Any]) -> Any:
    kind = logging.LogRecord
    if logging.getLogRecordFactory() is not kind:
        return logging.makeLogRecord(fields)
    record = kind.__new__(kind)  # its __init__ would find out about this process, in 4 us
    record.__dict__ = fields
    return record


# -- reading -------------------------------------------------------------------------------------


class _Pipe:
    """The reading end of one worker's pipe."""

    def __init__(
        self,
        fd: int,
        take: Callable[[tuple[Any, ...], _Batch], None],
        closed: Callable[[int], object],
    ) -> None:
        self.fd = fd
        self._take = take
        self._closed = closed
        self._rest = b""
        self._lock = threading.Lock()  # messages are handed over in order
        self._by: int | None = None  # the thread that hands over

    def read(self) -> bool:
        """Hand over some of what there is. False: there is nothing now, or will not be."""
        if not self._enter():
            return False
        try:
            with _Batch() as batch:
                return self._read(batch)
        finally:
            self._leave()

    def _enter(self) -> bool:
        """Wait for one's turn; not in a user's handler that we have called, and not for ever."""
        if self._by == threading.get_ident() or not self._lock.acquire(timeout=_PATIENCE):
            return False
        self._by = threading.get_ident()
        return True

    def _leave(self) -> None:
        self._by = None
        self._lock.release()

    def _read(self, batch: _Batch) -> bool:
        if self.fd < 0:
            return False
        try:
            data = os.read(self.fd, _READ)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._close()
            return False
        data = self._rest + data
        at, size = 0, len(data)
        whole, take = memoryview(data), self._take
        while at + 4 <= size:
            (length,) = LENGTH.unpack_from(data, at)
            end = at + 4 + length
            if end > size:
                break
            try:
                message = marshal.loads(whole[at + 4 : end])
            except (ValueError, EOFError, TypeError):
                # A task has written into our descriptor: what follows means nothing.
                self._close()
                return False
            take(message, batch)
            at = end
        self._rest = data[at:]
        return True

    def drain(self) -> None:
        """Hand over all there is."""
        while self.read():
            pass

    def close(self) -> None:
        """Let go of it. May be called again."""
        if self._enter():
            try:
                self._close()
            finally:
                self._leave()

    def _close(self) -> None:
        if self.fd >= 0:
            _reader.unwatch(self.fd)
            self._closed(self.fd)
            os.close(self.fd)
            self.fd = -1


class _Reader:
    """The thread that reads; it is there while there are pipes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._selector: selectors.BaseSelector | None = None
        self._pipes: dict[int, _Pipe] = {}
        self._bell = threading.Event()
        self._wake = -1
        self._thread: threading.Thread | None = None

    def add(self, pipe: _Pipe) -> None:
        """Read this one, too. Raises OSError where descriptors are used up."""
        with self._lock:
            if self._selector is None:
                self._start()
            assert self._selector is not None
            self._selector.register(pipe.fd, selectors.EVENT_READ, pipe)
            self._pipes[pipe.fd] = pipe

    def _start(self) -> None:
        """Raises OSError where descriptors are used up."""
        with contextlib.ExitStack() as failing:
            selector = selectors.DefaultSelector()
            failing.callback(selector.close)
            read, wake = os.pipe()
            failing.callback(os.close, read)
            failing.callback(os.close, wake)
            selector.register(read, selectors.EVENT_READ, None)
            failing.pop_all()
        self._selector, self._wake, self._bell = selector, wake, threading.Event()
        self._thread = threading.Thread(
            target=self._run,
            args=(selector, read, self._bell),
            name="lightwork-logs",
            daemon=True,  # what is left at exit is handed over when its pool ends
        )
        try:
            self._thread.start()
        except RuntimeError:  # at exit: pools hand it over when they end
            self._thread = None

    def unwatch(self, fd: int) -> None:
        """This descriptor is about to be closed."""
        with self._lock:
            if self._pipes.pop(fd, None) is not None and self._selector is not None:
                with contextlib.suppress(KeyError, ValueError, OSError):
                    self._selector.unregister(fd)

    def rest(self) -> None:
        """Some were closed. The thread ends if there are no others."""
        with self._lock:
            if self._pipes or self._selector is None:
                return
            self._selector = None
            self._bell.set()
            os.close(self._wake)  # the other end sees it
            thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            with contextlib.suppress(RuntimeError):  # Ctrl-C hit while it was being started
                thread.join(_PATIENCE)

    @staticmethod
    def _run(selector: selectors.BaseSelector, read: int, bell: threading.Event) -> None:
        while not bell.is_set():
            for key, _ in selector.select():
                if key.data is not None:
                    key.data.read()
            bell.wait(PAUSE)
        selector.close()
        os.close(read)

    def orphan(self) -> None:
        """In a forked child: the thread is not here, and what it reads is the parent's."""
        self.__init__()  # type: ignore[misc]


_reader = _Reader()


def _after_fork_in_child() -> None:
    _reader.orphan()


os.register_at_fork(after_in_child=_after_fork_in_child)
