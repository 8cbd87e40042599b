"""What can be said about a worker that is gone."""

from __future__ import annotations

import signal

from ...core.events import Running

# Now, not when it is needed: there may be no descriptor left to open its file with.
from ...errors import WorkerCrashed
from ..base import Death
from . import limits, page
from .channel import Channel
from .launch import Exit

__all__ = ["autopsy", "start_error"]


def autopsy(channel: Channel, ended: Exit, oom_kills_before: int | None) -> Death:
    """Put together how a worker ended, once all that it had said was read."""
    code = ended.exitcode
    by_us = code == -signal.SIGKILL and channel.kill_how is not None
    how, used = _how(channel, code, by_us)
    killed = code == -signal.SIGKILL and not by_us
    running: Running | None = None if how == "retired" else channel.last_running()
    return Death(
        how=how,
        running=running,
        pid=channel.child.pid if channel.child is not None else None,
        signal=_signal_name(code),
        exitcode=code,
        peak_memory=ended.peak_memory,
        oom_killed=_oom_killed(oom_kills_before) if killed else False,
        traceback=channel.page.read_fault() if channel.page is not None else "",
        used_memory=used,
    )


def _how(channel: Channel, code: int | None, by_us: bool) -> tuple[str, int | None]:
    """What the death is reported as, and the memory that it was for.

    A worker that ended by itself just before we killed it shows another exit than SIGKILL: it was
    not our kill, so what that was for is not charged.
    """
    if channel.kill_how is not None and (by_us or code is None):
        return channel.kill_how, channel.used_memory
    cells = channel.page.cells if channel.page is not None else None
    if cells is not None and cells[page.PHASE] == page.OVER_MEMORY:
        return "over-memory", cells[page.USED]
    if channel.retiring:
        return "retired", None
    return "crashed", None


def _signal_name(code: int | None) -> str | None:
    if code is None or code >= 0:
        return None
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def _oom_killed(before: int | None) -> bool | None:
    """Whether the kernel's out-of-memory killer was at work since; None if it does not say."""
    now = limits.oom_kill_count()
    if now is None or before is None:
        return None
    return now > before


def start_error(channel: Channel, ended: Exit, error: OSError | None) -> tuple[BaseException, bool]:
    """Why a worker never became ready, and whether the next one would fare the same.

    An initializer that ends the process will do so again. SIGKILL and SIGTERM come from outside.
    """
    if error is not None:
        return error, False
    death = autopsy(channel, ended, None)
    cells = channel.page.cells if channel.page is not None else None
    in_initializer = cells is not None and cells[page.PHASE] == page.INITIALIZING
    if death.signal:
        words = f"was killed by {death.signal}"
    elif death.exitcode is not None:
        words = f"exited with code {death.exitcode}"
    else:
        words = "disappeared"
    stage = "while it ran the initializer" if in_initializer else "before it was ready"
    text = f"the worker (pid {death.pid}) {words} {stage}"
    crash = WorkerCrashed(f"{text}\n{death.traceback}".rstrip())
    crash.pid, crash.signal, crash.exitcode = death.pid, death.signal, death.exitcode
    crash.peak_memory, crash.oom_killed = death.peak_memory, death.oom_killed
    crash.traceback = death.traceback
    crash.function = "the initializer" if in_initializer else None
    outside = death.signal in ("SIGKILL", "SIGTERM") or death.exitcode is None
    return crash, in_initializer and not outside
