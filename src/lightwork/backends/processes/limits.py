"""What this process may use: processors, memory, and the threads of native libraries.

The number of processors in the machine is not what a program may use: a batch system or
``taskset`` sets an affinity, a container a quota, and a worker of another pool has only its
share. Every function that reads the system takes `root`, for tests.

Sources: sched(7), proc(5); the kernel's ``admin-guide/cgroup-v2.rst`` (cpu.max, memory.max,
memory.events) and ``admin-guide/cgroup-v1`` (cpu.cfs_quota_us, memory.oom_control).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator

__all__ = [
    "CPU_SHARE",
    "MAX_WORKERS",
    "NATIVE_NAMES",
    "memory_limit_bytes",
    "native_thread_env",
    "oom_kill_count",
    "resident_bytes",
    "share_env",
    "usable_cpus",
]

MAX_WORKERS = "LIGHTWORK_MAX_WORKERS"
"""The user's own bound on `usable_cpus`."""

CPU_SHARE = "LIGHTWORK_CPU_SHARE"
"""Set in workers: the processors that each may take as its own."""

NATIVE_NAMES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "RAYON_NUM_THREADS",
    "POLARS_MAX_THREADS",
)
"""Variables that native libraries read, most of them only once, when they are loaded."""

_UNLIMITED = 1 << 60  # cgroup v1 writes "no limit" as a number close to 2**63


def usable_cpus(root: str = "/") -> int:
    """Return how many processors this process can keep busy; at least 1.

    The least of: its affinity; the quotas of its control group and of all groups above it,
    rounded up; ``LIGHTWORK_MAX_WORKERS``; and, in a worker, its share of the pool's processors.
    """
    count = _affinity()
    for quota in _cpu_quotas(root):
        count = min(count, math.ceil(quota))
    for name in (MAX_WORKERS, CPU_SHARE):
        bound = _positive(os.environ.get(name))
        if bound is not None:
            count = min(count, bound)
    return max(1, count)


def share_env(workers: int, native_threads: int | None = None) -> dict[str, str]:
    """Return what to set in each of `workers` workers, so that together they fit the processors.

    `native_threads`: how many each may have in native libraries; None: its share.
    """
    share = max(1, usable_cpus() // max(1, workers))
    return {CPU_SHARE: str(share)} | native_thread_env(native_threads or share)


def native_thread_env(n: int) -> dict[str, str]:
    """Return what holds native libraries to `n` threads, but for what the user has set."""
    inherited = CPU_SHARE in os.environ  # then it was a pool that set them, not the user
    return {name: str(n) for name in NATIVE_NAMES if inherited or name not in os.environ}


def memory_limit_bytes(root: str = "/") -> int | None:
    """Return the least memory limit of the control groups that hold this process, in bytes.

    None when there is none, or the system does not tell.
    """
    limits = []
    for text in _walk(root, "memory", "memory.max", "memory.limit_in_bytes"):
        number = _positive(text)
        if number is not None and number < _UNLIMITED:
            limits.append(number)
    return min(limits, default=None)


def oom_kill_count(root: str = "/") -> int | None:
    """Return how many processes the kernel has killed for want of memory, so far.

    Counted in this process's own control group (v2 counts the groups below it, too). None where
    the system does not tell. Compare two readings; one alone says nothing.
    """
    for text in _walk(root, "memory", "memory.events", "memory.oom_control"):
        for line in text.splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill" and value.strip().isdigit():
                return int(value)
    return None


def resident_bytes(pid: int, root: str = "/") -> int | None:
    """Return the resident memory of a process in bytes; None if it is gone or cannot be read."""
    text = _read(os.path.join(root, "proc", str(pid), "statm"))
    try:
        return int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE") if text else None
    except (IndexError, ValueError):
        return None


def _affinity() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        return os.cpu_count() or 1


def _positive(text: str | None) -> int | None:
    try:
        number = int(text or "")
    except ValueError:
        return None
    return number if number > 0 else None


def _read(path: str) -> str | None:
    try:
        with open(path) as file:
            return file.read()
    except (OSError, UnicodeDecodeError):
        return None


def _cpu_quotas(root: str) -> Iterator[float]:
    for text in _walk(root, "cpu", "cpu.max", ""):
        quota, _, period = text.partition(" ")
        if quota.isdigit() and _positive(period):
            yield int(quota) / int(period)
    for folder in _folders(root, "cpu"):
        number = _positive(_read(os.path.join(folder, "cpu.cfs_quota_us")))
        per = _positive(_read(os.path.join(folder, "cpu.cfs_period_us")))
        if number and per:
            yield number / per


def _walk(root: str, controller: str, unified: str, legacy: str) -> Iterator[str]:
    """The contents of a file in this process's control group and all above it, innermost first."""
    for kind, name in (("", unified), (controller, legacy)):
        for folder in _folders(root, kind) if name else ():
            text = _read(os.path.join(folder, name))
            if text is not None:
                yield text


def _folders(root: str, controller: str) -> Iterator[str]:
    """The control group of this process, then those above it; `controller` "" for version 2.

    A group's path counts from the root of the hierarchy, but what is mounted may begin further
    down (in a container): the mount's own root is taken off. Where the path does not lie below
    that (the group is outside of what we can see), the mount itself is the best that is known.
    """
    path = _group(root, controller)
    mount = _mount(root, controller)
    if path is None or mount is None:
        return
    top, point = mount
    base = os.path.join(root, point.lstrip("/"))
    if top != "/":
        path = path[len(top) :] if (path + "/").startswith(top + "/") else "/"
    parts = [part for part in path.split("/") if part]
    if ".." in parts:  # outside of our cgroup namespace
        parts = []
    for length in range(len(parts), -1, -1):
        yield os.path.join(base, *parts[:length])


def _group(root: str, controller: str) -> str | None:
    """The path in /proc/self/cgroup, whose lines are ``number:controllers:path``."""
    for line in (_read(os.path.join(root, "proc/self/cgroup")) or "").splitlines():
        fields = line.split(":", 2)
        if len(fields) == 3 and controller in fields[1].split(","):
            return fields[2]
    return None


def _mount(root: str, controller: str) -> tuple[str, str] | None:
    """Root and mount point of the hierarchy, from mountinfo: ``id parent dev ROOT POINT options
    [tags] - TYPE source SUPER-OPTIONS``."""
    for line in (_read(os.path.join(root, "proc/self/mountinfo")) or "").splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")
        if len(fields) < 5 or len(kind) < 3:
            continue
        right = kind[0] == "cgroup" and controller in kind[2].split(",")
        if right if controller else kind[0] == "cgroup2":
            return _unescape(fields[3]), _unescape(fields[4])
    return None


def _unescape(path: str) -> str:
    for code in ("040", "011", "012", "134"):  # space, tab, newline, backslash
        path = path.replace("\\" + code, chr(int(code, 8)))
    return path
