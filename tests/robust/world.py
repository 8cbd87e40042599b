"""What a test sees of the world: processes, descriptors, shared memory; and scripts it runs."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import lightwork

ROOT = Path(__file__).parents[2]
SOURCE = Path(lightwork.__file__).parents[1]
MARK = "LIGHTWORK_TEST_MARK"


def descriptors() -> list[str]:
    """What this process has open, as text."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one by which the folder was read
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return sorted(found)


def marked(mark: str) -> dict[int, str]:
    """The processes that inherited a mark in their environment, and are no zombies."""
    found = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError):
            if f"{MARK}={mark}\0".encode() not in Path(f"/proc/{name}/environ").read_bytes():
                continue
            state = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[0]
            if state != "Z":
                command = Path(f"/proc/{name}/cmdline").read_bytes().replace(b"\0", b" ")
                found[int(name)] = command.decode(errors="replace")
    return found


def shared_memory() -> set[str]:
    """Segments and semaphores with names."""
    return set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()


class Script:
    """A fresh interpreter that runs a program; all that it starts can be found, and is ended."""

    def __init__(self, source: str, folder: Path, *args: str) -> None:
        self.mark = uuid.uuid4().hex
        self.temporary = folder / f"tmp-{self.mark[:6]}"
        self.temporary.mkdir()
        program = folder / f"script-{self.mark[:6]}.py"
        program.write_text(source)
        self.process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", str(program), *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={
                **os.environ,
                "PYTHONPATH": f"{SOURCE}:{ROOT}",
                "TMPDIR": str(self.temporary),
                MARK: self.mark,
            },
        )

    def line(self) -> str:
        """The next line that it prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def finish(self, timeout: float = 60) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=timeout)
        return self.process.returncode, out, err

    def others(self) -> dict[int, str]:
        """The processes that it started, as far as they live."""
        return {pid: text for pid, text in marked(self.mark).items() if pid != self.process.pid}

    def end(self) -> None:
        for pid in marked(self.mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.communicate(timeout=20)


@contextlib.contextmanager
def script(source: str, folder: Path, *args: str) -> Iterator[Script]:
    one = Script(source, folder, *args)
    try:
        yield one
    finally:
        one.end()
