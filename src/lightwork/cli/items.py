"""Where the items come from: the command line, a range, lines of text, lines of JSON.

All are read as they are needed. A source that may have to be waited for (a pipe, a terminal) is
read by a thread of its own, so that results come out while the next item is not there yet.
"""

from __future__ import annotations

import json
import os
import stat
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from .problem import WrongUse

__all__ = ["END", "PAUSE", "Source", "from_failures", "from_file", "from_range", "from_words"]

END = object()
PAUSE = object()
_AHEAD = 4096  # lines read from a pipe before anyone wants them; only has to hide its latency


class Source(Protocol):
    """A stream of items."""

    total: int | None  # how many there are, where it is known
    live: bool  # whether it may have to be waited for

    def get(self, timeout: float | None) -> Any:
        """The next item, or END; or PAUSE when it is not there within `timeout` seconds.

        Raises WrongUse for input that cannot be read as what it should be. One thread at a time.
        """

    def close(self) -> None:
        """End the stream: `get` returns END from now on, also where it waits. Any thread."""


class _Steady:
    """A source that never has to be waited for."""

    live: bool = False

    def __init__(self, items: Iterator[Any], total: int | None) -> None:
        self.total = total
        self._items = items
        self._closed = False

    def get(self, timeout: float | None) -> Any:
        return END if self._closed else next(self._items, END)

    def close(self) -> None:
        self._closed = True


class _Live:
    """A source that another thread reads."""

    live: bool = True
    total: int | None = None

    def __init__(self, items: Iterator[Any]) -> None:
        self._items = items
        self._got: deque[Any] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._closed = False
        self._error: BaseException | None = None
        # A daemon: nobody can end a read that waits for a terminal.
        threading.Thread(target=self._read, name="lightwork-input", daemon=True).start()

    def _read(self) -> None:
        try:
            for item in self._items:
                with self._changed:
                    while len(self._got) >= _AHEAD and not self._closed:
                        self._changed.wait()
                    if self._closed:
                        return
                    self._got.append(item)
                    self._changed.notify_all()
        except BaseException as error:
            self._error = error  # raised by get(), behind the items before it
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def get(self, timeout: float | None) -> Any:
        with self._changed:
            end = None if timeout is None else time.monotonic() + timeout
            while not (self._got or self._ended or self._closed):
                left = None if end is None else end - time.monotonic()
                if left is not None and left <= 0:
                    return PAUSE
                self._changed.wait(left)
            if self._closed:
                return END
            if self._got:
                self._changed.notify_all()
                return self._got.popleft()
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            return END

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._got.clear()
            self._changed.notify_all()


def from_words(words: Sequence[str], *, star: bool) -> Source:
    """The items given on the command line.

    A word that is written just as Python writes an int or a float is that number; so nothing is
    lost: ``007``, ``1.10`` and ``1e3`` stay text. With `star`, each word is a JSON list or object.
    """
    if not star:
        return _Steady(map(_number_or_text, words), len(words))
    items = [_parse(word, f"item {at}", star) for at, word in enumerate(words, 1)]
    return _Steady(iter(items), len(items))


def _number_or_text(word: str) -> int | float | str:
    if word[-1:].isdigit():  # so "nan", "inf" and words stay out
        for kind in (int, float):
            try:
                number = kind(word)
            except ValueError:
                continue
            if repr(number) == word:
                return number
    return word


def from_range(text: str) -> Source:
    """The whole numbers of ``A:B`` or ``A:B:STEP``: from A up to, not including, B."""
    try:
        numbers = range(*_bounds(text))
    except ValueError:
        raise WrongUse(
            f"--range must be A:B or A:B:STEP in whole numbers, STEP not 0, not {text!r}"
        ) from None
    try:
        total: int | None = len(numbers)
    except OverflowError:  # more than a machine's word counts
        total = None
    return _Steady(iter(numbers), total)


def _bounds(text: str) -> list[int]:
    parts = [int(part) for part in text.split(":")]
    if len(parts) not in (2, 3):
        raise ValueError(text)
    return parts


def from_file(path: str, *, jsonl: bool, star: bool) -> Source:
    """The lines of a file, or of standard input for ``-``: as text, or each a JSON value."""
    descriptor, name = _open(path)
    status = os.fstat(descriptor)
    if stat.S_ISDIR(status.st_mode):
        os.close(descriptor)
        raise WrongUse(f"cannot read {name}: it is a folder")
    lines = _lines(descriptor)
    items = _values(lines, name, star) if jsonl else (_text(line) for line in lines)
    return _Steady(items, None) if stat.S_ISREG(status.st_mode) else _Live(items)


def from_failures(path: str, *, star: bool) -> Source:
    """The items of the failures in a file of results, as ``--failed`` and ``-o`` write them."""
    descriptor, name = _open(path)
    regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
    items = _failed_items(_values(_lines(descriptor), name, False), name, star)
    return _Steady(items, None) if regular else _Live(items)


def _failed_items(lines: Iterator[Any], name: str, star: bool) -> Iterator[Any]:
    for number, line in enumerate(lines, 1):
        if not isinstance(line, dict) or "item" not in line:
            raise WrongUse(f'{name}, line {number}: no result of this command (it has no "item")')
        if "error" in line:
            yield _fit(line["item"], f"{name}, line {number}", star)


def _open(path: str) -> tuple[int, str]:
    try:
        if path == "-":
            return os.dup(0), "standard input"
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC), path
    except OSError as error:
        raise WrongUse(f"cannot read {path!r}: {error.strerror}") from None


def _lines(descriptor: int) -> Iterator[bytes]:
    """The lines without their ends; what a line is, is up to ``\\n`` or ``\\r\\n``.

    Read without Python's buffered files: these hold a lock while they wait, and an interpreter
    that ends meanwhile aborts.
    """
    rest: list[bytes] = []  # of a line whose end was not read yet
    first = True
    try:
        while data := os.read(descriptor, 1 << 16):
            if first:
                data, first = data.removeprefix(b"\xef\xbb\xbf"), False
            rest.append(data)
            if b"\n" not in data:
                continue
            lines = b"".join(rest).split(b"\n")
            rest = [lines.pop()]
            for line in lines:
                yield line.removesuffix(b"\r")
        if last := b"".join(rest):
            yield last.removesuffix(b"\r")
    finally:
        os.close(descriptor)


def _text(line: bytes) -> str:
    return line.decode("utf-8", "surrogateescape")  # names of files may be any bytes


def _values(lines: Iterator[bytes], name: str, star: bool) -> Iterator[Any]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield _parse(line, f"{name}, line {number}", star)


def _parse(text: bytes | str, where: str, star: bool) -> Any:
    try:
        value = json.loads(text if isinstance(text, str) else text.decode())
    except UnicodeDecodeError as error:
        raise WrongUse(f"{where}: not UTF-8 at byte {error.start + 1}") from None
    except json.JSONDecodeError as error:
        raise WrongUse(f"{where}: not JSON at column {error.colno}: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise WrongUse(f"{where}: not JSON that can be read: {error}") from None
    return _fit(value, where, star)


def _fit(value: Any, where: str, star: bool) -> Any:
    if star and not isinstance(value, (list, dict)):
        shown = json.dumps(value)[:40]
        raise WrongUse(f"{where}: --star takes a list or an object, not {shown}")
    return value
