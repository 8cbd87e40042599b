"""What ``kind="auto"`` decided: the records of ``Pool.decisions``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .measure.model import Figures

__all__ = ["Decision", "for_all"]


class Decision(NamedTuple):
    """What ``kind="auto"`` chose for a function, and why: ``Pool.decisions``."""

    function: str
    kind: str  # "threads", "processes" or "serial"
    workers: int
    why: str
    figures: Figures | None
    when: float  # time.time()

    def __str__(self) -> str:
        workers = f" ({self.workers})" if self.workers else ""
        where = "in place" if self.kind == "serial" else f"{self.kind}{workers}"
        return f"{self.function}: {where}: {self.why}"


def for_all(why: str) -> Decision:
    """One that holds for all functions, and needs no measuring."""
    return Decision("every function", "processes", 0, why, None, time.time())
