"""In a worker process: log records, warnings and printed lines, on their way to the parent.

Each goes into a pipe of this worker's own at once, before the task goes on: so what was written
survives the worker, whatever ends it. A message is a length (u32) and a marshalled tuple; one of
up to 4,096 bytes is written whole or not at all.

Nothing here costs a task anything that does not log, warn or print. ``logging`` is not imported:
when the user's code imports it, a handler is put at its root.

A pipe that stays full, because the parent's own handlers are stuck, holds a record up for a few
seconds; then records are dropped, and their number is told with the next one.
"""

from __future__ import annotations

import contextlib
import io
import marshal
import os
import struct
import sys
import threading
import time
import warnings
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, NamedTuple

from .. import current

__all__ = [
    "DROPPED",
    "LENGTH",
    "LINE",
    "PLACE",
    "RECORD",
    "WARNING",
    "Wishes",
    "attach",
    "capture",
    "detach",
]

RECORD, WARNING, LINE, DROPPED, PLACE = range(5)
"""Kinds of messages, their first field. PLACE tells where records come from, and a number that
stands for it in those that follow: logger, level, file, line and function are the same each time.
"""

LENGTH = struct.Struct("<I")
PATIENCE = 5.0
"""Seconds that a full pipe is waited for; arbitrary."""

_MOST_PLACES = 4096
_MOST = 1 << 20  # characters of a message or a line; the rest is cut off
_PLAIN = frozenset({int, float, str, bool, type(None)})
_USUAL = frozenset(
    {
        *("name", "msg", "args", "levelname", "levelno", "pathname", "filename", "module"),
        *("exc_info", "exc_text", "stack_info", "lineno", "funcName", "created", "msecs"),
        *("relativeCreated", "thread", "threadName", "processName", "process", "taskName"),
        *("message", "asctime"),
    }
)
"""Attributes that every record has; what is not among them came by ``extra=``."""


class Wishes(NamedTuple):
    """What the parent asks for; plain values only."""

    levels: dict[str, int]  # of loggers; "" is the root
    disabled: int  # logging.disable()
    filters: bytes | None  # pickled warnings.filters
    capture: str | None  # "lines" or "log": what is printed is sent
    forked: bool  # the parent's handlers are here, too


class _Sender:
    """The writing end of the pipe."""

    def __init__(self, fd: int, wishes: Wishes) -> None:
        self.fd = fd
        self.wishes = wishes
        self.dropped = 0
        self.places: dict[tuple[Any, ...], int] = {}  # that the parent knows
        self._rest = b""  # of a message that was begun
        self._lock = threading.RLock()  # a signal handler may log while we write
        os.set_blocking(fd, False)

    def send(self, message: tuple[Any, ...]) -> bool:
        """Write a message; drop it, and return False, when that is not possible for too long."""
        data = marshal.dumps(message, 2)
        with self._lock:
            if self.fd < 0:
                return False
            if (self._rest or self.dropped) and not self._catch_up():
                self.dropped += 1
                return False
            if self._write(LENGTH.pack(len(data)) + data):
                return True
            self.dropped += 1
            return False

    def _catch_up(self) -> bool:
        """End the message that was begun, and tell how many were dropped, if there is room now."""
        if self._rest:
            self._write(b"")
            if self._rest:
                return False
        if self.dropped:
            told = marshal.dumps((DROPPED, self.dropped), 2)
            if not self._write(LENGTH.pack(len(told)) + told):
                return False
            self.dropped = 0
        return True

    def place(self, key: tuple[Any, ...]) -> int | None:
        """The number of a place, told if it is new; None if it could not be told."""
        number = len(self.places)
        if number >= _MOST_PLACES:
            self.places.clear()  # code made by exec(), without end: told anew
            number = 0
        if not self.send((PLACE, number, *key)):
            return None
        self.places[key] = number
        return number

    def _write(self, data: bytes) -> bool:
        """Write a message, behind what is left of one before. False: it is not on its way."""
        if self._rest:
            data = self._rest + data
        try:
            done = os.write(self.fd, data)
        except BlockingIOError:
            done = 0
        except OSError:
            self.fd = -1  # nobody reads any more, or a task has closed it
            return False
        if done == len(data):
            self._rest = b""
            return True
        return self._patiently(data, done)

    def _patiently(self, data: bytes, done: int) -> bool:
        import select

        begun = bool(done or self._rest)
        rest = memoryview(data)[done:]
        poll = select.poll()
        poll.register(self.fd, select.POLLOUT)
        # Once records had to be dropped, nobody is held up again before there is room.
        end = time.monotonic() + (0.0 if self.dropped else PATIENCE)
        while rest:
            left = end - time.monotonic()
            if left <= 0 or not poll.poll(1000 * left):
                break
            try:
                rest = rest[os.write(self.fd, rest) :]
                begun = True
            except BlockingIOError:
                continue
            except OSError:
                self.fd = -1
                return False
        # A message that was begun has to be ended, or nothing behind it could be understood.
        self._rest = bytes(rest) if begun else b""
        return begun


