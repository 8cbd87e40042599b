"""What is for eyes."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest

from lightwork.cli.progress import Report
from tests.scripts import environment


def test_the_summary(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(None, quiet=False)
    for _ in range(2000):
        report.success()
    for index in range(8):
        report.failure(index, "ValueError: x")
    report.finish("2 processes")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "lightwork: item 0: ValueError: x"
    assert lines[5] == "lightwork: (further failures are in the results only)"
    assert lines[6] == "lightwork: 2,000 done, 8 failed in 0.0 s (2 processes)"
    assert len(lines) == 7


def test_quiet_says_only_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(None, quiet=True)
    report.failure(0, "x")
    report.finish("2 processes")
    report.say("cannot write")
    assert capsys.readouterr().err == "lightwork: cannot write\n"


def on_a_terminal(*words: str, **variables: str) -> str:
    """What the command shows when its standard error is a terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    try:
        env = environment({"CI": "", "TERM": "xterm", **variables})
        with subprocess.Popen(
            [sys.executable, "-m", "lightwork", "map", "math:sqrt", "--range", "0:300", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=theirs,
            env=env,
        ) as process:
            os.close(theirs)
            shown = b""
            try:
                while data := os.read(ours, 4096):
                    shown += data
            except OSError:
                pass  # the terminal is gone with its last user
            assert process.wait(timeout=30) == 0
    finally:
        os.close(ours)
    return shown.decode()


def test_the_bar_is_for_terminals() -> None:
    pytest.importorskip("tqdm")
    assert "/300 [" in on_a_terminal()
    assert "/300 [" not in on_a_terminal(CI="true")
    assert on_a_terminal("--quiet") == ""
