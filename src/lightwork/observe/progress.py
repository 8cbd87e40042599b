"""Progress bars, by tqdm."""

from __future__ import annotations

import operator
import os
import sys
from collections.abc import Iterable
from typing import Any, Protocol

from ..errors import MissingExtra

__all__ = ["Bar", "make_bar"]


class Bar(Protocol):
    """Whatever can show progress."""

    def update(self, n: int) -> Any:
        """`n` more items are done."""

    def close(self) -> Any:
        """No more will come."""


def make_bar(progress: object, iterables: tuple[Iterable[Any], ...] = ()) -> Bar:
    """The bar that ``progress=`` asks for.

    True, or a label: tqdm on standard error, silent when that is no terminal or in CI. Else an
    object with ``update`` and ``close`` of the user's own. Raises TypeError, and MissingExtra
    where tqdm is not installed.
    """
    if callable(getattr(progress, "update", None)) and callable(getattr(progress, "close", None)):
        return progress  # type: ignore[return-value]
    if progress is not True and not isinstance(progress, str):
        raise TypeError(
            "progress must be True, a label, or an object with update() and close(), "
            f"not {progress!r}"
        )
    try:
        from tqdm import tqdm
    except ImportError:
        raise MissingExtra("progress= needs tqdm: pip install 'lightwork[progress]'") from None
    sizes = [operator.length_hint(one, -1) for one in iterables]
    total = None if not sizes or min(sizes) < 0 else min(sizes)
    silent = bool(os.environ.get("CI")) or not sys.stderr.isatty()
    bar: Bar = tqdm(
        total=total,
        desc=progress if isinstance(progress, str) else None,
        disable=silent,
        dynamic_ncols=True,
        smoothing=0.05,
    )
    return bar
