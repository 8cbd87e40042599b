"""``Checkpoint``: where the results of a map are kept."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from ..errors import CheckpointError
from . import recorder
from .content import fingerprint
from .file import File, Identity, changed

__all__ = ["Checkpoint"]

RESULTS = ("pickle", "json")


class Checkpoint:
    """A file of finished results, so that a run carries on where it stopped.

    ``pool.map(fn, items, checkpoint="run.db")`` is short for a `Checkpoint` that serves this one
    map. In a ``with`` statement it stays open, and may serve several, each from another position
    on (`at`).

    Anybody who can write to a file of pickled results can run code as whoever loads it; the file is
    made for its owner alone (0600), and refused when others may write to it. With
    ``results="json"`` loading it runs nothing.

    Args:
        path: the file; made if it is not there.
        results: ``"pickle"``: any result that can be pickled. ``"json"``: results come back as JSON
            has them (tuples as lists, keys as text), also in the run that computes them; one that
            is not JSON fails its item with TypeError.
        restart: forget what is in the file, when it is opened.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, results: str = "pickle", restart: bool = False
    ) -> None:
        if results not in RESULTS:
            raise ValueError(f"results must be one of {', '.join(RESULTS)}, not {results!r}")
        self.path = os.path.realpath(os.fspath(path))
        self.results = results
        self.restart = restart
        self.start = 0
        self.whole = True  # whether one map goes through all of its items
        self._root = self
        self._lock = threading.Lock()
        self._recorder: recorder.Recorder | None = None
        self._identity: Identity | None = None
        self._held = False

    def at(self, start: int) -> Checkpoint:
        """The same file, for a map whose first item has the number `start`, not 0."""
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__)
        view.start, view.whole, view._root = start, False, self._root
        return view

    def open(self, fn: Callable[..., Any], seed: object = None) -> None:
        """Open the file for maps of `fn`, unless it is open. `Pool.map` does this.

        Raises:
            CheckpointError: it cannot be opened, is in use, damaged, or none of ours.
            CheckpointChanged: it is of another function, Python, seed or form of results.
        """
        root = self._root
        with root._lock:
            identity = Identity(
                sys.implementation.cache_tag or sys.version.split()[0],
                self.results,
                fingerprint(fn).hex(),
                _name(fn),
                repr(seed),
            )
            if root._recorder is not None and not root._recorder.closed:
                if identity != root._identity:
                    raise changed(self.path, "is open for another function")
                return
            recorder.take_over(self.path)
            file = File(self.path, identity, restart=self.restart)
            root.restart = False  # of what it forgets, nothing must be forgotten again
            root._recorder, root._identity = recorder.Recorder(file), identity
            if root._held:
                root._recorder.acquire()

    def recorder(self) -> recorder.Recorder:
        """Who writes into the file. Raises CheckpointError when it is not open."""
        found = self._root._recorder
        if found is None or found.closed:
            raise CheckpointError(f"the checkpoint {self.path!r} is not open")
        return found

    def counts(self) -> tuple[int, int]:
        """How many items are done, and how many have failed, in the open file."""
        found = self.recorder()
        with found.reading:
            return found.file.counts()

    def check_end(self, items: int) -> None:
        """Say that there were so many items. Raises CheckpointChanged if the file has more."""
        if self.recorder().file.end > items:
            raise changed(self.path, f"goes on behind the last item, {items - 1}")

    def flush(self) -> None:
        """Keep what has arrived until now; returns when it is on the disk."""
        found = self._root._recorder
        if found is not None:
            found.flush()

    def close(self) -> None:
        """Keep what has arrived, and let go of the file. May be called again."""
        found = self._root._recorder
        if found is not None:
            found.flush()
            found.close()

    def __enter__(self) -> Self:
        with self._root._lock:
            self._root._held = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._root._held = False
        self.close()

    def __repr__(self) -> str:
        return f"<Checkpoint {self.path!r}, {self.results}>"


def _name(fn: Callable[..., Any]) -> str:
    inner: Any = fn
    while (deeper := getattr(inner, "func", None)) is not None and deeper is not inner:
        inner = deeper
    kind = inner if hasattr(inner, "__qualname__") else type(inner)
    return f"{kind.__module__}:{kind.__qualname__}"
