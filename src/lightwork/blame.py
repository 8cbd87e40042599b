"""The texts and exceptions by which a failure is charged to the one call that caused it."""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .backends.base import Death
from .errors import LightworkError, PoolBroken, TaskKilled, TaskTimeout

if TYPE_CHECKING:
    from .errors import WorkerCrashed

__all__ = ["annotate", "broken", "ended", "function_name", "shorten"]

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 60
_repr.maxlist = _repr.maxtuple = _repr.maxset = 4
_repr.maxdict = 3


def shorten(value: object) -> str:
    """A short ``repr`` that never fails, whatever the object's own does."""
    try:
        return _repr.repr(value)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return f"<{type(value).__name__} object, whose repr() raises {type(error).__name__}>"


def shorten_call(what: object) -> str:
    """The arguments of a call, as they would be written."""
    if not (isinstance(what, tuple) and len(what) == 2 and isinstance(what[1], dict)):
        return shorten(what)
    args, kwargs = what
    parts = [shorten(one) for one in args[:6]] + (["..."] if len(args) > 6 else [])
    parts += [f"{name}={shorten(kwargs[name])}" for name in list(kwargs)[:6]]
    return ", ".join(parts + (["..."] if len(kwargs) > 6 else []))


def function_name(fn: Callable[..., Any]) -> str:
    """The name by which people know the function."""
    inner = fn
    while (deeper := getattr(inner, "func", None)) is not None and inner is not deeper:
        inner = deeper  # functools.partial
    return str(getattr(inner, "__qualname__", None) or type(inner).__qualname__)


def _call_text(fn: Callable[..., Any], what: object, index: int) -> str:
    return f"{function_name(fn)}({shorten_call(what)}), index {index}"


def annotate(
    error: BaseException,
    fn: Callable[..., Any],
    what: object,
    index: int,
    attempt: int,
    worker: Any,
) -> None:
    """Add to `error` the note that says which call raised it. Never raises."""
    note = f"lightwork: {_call_text(fn, what, index)}, attempt {attempt}, worker {worker}"
    try:
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)
    except Exception:
        pass  # an exception that refuses notes stays without


def _bytes(size: int | None) -> str:
    if size is None:
        return "unknown"
    return f"{size / 2**20:,.0f} MiB"


def _crash_text(death: Death) -> str:
    if death.signal:
        text = f"was killed by {death.signal}"
    elif death.exitcode is not None:
        text = f"exited with code {death.exitcode}"
    else:
        text = "disappeared"
    if death.oom_killed:
        text += ", while the kernel's out-of-memory killer was at work"
    return text


def ended(
    how: str,
    death: Death | None,
    fn: Callable[..., Any],
    what: object,
    index: int,
    attempt: int,
    *,
    timeout: float | None = None,
    memory_limit: int | None = None,
) -> LightworkError:
    """The exception for a call that ended as `how` says (see ``core.commands.Ended``)."""
    call = _call_text(fn, what, index)
    if how == "timed-out":
        late = TaskTimeout(f"{call} ran longer than its time limit of {timeout:g} s; it was ended")
        late.timeout = timeout
        return late
    if how == "killed":
        return TaskKilled(f"{call} was killed")
    from .errors import MemoryLimitExceeded, WorkerCrashed  # loaded with the process backend

    death = death or Death("crashed", None)
    crash: WorkerCrashed
    if how == "over-memory":
        crash = MemoryLimitExceeded(
            f"{call} went over the memory limit of {_bytes(memory_limit)}: its worker "
            f"(pid {death.pid}) used {_bytes(death.used_memory)}, and was ended"
        )
        crash.limit, crash.used = memory_limit, death.used_memory
    else:
        crash = WorkerCrashed(
            f"the worker (pid {death.pid}) {_crash_text(death)} while it ran {call}, "
            f"attempt {attempt}; peak memory {_bytes(death.peak_memory)}"
            + (f"\n{death.traceback.rstrip()}" if death.traceback else "")
        )
    crash.pid, crash.signal, crash.exitcode = death.pid, death.signal, death.exitcode
    crash.function, crash.index, crash.arguments = function_name(fn), index, shorten_call(what)
    crash.attempt, crash.peak_memory = attempt, death.peak_memory
    crash.oom_killed, crash.traceback = death.oom_killed, death.traceback
    return crash


def broken(error: BaseException | None, *, initializer: bool) -> PoolBroken:
    """The exception for everything in a pool that cannot start workers."""
    if initializer:
        text = f"the initializer of the workers failed: {type(error).__name__}: {error}"
    else:
        text = f"workers cannot be started: {type(error).__name__}: {error}"
    result = PoolBroken(text)
    result.__cause__ = error
    return result