_sender: _Sender | None = None
_handler: Any = None


def attach(fd: int, wishes: Sequence[Any]) -> None:
    """Send what this process logs, warns of and, if so wished, prints into the pipe `fd`."""
    global _sender
    _sender = _Sender(fd, Wishes(*wishes))
    wished = _sender.wishes
    if wished.filters is not None:
        with contextlib.suppress(Exception):  # a category of the main script's: not to be had
            import pickle

            warnings.filters[:] = pickle.loads(wished.filters)  # type: ignore[index]
            warnings._filters_mutated()  # type: ignore[attr-defined]
    warnings.showwarning = _show_warning
    if "logging" in sys.modules:
        _catch_records(sys.modules["logging"])
    else:
        sys.meta_path.insert(0, _Watch())
    if wished.capture is not None:
        capture()


def detach() -> None:
    """In a process that the user's code forked: it is no worker, and logs as any process does."""
    global _sender, _handler
    sender, _sender = _sender, None
    if sender is None:
        return
    handler, _handler = _handler, None
    if handler is not None:
        sys.modules["logging"].getLogger().removeHandler(handler)
    with contextlib.suppress(OSError):
        if sender.fd >= 0:
            os.close(sender.fd)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, _Lines):
            setattr(sys, name, stream.real)


# -- records -------------------------------------------------------------------------------------


