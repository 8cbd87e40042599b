"""What a test has left behind: threads, processes, descriptors, files in shared memory.

Shared on purpose, and so not counted: the fork server of this package (one for each process) with
its few descriptors, and the helpers of ``multiprocessing``, which the peers in some tests start.
"""

from __future__ import annotations

import gc
import os
import re
import threading
import time
from pathlib import Path
from typing import NamedTuple

__all__ = ["Snapshot", "descendants", "left_behind"]

_SERVER = "lightwork.backends.processes.server"
_SHARED = (_SERVER, "multiprocessing.resource_tracker", "multiprocessing.forkserver")
_SERVER_FDS = 6
"""Descriptors that the parent keeps for a shared process at most."""
_KEPT = ("/dev/urandom", "/memfd:lightwork-share")
"""What a process opens once, and keeps: the second is what it has in common with its workers."""
_SHM = Path("/dev/shm")


class Process(NamedTuple):
    """A process; `started` tells it from a later one of the same number."""

    pid: int
    parent: int
    started: str
    command: str


class Snapshot(NamedTuple):
    """What there is at a moment."""

    threads: frozenset[threading.Thread]
    processes: dict[tuple[int, str], Process]
    shared: frozenset[int]  # pids of the shared processes among our descendants
    descriptors: dict[str, str]
    segments: frozenset[str]

    @classmethod
    def take(cls) -> Snapshot:
        """Look around, now."""
        ours: list[Process] = []
        shared: list[Process] = []
        for one in descendants(os.getpid()):
            (shared if any(name in one.command for name in _SHARED) else ours).append(one)
        return cls(
            threads=frozenset(threading.enumerate()),
            processes={(one.pid, one.started): one for one in ours},
            shared=frozenset(one.pid for one in shared),
            descriptors=_descriptors(),
            segments=frozenset(os.listdir(_SHM) if _SHM.is_dir() else ()),
        )


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""  # it ended while we looked


def _processes() -> list[Process]:
    found = []
    for entry in os.listdir("/proc") if os.path.isdir("/proc") else ():
        if not entry.isdigit():
            continue
        folder = Path("/proc", entry)
        # pid (name, with any characters) state ppid ... the 22nd field is the start time
        fields = _read(folder / "stat").rpartition(")")[2].split()
        if len(fields) < 20:
            continue
        command = "zombie" if fields[0] == "Z" else _read(folder / "cmdline").replace("\0", " ")
        found.append(Process(int(entry), int(fields[1]), fields[19], command))
    return found


def descendants(pid: int) -> list[Process]:
    """The children of a process, their children, and so on."""
    by_parent: dict[int, list[Process]] = {}
    for one in _processes():
        by_parent.setdefault(one.parent, []).append(one)
    found: list[Process] = []
    wanted = [pid]
    while wanted:
        children = by_parent.get(wanted.pop(), [])
        found += children
        wanted += [one.pid for one in children]
    return found


def _descriptors() -> dict[str, str]:
    found = {}
    folder = "/proc/self/fd"
    for entry in os.listdir(folder) if os.path.isdir(folder) else ():
        try:
            found[entry] = os.readlink(f"{folder}/{entry}")
        except OSError:
            continue  # the one by which we read the folder
    return found


def _difference(before: Snapshot, now: Snapshot) -> list[str]:
    left = [f"thread {one.name}" for one in now.threads - before.threads if one.is_alive()]
    left += [
        f"process {one.pid}: {one.command}"
        for key, one in now.processes.items()
        if key not in before.processes
    ]
    fresh = [
        f"descriptor {number}: {target}"
        for number, target in now.descriptors.items()
        if before.descriptors.get(number) != target and not target.startswith(_KEPT)
    ]
    gone = sum(
        now.descriptors.get(number) != target for number, target in before.descriptors.items()
    )
    allowed = gone + _SERVER_FDS * len(now.shared - before.shared)
    if len(fresh) > allowed:
        left += fresh
    left += [f"{_SHM / name}" for name in now.segments - before.segments if _is_ours(name)]
    return left


def _is_ours(name: str) -> bool:
    """Whether a file of /dev/shm may be ours: other programs use it, too.

    It is not if an unrelated process holds it, or if its name has the number of a process (as
    those of joblib and multiprocessing's semaphores have), and that is not of our family.
    """
    path = str(_SHM / name)
    related = {os.getpid(), *(one.pid for one in descendants(os.getpid()))}
    numbers = {int(one) for one in re.findall(r"(?<![0-9a-f])\d{3,7}(?![0-9a-f])", name)}
    if numbers and not numbers & related:
        return False
    for one in _processes():
        if one.pid not in related and path in _read(Path("/proc", str(one.pid), "maps")):
            return False
    return os.path.exists(path)


def left_behind(before: Snapshot, *, within: float = 5.0, but: tuple[str, ...] = ()) -> list[str]:
    """What is there that was not there `before`, once things had `within` seconds to end.

    `but`: beginnings of what may stay, such as ``"thread"``.
    """
    end = time.monotonic() + within
    pause = 0.001
    while left := [one for one in _difference(before, Snapshot.take()) if not one.startswith(but)]:
        if time.monotonic() >= end:
            return left
        gc.collect()  # pools that were merely dropped
        time.sleep(pause)
        pause = min(2 * pause, 0.1)
    return []
