"""Where the results go: one line each, written at once, in one call, in the order asked for."""

from __future__ import annotations

import os
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

from .problem import WrongUse

__all__ = ["Lines", "Output", "standard_output", "to_file"]


class Output:
    """A descriptor that lines are written to.

    A file is opened before any work starts, so that one that cannot be written is found out in
    time, and emptied only when its first line is there: a command that fails early leaves the
    results of the last one as they were. A run that carries on (`before`) does not empty it: as
    long as its lines are those that are there, nothing is written; from the first difference on,
    such as half a line of a run that was killed, the file is written anew.

    A line is written in one call. If that fails half-way (a full disk), the half is taken back.
    """

    def __init__(
        self,
        descriptor: int,
        name: str,
        *,
        path: str | None,
        created: bool,
        before: BinaryIO | None = None,
    ) -> None:
        self.name = name
        self._descriptor = descriptor
        self._path = path
        self._created = created
        self._regular = bool(path) and stat.S_ISREG(os.fstat(descriptor).st_mode)
        self._touched = not self._regular
        self._before = before if self._regular else None
        self._beside_bar = os.isatty(descriptor)
        self._size = 0  # bytes of whole lines, in a regular file

    def write(self, text: str) -> None:
        """Write a line. Raises OSError (BrokenPipeError when the reader went away)."""
        # Half of a surrogate pair stands for a byte of a file's name, and has no UTF-8: the
        # backslash form of it is just JSON's.
        data = (text + "\n").encode("utf-8", "backslashreplace")
        if self._before is not None:
            if self._before.read(len(data)) == data:
                self._size += len(data)
                return
            self._forget_before()
        self._empty()
        try:
            if self._beside_bar:
                from lightwork.observe.bars import pause_bars

                with pause_bars():
                    self._write_all(data)
            else:
                self._write_all(data)
        except OSError:
            if self._regular:
                with suppress(OSError):
                    os.ftruncate(self._descriptor, self._size)
            raise
        self._size += len(data)

    def _write_all(self, data: bytes) -> None:
        line = memoryview(data)
        while line:
            line = line[os.write(self._descriptor, line) :]

    def _forget_before(self) -> None:
        """From here on the file is ours."""
        assert self._before is not None
        self._before.close()
        self._before = None
        self._touched = True
        os.ftruncate(self._descriptor, self._size)

    def _empty(self) -> None:
        if not self._touched:
            self._touched = True
            os.ftruncate(self._descriptor, 0)

    def close(self, *, started: bool, complete: bool = True) -> None:
        """Close it.

        Args:
            started: whether work had started, so that no results is a result.
            complete: whether nothing is missing, so that what is left of a former run is none.
        """
        if self._before is not None:
            if started and complete:
                self._forget_before()
            else:
                self._before.close()
        elif started:
            self._empty()
        os.close(self._descriptor)
        if self._created and not self._touched and self._path:
            os.unlink(self._path)


def to_file(path: str, inputs: list[str], *, carry_on: bool = False, option: str = "-o") -> Output:
    """Open a file for results; `inputs` are other files of the command.

    `carry_on`: what is there is of an earlier run of the same. Raises WrongUse if it cannot be
    written, or is an input.
    """
    for name in inputs:
        if os.path.exists(name) and os.path.exists(path) and os.path.samefile(name, path):
            raise WrongUse(f"{option} {path!r} is the file that the items are read from")
    created = not os.path.lexists(path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o666)
        before = open(path, "rb") if carry_on and os.path.isfile(path) else None  # noqa: SIM115
    except OSError as error:
        raise WrongUse(f"cannot write {path!r}: {error.strerror}") from None
    return Output(descriptor, path, path=path, created=created, before=before)


@contextmanager
def standard_output() -> Iterator[Output]:
    """Standard output for results alone, until the block ends.

    What the user's functions print, here or in a worker process, goes to standard error
    meanwhile: a word between two lines of JSON would make both useless.
    """
    sys.stdout.flush()
    try:
        kept = os.dup(1)
    except OSError:
        raise WrongUse("standard output is closed; name a file with -o") from None
    try:
        os.dup2(2, 1)
        yield Output(os.dup(kept), "standard output", path=None, created=False)
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


class Lines:
    """Puts lines into the order of the items, if asked to, and writes them. Any thread."""

    def __init__(self, output: Output, *, ordered: bool) -> None:
        self.held = 0  # lines that wait for an earlier one
        self._output = output
        self._ordered = ordered
        self._waiting: dict[int, str | None] = {}
        self._next = 0
        self._lock = threading.Lock()

    def put(self, index: int, text: str | None) -> None:
        """Hand in the line of an item; None: it has none. Raises OSError."""
        with self._lock:
            if not self._ordered:
                self._write(text)
                return
            self._waiting[index] = text
            while self._next in self._waiting:
                # Counted before it is written: a line that failed is not written twice.
                text = self._waiting.pop(self._next)
                self._next += 1
                self._write(text)
            self.held = len(self._waiting)

    def write_rest(self) -> None:
        """Write what still waits for lines that will not come. Raises OSError."""
        with self._lock:
            for index in sorted(self._waiting):
                self._write(self._waiting.pop(index))
            self.held = 0

    def _write(self, text: str | None) -> None:
        if text is not None:
            self._output.write(text)