class _Watch:
    """Sees ``logging`` being imported, and puts the handler there. An entry of sys.meta_path."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "logging":
            return None
        with contextlib.suppress(ValueError):
            sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            _catch_records(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _catch_records(logging: ModuleType) -> None:
    """Put a handler at the root, and set the levels that the parent has."""
    global _handler
    if _sender is None or _handler is not None:
        return
    wishes = _sender.wishes
    root = logging.getLogger()
    if wishes.forked:  # the parent has the handlers, and each record once is enough
        for one in [root, *logging.root.manager.loggerDict.values()]:
            if isinstance(one, logging.Logger):
                one.handlers.clear()
                one.propagate = True

    class Handler(logging.Handler):  # type: ignore[name-defined, misc]
        """Hands records to the parent."""

        def handle(self, record: Any) -> bool:
            self.emit(record)  # without the lock of handlers: each message is written in one piece
            return True

        def emit(self, record: Any) -> None:
            if len(root.handlers) > 1 and any(map(_is_queue, root.handlers)):
                return  # somebody brings them home in the way of the standard library's manual
            try:
                _send_record(record)
            except Exception:
                self.handleError(record)

    _handler = Handler()
    root.addHandler(_handler)
    for name, level in wishes.levels.items():
        logging.getLogger(name or None).setLevel(level)
    if wishes.disabled:
        logging.disable(wishes.disabled)


def _is_queue(handler: object) -> bool:
    return type(handler).__name__ == "QueueHandler"


def _send_record(record: Any) -> None:
    sender = _sender
    if sender is None:
        return
    fields = record.__dict__
    message, args = fields["msg"], fields["args"]
    if type(message) is not str or not (
        not args or (type(args) is tuple and _PLAIN.issuperset(map(type, args)))
    ):
        message, args = record.getMessage(), None
    if len(message) > _MOST:
        message = message[:_MOST]
    key = (
        fields["name"],
        fields["levelno"],
        fields["pathname"],
        fields["lineno"],
        fields["funcName"],
        fields["threadName"],
        fields["thread"],
        fields["process"],
    )
    place = sender.places.get(key)
    if place is None and (place := sender.place(key)) is None:
        sender.dropped += 1
        return
    more = None
    if fields["exc_info"] or fields["exc_text"] or fields["stack_info"] or len(fields) > 21:
        # With this many fields there may be extra ones: cheaper than to look at each name.
        failure, text = _failure(fields)
        more = failure, text, fields["stack_info"], _extra(fields)
    where = current._where()
    sender.send((RECORD, place, fields["created"], message, args or None, where, more))


def _failure(fields: dict[str, Any]) -> tuple[bytes | None, str | None]:
    """The exception, packed, and its traceback as text."""
    import traceback

    text: str | None = fields["exc_text"]
    info = fields["exc_info"]
    if not info and not text:
        return None, None
    if not isinstance(info, tuple) or info[1] is None:
        return None, text
    from ..wire.remote import pack_error

    lines = traceback.format_exception(*info)
    return pack_error(info[1]), text or "".join(lines).rstrip("\n")


def _extra(fields: dict[str, Any]) -> bytes | None:
    import pickle

    found = {name: value for name, value in fields.items() if name not in _USUAL}
    if not found:
        return None
    try:
        return pickle.dumps(found, 5)
    except Exception:
        kept: dict[str, Any] = {}
        for name, value in found.items():
            try:
                pickle.dumps(value, 5)
                kept[name] = value
            except Exception:
                kept[name] = _repr(value)
        return pickle.dumps(kept, 5)


def _repr(value: object) -> str:
    try:
        return repr(value)
    except Exception as error:
        return f"<{type(value).__name__} object, whose repr() raises {type(error).__name__}>"


# -- warnings and lines --------------------------------------------------------------------------


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: Any = None,
    line: str | None = None,
) -> None:
    if _sender is None or file is not None:
        where: Any = sys.stderr if file is None else file
        where.write(warnings.formatwarning(message, category, filename, lineno, line))
        return
    import pickle

    kind: bytes | None = None
    with contextlib.suppress(Exception):
        kind = pickle.dumps(category)
    _sender.send((WARNING, str(message), kind, category.__name__, filename, lineno, line))


class _Lines(io.TextIOBase):
    """Stands for sys.stdout or sys.stderr: sends lines."""

    def __init__(self, number: int, real: Any) -> None:
        self.real = real
        self._number = number
        self._rest = ""

    def write(self, text: str) -> int:
        """Send the lines that are whole now."""
        if _sender is None:
            return int(self.real.write(text))
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._send(line)
        if len(self._rest) > _MOST:
            self.flush()
        return len(text)

    def flush(self) -> None:
        """Send what there is of a line."""
        if self._rest:
            line, self._rest = self._rest, ""
            self._send(line)
        with contextlib.suppress(Exception):
            self.real.flush()

    def _send(self, line: str) -> None:
        if _sender is not None:
            _sender.send((LINE, self._number, line[:_MOST], current._where()))

    def __getattr__(self, name: str) -> Any:
        if name == "real":  # not there yet
            raise AttributeError(name)
        return getattr(self.real, name)  # reconfigure(), and whatever else

    def writable(self) -> bool:
        """Yes."""
        return True

    def fileno(self) -> int:
        """Of the real one: what is written there is not seen here."""
        return int(self.real.fileno())

    def isatty(self) -> bool:
        """No: nobody may move the cursor."""
        return False

    @property
    def buffer(self) -> Any:
        """Of the real one."""
        return self.real.buffer

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Of the real one."""
        return str(self.real.encoding)

    @property
    def errors(self) -> str:  # type: ignore[override]
        """Of the real one."""
        return str(self.real.errors)


def capture() -> None:
    """Send what is printed from here on. May be called again."""
    if _sender is None:
        return
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, _Lines):
            setattr(sys, name, _Lines(number, stream))
