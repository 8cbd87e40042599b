"""Progress bars, by tqdm; and how to print without tearing them."""

from __future__ import annotations

import contextlib
import io
import operator
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from ..errors import MissingExtra

__all__ = [
    "Above",
    "Bar",
    "Captured",
    "Progress",
    "bars_shown",
    "in_a_notebook",
    "make_bar",
    "pause_bars",
    "write_line",
]


class Bar(Protocol):
    """Whatever can show progress."""

    def update(self, n: int) -> Any:
        """`n` more items are done."""

    def close(self) -> Any:
        """No more will come."""


class Progress:
    """A bar, and how many items have failed. One thread at a time.

    Attributes:
        shown: whether workers' prints would tear it.
    """

    def __init__(self, bar: Bar, *, shown: bool, counts_failures: bool) -> None:
        self._bar = bar
        self._failed = 0
        self._counts = counts_failures
        self.shown = shown

    def update(self, n: int, failed: int = 0) -> None:
        """So many more items have ended, and so many of them have failed."""
        if failed:
            self._failed += failed
            if self._counts:
                self._bar.set_postfix(failed=self._failed, refresh=False)  # type: ignore[attr-defined]
        self._bar.update(n)

    def close(self) -> None:
        """No more will come."""
        self._bar.close()


def make_bar(progress: object, iterables: tuple[Iterable[Any], ...] = ()) -> Progress:
    """The bar that ``progress=`` asks for.

    True, or a label: tqdm, in a notebook as its widget, else on standard error, and silent when
    that is no terminal, or in CI. An open file: tqdm's lines go there. Else an object with
    ``update`` and ``close`` of the user's own. Raises TypeError, and MissingExtra where tqdm is
    not installed.
    """
    if callable(getattr(progress, "update", None)) and callable(getattr(progress, "close", None)):
        return Progress(progress, shown=False, counts_failures=False)  # type: ignore[arg-type]
    file = progress if callable(getattr(progress, "write", None)) else None
    if progress is not True and not isinstance(progress, str) and file is None:
        raise TypeError(
            "progress must be True, a label, an open file, or an object with update() and "
            f"close(), not {progress!r}"
        )
    sizes = [operator.length_hint(one, -1) for one in iterables]
    total = None if not sizes or min(sizes) < 0 else min(sizes)
    notebook = file is None and in_a_notebook()
    silent = file is None and not notebook
    silent = silent and (bool(os.environ.get("CI")) or not sys.stderr.isatty())
    bar: Any = _tqdm(notebook)(
        total=total,
        desc=progress if isinstance(progress, str) else None,
        disable=silent,
        file=file,
        dynamic_ncols=file is None,
        smoothing=0.05,
    )
    return Progress(bar, shown=file is None and not silent, counts_failures=True)


def _tqdm(notebook: bool) -> Callable[..., Any]:
    try:
        if notebook:
            with contextlib.suppress(ImportError):  # without ipywidgets there is the text
                import ipywidgets  # type: ignore[import-not-found, unused-ignore]  # noqa: F401
                from tqdm.notebook import tqdm as widget

                return widget  # type: ignore[no-any-return]
        from tqdm import tqdm
    except ImportError:
        raise MissingExtra("progress= needs tqdm: pip install 'lightwork[progress]'") from None
    return tqdm  # type: ignore[no-any-return]


def in_a_notebook() -> bool:
    """Whether output is shown by Jupyter, or one like it."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in getattr(shell, "config", ())


# -- printing beside bars ------------------------------------------------------------------------

_printing = threading.RLock()
_away = False  # the bars are, for who holds the lock
_ours = True  # and not those of a parent that we were forked from


def bars_shown() -> bool:
    """Whether there may be a bar that printing would tear."""
    tqdm = sys.modules.get("tqdm")
    return _ours and tqdm is not None and bool(getattr(tqdm.tqdm, "_instances", None))


@contextlib.contextmanager
def pause_bars() -> Iterator[None]:
    """Take the bars away while something is printed, and put them back."""
    global _away
    with _printing:
        if _away or not bars_shown():
            yield
            return
        _away = True
        stream = getattr(sys.stderr, "real", sys.stderr)  # see Above: the bars know the real one
        try:
            with sys.modules["tqdm"].tqdm.external_write_mode(file=stream):
                yield
        finally:
            _away = False


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
        while self._rests:
            write_line(self._rests.popitem()[1], self.real)

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


class Captured:
    """A function whose workers send what they print, line by line, for there is a bar.

    In a worker process it is the bare function: a call costs nothing more.
    """

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.func = fn
        self.__qualname__ = getattr(fn, "__qualname__", type(fn).__qualname__)
        self.__code__ = getattr(fn, "__code__", None)

    def __reduce__(self) -> tuple[Any, ...]:
        return _captured, (self.func,)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.func(*args, **kwargs)


def _captured(fn: Callable[..., Any]) -> Callable[..., Any]:
    from .sending import capture

    capture()
    return fn
