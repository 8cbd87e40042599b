"""Progress bars, by tqdm."""

from __future__ import annotations

import contextlib
import operator
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from ..errors import MissingExtra
from .bars import undisturbed

__all__ = ["Bar", "Captured", "Progress", "in_a_notebook", "make_bar"]


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
        with undisturbed():
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
    make = _tqdm(notebook)
    with undisturbed():
        bar: Any = make(
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


# -- what workers print ---------------------------------------------------------------------------


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
