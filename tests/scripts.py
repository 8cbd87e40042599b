"""Runs a program in a fresh interpreter, as a user would start it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

__all__ = ["ROOT", "Ran", "environment", "run_command", "run_script"]

ROOT = Path(__file__).parent.parent


class Ran(NamedTuple):
    """How a program ended. `status`: its exit status, negative for a signal."""

    status: int
    out: str
    err: str


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Variables for a program that imports this tree's package."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    path = [str(ROOT / "src"), *filter(None, [kept.get("PYTHONPATH")])]
    return {**kept, "PYTHONPATH": os.pathsep.join(path), **(extra or {})}


def run_script(
    source: str,
    *,
    args: Sequence[str] = (),
    stdin: str | None = None,
    how: str = "file",
    flags: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    timeout: float = 60.0,
) -> Ran:
    """Run Python `source` in a fresh interpreter; return how it ended.

    Args:
        how: ``"file"``, ``"-c"`` or ``"stdin"`` (which the source then fills: no `stdin`).
        flags: of the interpreter, such as ``-X dev``.
        timeout: seconds; a program that takes longer is killed, and an AssertionError raised
            with what it had said.
    """
    source = textwrap.dedent(source).lstrip("\n")
    with tempfile.TemporaryDirectory() as folder:
        if how == "file":
            path = Path(folder, "script.py")
            path.write_text(source, encoding="utf-8")
            words = [str(path)]
        elif how == "-c":
            words = ["-c", source]
        elif how == "stdin":
            assert stdin is None, "the interpreter reads its source to the end first"
            words, stdin = ["-"], source
        else:
            raise ValueError(f"how must be 'file', '-c' or 'stdin', not {how!r}")
        command = [sys.executable, *flags, *words, *args]
        return run_command(command, stdin=stdin, env=env, timeout=timeout)


def run_command(
    command: Sequence[str],
    *,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | str | None = None,
    timeout: float = 60.0,
) -> Ran:
    """As `run_script`, for a whole command."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="surrogateescape",
        env=environment(env),
        cwd=cwd,
        start_new_session=True,  # so that all of it can be killed, and signals stay inside
    )
    with process:
        try:
            out, err = process.communicate(stdin, timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            raise AssertionError(
                f"not ended within {timeout:g} s: {command}\n-- out:\n{out}\n-- err:\n{err}"
            ) from None
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return Ran(process.returncode, out, err)
