"""``lightwork doctor``: what pools have to work with on this system, and what is wrong with it.

Everything is read; the one thing that is tried is a pool of one worker process. Files of the
system are read below `root`, so that tests can show others.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import sys
from dataclasses import dataclass
from typing import Any

from ..backends.processes import limits
from ..backends.processes.launch import START_METHODS
from .gil import has_gil

__all__ = ["Report", "examine"]

EXTRAS = {
    "progress": "tqdm",
    "numpy": "numpy",
    "threads of BLAS": "threadpoolctl",
    "psutil": "psutil",
    "plot": "matplotlib",
    "joblib": "joblib",
    "dask": "distributed",
    "ray": "ray",
}
"""What is optional, and the module that it is."""

FEW_DESCRIPTORS = 256
SMALL_SHM = 64 * 2**20


@dataclass(frozen=True)
class Report:
    """What was found: `facts` by section, and what is wrong, each with what to do about it."""

    facts: dict[str, dict[str, str]]
    problems: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {"facts": self.facts, "problems": list(self.problems)}

    def __str__(self) -> str:
        parts = []
        for section, facts in self.facts.items():
            width = max(map(len, facts))
            lines = [f"  {name:{width}}  {value}" for name, value in facts.items()]
            parts.append("\n".join([section, *lines]))
        if self.problems:
            parts.append("\n".join(["wrong", *(f"  - {one}" for one in self.problems)]))
        else:
            parts.append("nothing is wrong")
        return "\n\n".join(parts)


def examine(root: str = "/", *, try_workers: bool = True) -> Report:
    """Look around. `try_workers`: start a worker process, too."""
    problems: list[str] = []
    facts = {
        "processors": _processors(root, problems),
        "python": _python(problems),
        "system": _system(root, problems),
        "native threads": _native(problems),
        "optional parts": _extras(),
    }
    if try_workers:
        facts["a worker process"] = _worker(problems)
    return Report(facts, tuple(problems))


def _processors(root: str, problems: list[str]) -> dict[str, str]:
    cores = os.cpu_count() or 1
    usable = limits.usable_cpus(root)
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    quotas = [f"{quota:g}" for quota in limits._cpu_quotas(root)]
    if any(float(quota) < 1 for quota in quotas):
        problems.append(
            f"the control group allows {min(map(float, quotas)):g} of one processor: "
            "more than one worker process gains nothing; raise the quota"
        )
    bound = os.environ.get(limits.MAX_WORKERS)
    if bound is not None and limits._positive(bound) is None:
        problems.append(
            f"{limits.MAX_WORKERS}={bound!r} is not a whole number greater than 0, and is ignored"
        )
    try:
        load = f"{os.getloadavg()[0]:.2f}"
    except OSError:
        load = "unknown"
    return {
        "of the machine": str(cores),
        "by affinity": str(affinity),
        "by control group": ", ".join(quotas) or "no quota",
        limits.MAX_WORKERS: bound or "not set",
        "worker processes of a pool": str(usable),
        "threads of a pool": f"{min(32, usable + 4)}; Pool() as many as pay",
        "busy now (load of a minute)": load,
    }


def _python(problems: list[str]) -> dict[str, str]:
    if os.name != "posix":
        problems.append('worker processes need a POSIX system: use Pool("threads") here')
    main = sys.modules.get("__main__")
    return {
        "version": f"{platform.python_implementation()} {platform.python_version()}",
        "build": " ".join(platform.python_build()),
        "GIL": "on" if has_gil() else "off: threads compute in parallel",
        "start methods": ", ".join(START_METHODS) + " (the first is used)",
        "main module": getattr(main, "__file__", None) or "interactive; fine, it is not imported",
    }


def _system(root: str, problems: list[str]) -> dict[str, str]:
    found = {"kernel": f"{platform.system()} {platform.release()}"}
    memory = limits.memory_limit_bytes(root)
    found["memory"] = "no limit" if memory is None else f"at most {memory / 2**20:,.0f} MiB"
    found["/dev/shm"] = _shm(root, problems)
    try:
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    except (ImportError, OSError):
        found["descriptors"] = "unknown"
    else:
        used = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
        found["descriptors"] = f"{used} of {soft} in use (at most {hard})"
        if soft - used < FEW_DESCRIPTORS:
            problems.append(
                f"only {soft - used} file descriptors are left: a pool needs three for each worker "
                "process; raise the limit with `ulimit -n`"
            )
    found["semaphores"] = _semaphores(problems)
    return found


def _shm(root: str, problems: list[str]) -> str:
    path = os.path.join(root, "dev/shm")
    try:
        status = os.statvfs(path)
    except OSError as error:
        return f"not there ({error.strerror}); pools do not need it"
    free, size = status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize
    if not os.access(path, os.W_OK):
        problems.append("/dev/shm cannot be written to: other libraries' shared memory fails there")
    elif free < SMALL_SHM // 4:
        problems.append(
            f"/dev/shm has {free / 2**20:.0f} MiB left: pools do not need it, but other libraries "
            "do (docker run --shm-size=1g)"
        )
    return f"{free / 2**20:,.0f} of {size / 2**20:,.0f} MiB free; pools do not need it"


def _semaphores(problems: list[str]) -> str:
    try:
        import multiprocessing

        multiprocessing.get_context("spawn").Lock()
    except (ImportError, OSError) as error:
        problems.append(f"no semaphore can be made ({error}): shared locks will not work")
        return f"none: {error}"
    return "can be made"


def _numpy(problems: list[str]) -> bool:
    """Load NumPy, if it is there: only then can its BLAS be asked for its threads."""
    if importlib.util.find_spec("numpy") is None:
        return False
    try:
        importlib.import_module("numpy")
    except Exception as error:
        problems.append(f"NumPy is installed, and cannot be imported: {error}")
        return False
    return True


def _native(problems: list[str]) -> dict[str, str]:
    found = {name: os.environ[name] for name in limits.NATIVE_NAMES if name in os.environ}
    share = limits.share_env(limits.usable_cpus())
    shown = {"set here": ", ".join(f"{k}={v}" for k, v in found.items()) or "nothing"}
    shown["in each worker"] = f"{share[limits.CPU_SHARE]} (its share), where you have set nothing"
    if importlib.util.find_spec("threadpoolctl") and _numpy(problems):
        from threadpoolctl import threadpool_info

        for one in threadpool_info():
            name = f"{one['internal_api']} {one.get('version') or ''}".strip()
            shown[name] = f"{one['num_threads']} threads"
    return shown


def _extras() -> dict[str, str]:
    def found(module: str) -> str:
        if importlib.util.find_spec(module) is None:
            return f"no {module}"
        from importlib import metadata

        try:
            return f"{module} {metadata.version(module)}"
        except metadata.PackageNotFoundError:
            return module

    return {name: found(module) for name, module in EXTRAS.items()}


def _worker(problems: list[str]) -> dict[str, str]:
    import time

    from lightwork import Pool

    try:
        begin = time.perf_counter()
        with Pool("processes", 1) as pool:
            pool.submit(os.getpid).result(timeout=30)
            first = time.perf_counter() - begin
            begin = time.perf_counter()
            for _ in range(100):
                pool.submit(os.getpid).result(timeout=30)
            each = (time.perf_counter() - begin) / 100
    except Exception as error:
        cause = error.__cause__ or error
        problems.append(f"a worker process cannot be started: {type(cause).__name__}: {cause}")
        return {"started": "no"}
    return {
        "started": f"yes, first result after {first * 1e3:.0f} ms",
        "a call there and back": f"{each * 1e3:.2f} ms",
    }
