"""What a new process must know to look like this one: the body of a request."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import Any

from .launch import Spec

__all__ = ["make_body"]


def make_body(spec: Spec, method: str, modules: Sequence[str] = ()) -> dict[str, Any]:
    """Describe the process that `spec` asks for; `modules`: those to be imported ahead."""
    cwd: str | None
    """What the new process must know to look like this one."""
    try:
        cwd = os.getcwd()
    except OSError:  # removed under us
        cwd = None
    return {
        "method": method,
        "entry": spec.entry,
        "config": bytes(spec.config),
        "modules": _importable(modules),
        "env": {**os.environ, **spec.env},
        "path": search_path(),
        "argv": [str(argument) for argument in sys.argv],
        "cwd": cwd,
        "affinity": _affinity(),
        "limits": _limits(),
        "authkey": _authkey(),
    }


def search_path() -> list[str]:
    """``sys.path``, without what cannot travel (the import system ignores it as well)."""
    entries: list[object] = list(sys.path)
    return [str(entry) for entry in entries if isinstance(entry, str)]


def _importable(names: Sequence[str]) -> list[tuple[str, str]]:
    """(name, file) of those that this process has imported, and another could, too."""
    found = []
    for name in names:
        module = sys.modules.get(name)
        file = getattr(module, "__file__", None)
        if name != "__main__" and getattr(module, "__spec__", None) and isinstance(file, str):
            found.append((name, file))
    return found


def _affinity() -> list[int]:
    """The main thread's: another thread may have been tied to a processor of its own."""
    try:
        return sorted(os.sched_getaffinity(os.getpid()))
    except (AttributeError, OSError):
        return []


def _limits() -> dict[int, tuple[int, int]]:
    """Resource limits, if this program may have changed any after the server started."""
    resource = sys.modules.get("resource")
    if resource is None:
        return {}
    names = [name for name in dir(resource) if name.startswith("RLIMIT_")]
    limits = {}
    for which in {getattr(resource, name) for name in names}:
        with contextlib.suppress(OSError, ValueError):
            limits[which] = resource.getrlimit(which)
    return limits


def _authkey() -> bytes | None:
    process = sys.modules.get("multiprocessing.process")
    return bytes(process.current_process().authkey) if process is not None else None
