"""Printing beside progress bars, without tearing them."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

__all__ = ["Above", "pause_bars", "undisturbed", "write_line"]

_PATIENCE = 1.0
"""Seconds that a bar waits for what is just being printed, before it is torn."""

_printing = threading.RLock()
_away = False  # the bars are, for who holds the lock
_ours = True  # and not those of a parent that we were forked from


def _shown() -> bool:
    """Whether there may be a bar that printing would tear."""
    tqdm = sys.modules.get("tqdm")
    return _ours and tqdm is not None and bool(getattr(tqdm.tqdm, "_instances", None))


@contextlib.contextmanager
def pause_bars() -> Iterator[None]:
    """Take the bars away while something is printed, and put them back."""
    global _away
    with _printing:
        if _away or not _shown():
            yield
            return
        _away = True
        stream = getattr(sys.stderr, "real", sys.stderr)  # see Above: the bars know the real one
        try:
            with sys.modules["tqdm"].tqdm.external_write_mode(file=stream):
                yield
        finally:
            _away = False


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """While a bar is made or closed: tqdm counts it among the bars too late, or not any more.

    That may happen in a garbage collection, below any lock: so nobody is waited for without end.
    """
    printing = _printing
    mine = printing.acquire(timeout=_PATIENCE)
    try:
        yield
    finally:
        if mine:
            printing.release()


def write_line(text: str, stream: Any) -> None:
    """Print a line of a worker's, above the bars if there are any."""
    if stream is None:
        return
    with pause_bars(), contextlib.suppress(OSError, ValueError):  # closed, or nobody reads it
        stream.write(text + "\n")
        stream.flush()


def _after_fork_in_child() -> None:
    """The bars are the parent's, and so is whoever holds the locks, tqdm's own included."""
    global _printing, _away, _ours
    _printing, _away, _ours = threading.RLock(), False, False


os.register_at_fork(after_in_child=_after_fork_in_child)


class Above(io.TextIOBase):
    """Stands for ``sys.stdout`` or ``sys.stderr``: whole lines go above the bars. Any thread."""

    def __init__(self, real: Any) -> None:
        self.real = real
        self._rests: dict[int, str] = {}  # of lines, by thread

    def write(self, text: str) -> int:
        """Print the lines that are whole now."""
        me = threading.get_ident()
        whole, newline, rest = (self._rests.pop(me, "") + text).rpartition("\n")
        if rest:
            self._rests[me] = rest
        if newline:
            write_line(whole, self.real)
        return len(text)

    def end(self) -> None:
        """Print what there is of lines."""
        with contextlib.suppress(KeyError):  # others may go on printing
            while True:
                write_line(self._rests.popitem()[1], self.real)

    def __getattr__(self, name: str) -> Any:
        if name == "real":  # not there yet
            raise AttributeError(name)
        return getattr(self.real, name)  # reconfigure(), and whatever else

    def writable(self) -> bool:
        """Yes."""
        return True

    def isatty(self) -> bool:
        """No: nobody may move the cursor."""
        return False

    def fileno(self) -> int:
        """Of the real one."""
        return int(self.real.fileno())

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
