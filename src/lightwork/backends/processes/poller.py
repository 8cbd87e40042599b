"""Waiting for several descriptors at once: as ``selectors``, in a third of its time.

What ``selectors`` makes of each event (a key, a named tuple, an enum or two) costs more than the
system call, and it is paid for each small message.
"""

from __future__ import annotations

import contextlib
import select
from typing import Any, Generic, TypeVar

__all__ = ["READ", "WRITE", "Poller"]

READ, WRITE = int(select.POLLIN), int(select.POLLOUT)  # the same numbers for epoll

Data = TypeVar("Data")


class Poller(Generic[Data]):
    """Descriptors, each with what its owner wants to be reminded of. Not thread-safe.

    Attributes:
        data: what belongs to each registered descriptor.
    """

    def __init__(self) -> None:
        self.data: dict[int, Data] = {}
        self._poll: Any = select.epoll() if hasattr(select, "epoll") else select.poll()
        self._unit = 1.0 if hasattr(select, "epoll") else 1000.0

    def fileno(self) -> int:
        """The descriptor that this takes itself; -1 if none."""
        return self._poll.fileno() if hasattr(self._poll, "fileno") else -1

    def register(self, fd: int, events: int, data: Data) -> None:
        """Watch a descriptor for READ, WRITE or both, and for its end in any case."""
        self._poll.register(fd, events)
        self.data[fd] = data

    def modify(self, fd: int, events: int) -> None:
        """Watch it for something else. Unknown: ignored."""
        if fd in self.data:
            self._poll.modify(fd, events)

    def unregister(self, fd: int) -> None:
        """Watch it no more. Unknown: ignored."""
        if self.data.pop(fd, None) is not None:
            with contextlib.suppress(OSError, KeyError):  # closed already
                self._poll.unregister(fd)

    def wait(self, timeout: float | None) -> list[tuple[int, int]]:
        """Wait up to `timeout` seconds (None: for ever); return descriptors with their events.

        An event may be for a descriptor that is not registered any more: look into `data`.
        """
        found: list[tuple[int, int]] = self._poll.poll(
            None if timeout is None else timeout * self._unit
        )
        return found

    def close(self) -> None:
        """Give the descriptor back."""
        self.data.clear()
        if hasattr(self._poll, "close"):
            self._poll.close()
