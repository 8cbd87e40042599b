"""For eyes, on standard error: the progress bar, failures as they come, and the summary."""

from __future__ import annotations

import importlib.util
import os
import sys
import threading
import time
from typing import Any

__all__ = ["Report", "shows_a_bar"]

_SHOWN = 5  # failures that are shown one by one; the results tell them all


class Report:
    """Counts how the items end, and shows it. Any thread.

    The bar is there when standard error is a terminal, no CI's, and tqdm is installed.
    """

    def __init__(self, total: int | None, *, quiet: bool) -> None:
        self.done = 0
        self.failed = 0
        self._quiet = quiet
        self._start = time.monotonic()
        self._lock = threading.Lock()
        self._bar = None if quiet else _bar(total)
        self._streams: tuple[Any, ...] = ()
        if self._bar is not None:  # what the function prints in this process must not tear it
            from lightwork.observe.bars import Above

            self._streams = Above(sys.stdout), Above(sys.stderr)
            sys.stdout, sys.stderr = self._streams

    def success(self) -> None:
        """An item has its result."""
        with self._lock:
            self.done += 1
            if self._bar is not None:
                self._bar.update()

    def failure(self, index: int, text: str) -> None:
        """An item has failed; `text` says why in one line."""
        with self._lock:
            self.failed += 1
            if self._bar is not None:
                self._bar.set_postfix(failed=self.failed, refresh=False)
                self._bar.update()
            if not self._quiet and self.failed <= _SHOWN:
                self._say(f"item {index}: {text}")
                if self.failed == _SHOWN:
                    self._say("(further failures are in the results only)")

    def say(self, text: str) -> None:
        """Show a line, below the bar if there is one."""
        with self._lock:
            self._say(text)

    def _say(self, text: str) -> None:
        print(f"lightwork: {text}", file=sys.stderr, flush=True)

    def finish(self, workers: str | None) -> None:
        """Close the bar, and show the summary; None: no summary."""
        with self._lock:
            if self._bar is not None:
                from lightwork.observe.bars import undisturbed

                with undisturbed():
                    self._bar.close()
                self._bar = None
                sys.stdout, sys.stderr = (stream.real for stream in self._streams)
                for stream in self._streams:
                    stream.end()
            if not self._quiet and workers is not None:
                seconds = time.monotonic() - self._start
                failed = f", {self.failed:,} failed" if self.failed else ""
                self._say(f"{self.done:,} done{failed} in {seconds:.1f} s ({workers})")


def shows_a_bar() -> bool:
    """Whether there is anybody to see one, and tqdm to draw it."""
    if os.environ.get("CI") or not sys.stderr.isatty():
        return False
    return importlib.util.find_spec("tqdm") is not None  # nobody asked for it by name


def _bar(total: int | None) -> Any:
    if not shows_a_bar():
        return None
    from tqdm import tqdm

    return tqdm(total=total, file=sys.stderr, unit=" items", dynamic_ncols=True, leave=False)
