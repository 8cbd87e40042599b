"""``lightwork top``: a live view of the pools that are monitored."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from lightwork.observe.monitor import pools

from .problem import WrongUse

__all__ = ["fill_parser", "run"]

_STUCK = 10.0
"""Seconds that a call runs before --stacks shows where it is."""

_NARROW, _WIDE = 6, 13
"""Columns for a worker: a number, or its kind, too."""

_STACK_TIME = 20.0
"""Seconds that py-spy may take."""

MORE = """\
A pool can be seen when it asks for it: Pool(monitor=True), lightwork map --monitor. Only the user
who runs it can look.

examples:
  lightwork top
  lightwork top thumbnails --interval 0.5
  lightwork top 12345 --once --json
  lightwork top --stacks
"""


def fill_parser(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add = parser.add_argument
    add("which", metavar="PID|NAME", nargs="?", help="a process, or a pool's name; else all pools")
    add("--once", action="store_true", help="show it once, and end")
    add("--json", action="store_true", help="as JSON, an object a line for each pool")
    add("--interval", metavar="S", type=float, default=1.0, help="seconds between two looks (1)")
    add(
        "--stacks",
        action="store_true",
        help=f"show where calls are that run for more than {_STUCK:.0f} s (needs py-spy)",
    )


def run(wanted: argparse.Namespace) -> int:
    """Show the pools until there are none, or Ctrl-C."""
    if not 0.05 <= wanted.interval <= 3600:
        raise WrongUse(f"--interval must be from 0.05 to 3600 seconds, not {wanted.interval:g}")
    if wanted.stacks and shutil.which("py-spy") is None:
        raise WrongUse("--stacks needs py-spy: pip install py-spy")
    redraw = sys.stdout.isatty() and not wanted.once and not wanted.json
    before: dict[str, tuple[float, int]] = {}
    shown = 0
    while True:
        try:
            found = [(path, one) for path, one in pools() if _is_meant(one, wanted.which)]
        except PermissionError as error:
            raise WrongUse(str(error)) from None
        if not found:
            return _nothing(wanted.which, shown)
        lines = [json.dumps(one) for _, one in found]
        if not wanted.json:
            lines = list(_view(found, before, wanted.stacks))
        _show(lines, redraw)
        shown += 1
        if wanted.once:
            return 0
        now = time.monotonic()
        before = {path: (now, one.get("done", 0)) for path, one in found}
        time.sleep(wanted.interval)


def _nothing(which: str | None, shown: int) -> int:
    if shown:
        return 0  # what was looked at has ended
    what = f"no pool {which!r} can be seen" if which else "no pool can be seen"
    raise WrongUse(f"{what}: is it running, yours, and monitored? (Pool(monitor=True), --monitor)")


def _is_meant(pool: dict[str, Any], which: str | None) -> bool:
    return which is None or which in (str(pool.get("pid")), pool.get("name"))


def _show(lines: Iterable[str], redraw: bool) -> None:
    text = "\n".join(lines) + "\n"
    if redraw:
        size = shutil.get_terminal_size()
        cut = [line[: size.columns - 1] for line in text.splitlines()[: size.lines - 1]]
        text = "\x1b[H\x1b[2J" + "\n".join(cut) + "\n"
    sys.stdout.write(text)
    sys.stdout.flush()


def _view(
    found: Sequence[tuple[str, dict[str, Any]]],
    before: dict[str, tuple[float, int]],
    stacks: bool,
) -> Iterator[str]:
    now = time.monotonic()
    for path, pool in found:
        if "error" in pool:
            yield f"{path}: {pool['error']}"
            continue
        rate = ""
        if path in before:
            then, done = before[path]
            rate = f", {(pool['done'] - done) / max(now - then, 1e-6):,.0f} calls/s"
        yield (
            f"{pool['name']}  process {pool['pid']}, {pool['kind']}, up {_time(pool['seconds'])}: "
            f"{pool['busy']} of {pool['max_workers']} workers busy{rate}"
        )
        counts = [f"{pool['done']:,} done", f"{pool['queued']:,} waiting"]
        rare = ("failed", "retried", "crashed", "timed_out", "died")
        counts += [f"{pool[one]:,} {one.replace('_', ' ')}" for one in rare if pool.get(one)]
        yield "  " + ", ".join(counts)
        wide = _WIDE if pool["kind"] == "auto" else _NARROW
        yield f"  {'worker':>{wide}} {'process':>8} {'for':>9}  call"
        yield from _workers(pool, _stack if stacks else None)
        yield ""


def _workers(pool: dict[str, Any], stack: Callable[[int], list[str]] | None) -> Iterator[str]:
    wide = _WIDE if pool["kind"] == "auto" else _NARROW
    for worker in pool["workers"]:
        pid = worker["pid"]
        call, since = "-", ""
        if worker["call"] is not None:
            again = f", attempt {worker['attempt']}" if worker["attempt"] > 1 else ""
            call = f"{worker['call']}, index {worker['index']}{again}"
            since = "" if worker["seconds"] is None else _time(worker["seconds"])
        number = str(worker["number"])
        if worker["kind"] != pool["kind"]:  # a pool that has several
            number = f"{worker['kind']} {number}"
        yield f"  {number:>{wide}} {pid or '-':>8} {since:>9}  {call}"
        if stack is not None and pid and (worker["seconds"] or 0) > _STUCK:
            yield from (f"{'':27}{line}" for line in stack(pid))


def _stack(pid: int) -> list[str]:
    """Where a process is, by py-spy, the innermost frame first."""
    try:
        done = subprocess.run(
            ["py-spy", "dump", "--nonblocking", "--pid", str(pid)],
            capture_output=True,
            text=True,
            timeout=_STACK_TIME,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return [f"(py-spy: {error})"]
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        return [f"(py-spy: {why})"]
    lines = [line.strip() for line in done.stdout.splitlines() if line.startswith("    ")]
    ours = ("(lightwork/", "<module> (<string>:1)")  # the second began the worker
    return [line for line in lines if not any(one in line for one in ours)][:12]


def _time(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} m"
    return f"{minutes} m {rest:02} s" if minutes else f"{rest} s"
