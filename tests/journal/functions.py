"""What the tests' pools run; importable by name in workers."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["Marks", "as_set", "double", "pair", "picky", "refuse", "until", "wait_for_file"]


class Marks:
    """A function that leaves a mark for each item that it runs."""

    def __init__(self, folder: Path, also: str = "") -> None:
        self.path = str(folder / "ran")
        self.also = also

    def __call__(self, item: Any) -> Any:
        fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(fd, f"{item!r}\n".encode())
        os.close(fd)
        return item, "done"

    def taken(self) -> list[str]:
        """What ran since the last question, sorted."""
        try:
            lines = Path(self.path).read_text().splitlines()
        except FileNotFoundError:
            return []
        Path(self.path).unlink()
        return sorted(lines, key=lambda line: (len(line), line))


def double(x: Any) -> Any:
    return 2 * x


def as_set(x: int) -> set[int]:
    return {x}


def pair(a: Any, b: Any) -> tuple[Any, Any]:
    return a, b


def picky(item: tuple[int, str]) -> int:
    """Fails as long as the file is there."""
    number, path = item
    if number % 3 == 0 and os.path.exists(path):
        raise ValueError(f"not {number}")
    return number


def refuse(x: int) -> object:
    """A result that cannot be kept."""
    return threading.Lock() if x == 1 else x


def wait_for_file(item: tuple[int, str]) -> int:
    """Say that it began, and wait until its file is there; not so for an empty name."""
    number, path = item
    if path:
        Path(f"{path}-begun").touch()
        until(lambda: os.path.exists(path))
    return number


def until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until it is."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "in vain"
        time.sleep(0.002)
