"""Runs programs in a fresh interpreter, as people do: from a file, ``-c``, stdin, a console."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import lightwork
from tests.robust.world import MARK, marked

SOURCE = str(Path(lightwork.__file__).parents[1])
HOWS = ("file", "-c", "stdin")


@dataclass
class Finished:
    """What came of a program."""

    status: int
    out: str
    err: str
    seconds: float

    def fine(self) -> Finished:
        """Check that it ended well, and printed nothing on standard error."""
        assert (self.status, self.err) == (0, ""), self
        return self


class Program:
    """A program that runs."""

    def __init__(
        self,
        source: str,
        folder: Path,
        *,
        how: str = "file",
        args: tuple[str, ...] = (),
        flags: tuple[str, ...] = (),
        variables: dict[str, str] | None = None,
    ) -> None:
        self.mark = os.urandom(8).hex()
        source = textwrap.dedent(source)
        command = [sys.executable, *flags]
        stdin: int = subprocess.DEVNULL
        if how == "file":
            path = folder / f"program_{self.mark}.py"
            path.write_text(source)
            command += [str(path)]
        elif how == "-c":
            command += ["-c", source]
        elif how == "stdin":
            command += ["-"]
            stdin = subprocess.PIPE
        else:  # console: statements, as they are typed
            command += ["-i", "-q"]
            stdin = subprocess.PIPE
        self.begun = time.monotonic()
        self.process = subprocess.Popen(
            [*command, *args],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": SOURCE, MARK: self.mark, **(variables or {})},
        )
        self.input = source if stdin == subprocess.PIPE else None

    def line(self) -> str:
        """The next line that it prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def interrupt(self) -> None:
        """Ctrl-C: the terminal sends SIGINT to the whole process group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def finish(self, timeout: float = 60) -> Finished:
        out, err = self.process.communicate(self.input, timeout=timeout)
        return Finished(self.process.returncode, out, err, time.monotonic() - self.begun)

    def left(self, within: float = 2.0) -> dict[int, str]:
        """Which of its processes are still there after a moment."""
        end = time.monotonic() + within
        while (found := marked(self.mark)) and time.monotonic() < end:
            time.sleep(0.02)
        return found

    def end(self) -> None:
        for pid in marked(self.mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self.process.poll() is None or self.process.stdout:
            with contextlib.suppress(ValueError):  # it was read to its end already
                self.process.communicate(timeout=20)


@contextlib.contextmanager
def program(source: str, folder: Path, **options: object) -> Iterator[Program]:
    """Start a program; end whatever is left of it."""
    one = Program(source, folder, **options)  # type: ignore[arg-type]
    try:
        yield one
    finally:
        one.end()


def run(source: str, folder: Path, timeout: float = 60, **options: object) -> Finished:
    """Run a program to its end, and check that none of its processes is left."""
    with program(source, folder, **options) as one:
        finished = one.finish(timeout)
        assert one.left() == {}
        return finished
