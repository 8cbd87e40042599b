"""Progress: terminal, notebook, file, or an object of one's own; and prints that do not tear it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lightwork import MissingExtra, Pool
from lightwork.observe import bars, progress
from tests.scripts import environment, run_script

pytestmark = pytest.mark.leaves("thread tqdm_monitor")  # tqdm keeps one for its bars


class Own:
    """A bar of the user's."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.closed = 0

    def update(self, n: int) -> None:
        self.steps.append(n)

    def close(self) -> None:
        self.closed += 1


def odd_only(x: int) -> int:
    if x % 2 == 0:
        raise ValueError(x)
    return x


def test_an_object_of_ones_own() -> None:
    own = Own()
    with Pool("threads", 2) as pool:
        assert len(list(pool.map(odd_only, range(10), progress=own, on_error="return"))) == 10
    assert (sum(own.steps), own.closed) == (10, 1)


def test_a_file_gets_the_lines(tmp_path: Path) -> None:
    with Pool("threads", 2) as pool, open(tmp_path / "log", "w") as file:
        list(pool.map(odd_only, range(10), progress=file, on_error="skip"))
    text = (tmp_path / "log").read_text()
    assert "10/10" in text
    assert "failed=5" in text
    assert "it/s" in text


def test_totals_where_they_are_known(tmp_path: Path) -> None:
    with Pool("threads", 2) as pool, open(tmp_path / "log", "w") as file:
        list(pool.map(abs, (n for n in range(7)), progress=file))
    text = (tmp_path / "log").read_text()
    assert "7it" in text
    assert "/7" not in text


def test_silent_where_nobody_looks(capfd: pytest.CaptureFixture[str]) -> None:
    with Pool("threads", 2) as pool:
        list(pool.map(abs, range(10), progress=True))
        list(pool.map(abs, range(10), progress="label"))
    assert capfd.readouterr().err == ""
    with pytest.raises(TypeError, match="progress must be True, a label, an open file"):
        with Pool("threads", 2) as pool:
            pool.map(abs, range(10), progress=3)


def test_a_notebook_gets_its_widget_or_text(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    shell = SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    assert progress.in_a_notebook()
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with Pool("threads", 2) as pool:
        list(pool.map(abs, range(10), progress="cell"))
    assert "cell: 100%" in capfd.readouterr().err
    made: list[Any] = []

    class Widget(Own):
        def __init__(self, **options: Any) -> None:
            super().__init__()
            made.append((self, options))

        def set_postfix(self, **values: Any) -> None:
            self.values = values

    monkeypatch.setitem(sys.modules, "ipywidgets", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "tqdm.notebook", SimpleNamespace(tqdm=Widget))
    with Pool("threads", 2) as pool:
        list(pool.map(odd_only, range(4), progress="cell", on_error="skip"))
    ((widget, options),) = made
    assert (sum(widget.steps), widget.closed, widget.values["failed"]) == (4, 1, 2)
    assert (options["total"], options["desc"], options["disable"]) == (4, "cell", False)


def test_without_tqdm_it_says_what_to_install() -> None:
    ran = run_script(
        """
        import sys
        sys.modules["tqdm"] = None
        from lightwork import MissingExtra, Pool
        with Pool("serial") as pool:
            try:
                pool.map(abs, [1], progress=True)
            except MissingExtra as error:
                print(error)
        """
    )
    assert "lightwork[progress]" in ran.out
    assert issubclass(MissingExtra, ImportError)


SCRIPT = """
import sys
from lightwork import Pool

def noisy(x):
    print(f"line {x}")
    sys.stdout.reconfigure(line_buffering=True)  # as any stream
    print(f"error {x}", file=sys.stderr)
    return x

with Pool("processes", 2) as pool:
    assert list(pool.map(noisy, range(50), progress="bar")) == list(range(50))
"""


def on_a_terminal(command: list[str], **extra: str) -> str:
    """What a program shows on a terminal of its own."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    env = {name: value for name, value in environment().items() if name != "CI"}
    env |= {"COLUMNS": "80", **extra}
    try:
        process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env)
        os.close(theirs)
        shown = b""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if not select.select([ours], [], [], 1)[0]:
                continue
            try:
                data = os.read(ours, 65536)
            except OSError:  # Linux's way to say that the other side is closed
                break
            if not data:
                break
            shown += data
        else:
            process.kill()
        assert process.wait(10) == 0, shown
    finally:
        os.close(ours)
    return shown.decode()


def lines_on_screen(shown: str) -> list[str]:
    """The lines as a terminal ends up with them: ``\\r`` begins the line anew."""
    lines = []
    for line in shown.replace("\r\n", "\n").split("\n"):
        screen = ""
        for part in line.split("\r"):
            part = re.sub("\x1b\\[[A-Z]", "", part)
            screen = part + screen[len(part) :]
        lines.append(screen.rstrip())
    return lines


NOISY = SCRIPT.partition("with Pool")[0]
LOGGED = SCRIPT.replace('"processes", 2', '"processes", 2, capture="log"').replace(
    "with Pool", 'logging.basicConfig(level=logging.INFO, format="%(message)s")\nwith Pool'
)


@pytest.mark.parametrize("script", (SCRIPT, "import logging\n" + LOGGED), ids=("prints", "records"))
def test_nothing_tears_the_bar(script: str, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(script)
    found = lines_on_screen(on_a_terminal([sys.executable, str(tmp_path / "script.py")]))
    for n in range(50):
        assert f"line {n}" in found
        assert f"error {n}" in found
    assert any(line.startswith("bar: 100%") and "50/50" in line for line in found)


@pytest.mark.parametrize("kind", ("processes", "threads", "serial"))
def test_nothing_tears_the_bar_of_the_command(kind: str, tmp_path: Path) -> None:
    """Not what the function prints, and not the results."""
    (tmp_path / "noisy.py").write_text(NOISY)
    target = f"{tmp_path / 'noisy.py'}:noisy"
    words = [sys.executable, "-m", "lightwork", "map", target, "--range", "0:50", "--kind", kind]
    shown = on_a_terminal(words)
    assert "/50 [" in shown
    found = lines_on_screen(shown)
    for n in range(50):
        assert f"line {n}" in found
        assert f"error {n}" in found
        assert f'{{"index": {n}, "item": {n}, "result": {n}}}' in found


def test_a_line_without_an_end_is_not_lost(capsys: pytest.CaptureFixture[str]) -> None:
    stream = bars.Above(sys.stdout)
    print("one\ntwo", end="", file=stream)
    assert capsys.readouterr().out == "one\n"
    stream.end()
    assert capsys.readouterr().out == "two\n"


def test_in_ci_there_is_no_bar(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    shown = on_a_terminal([sys.executable, str(tmp_path / "script.py")], CI="1")
    assert "bar" not in shown
    assert "line 49" in shown
