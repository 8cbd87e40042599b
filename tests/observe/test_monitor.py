"""``Pool(monitor=True)`` and ``lightwork top``: a live view, for this user alone."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lightwork import Pool
from lightwork.observe import monitor
from tests.observe import tasks
from tests.scripts import Ran, environment, run_command, run_script


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Away from pools of other tests; short, for names of sockets are."""
    folder = Path("/tmp", f"lw-test-{os.getpid()}-{abs(hash(tmp_path)) % 10**6}")
    folder.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    yield
    for one in sorted(folder.rglob("*"), reverse=True):
        one.rmdir() if one.is_dir() else one.unlink()
    folder.rmdir()


def top(*words: str) -> Ran:
    return run_command([sys.executable, "-m", "lightwork", "top", *words])


def wait_until_running(pool: Pool, calls: int) -> None:
    end = time.monotonic() + 30
    while len([one for one in pool._engine.running() if one[1] is not None]) < calls:
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.parametrize("kind", ("processes", "threads"))
def test_a_look(kind: str) -> None:
    with Pool(kind, 2, monitor=True, name="mine") as pool:
        assert pool.submit(abs, 1).result() == 1
        futures = [pool.submit(tasks.hold, 3600.5 + n) for n in range(2)]
        wait_until_running(pool, 2)
        ((path, found),) = monitor.pools()
        assert (found["pid"], found["name"], found["kind"]) == (os.getpid(), "mine", kind)
        assert (found["done"], found["max_workers"], found["busy"]) == (1, 2, 2)
        calls = {one["call"] for one in found["workers"]}
        assert calls == {"hold(3600.5)", "hold(3601.5)"}
        assert {one["index"] for one in found["workers"]} == {1, 2}
        assert all(one["seconds"] >= 0 for one in found["workers"])
        assert all((one["pid"] is None) == (kind == "threads") for one in found["workers"])
        shown = top("mine", "--once")
        assert shown.status == 0, shown.err
        assert "2 of 2 workers busy" in shown.out
        assert "hold(3600.5), index 1" in shown.out
        as_json = top(str(os.getpid()), "--once", "--json")
        assert json.loads(as_json.out)["name"] == "mine"
        if kind == "processes":
            for future in futures:
                future.kill()
        else:
            tasks.release.set()
            assert [one.result() for one in futures] == [3600.5, 3601.5]
            tasks.release.clear()
    assert not os.path.exists(path)
    gone = top("mine")
    assert gone.status == 2
    assert "no pool 'mine' can be seen" in gone.err


def test_only_its_user_can_open_it() -> None:
    with Pool("threads", 1, monitor=True):
        ((path, _),) = monitor.pools()
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) == 0o700
        if os.geteuid() == 0:
            # Not even if the folder were open: the other side is asked who it is.
            os.chmod(os.path.dirname(path), 0o755)
            os.chmod(path, 0o666)
            code = (
                "import os, socket, sys; os.setuid(65534); s = socket.socket(socket.AF_UNIX);"
                "s.connect(sys.argv[1]); s.settimeout(10);\n"
                "try:\n    s.sendall(b'look\\n'); print(s.recv(100))\n"
                "except (BrokenPipeError, ConnectionResetError):\n    print(b'')"
            )
            os.chmod(os.path.dirname(os.path.dirname(path)), 0o755)
            ran = run_command([sys.executable, "-c", code, path])
            assert ran.out == "b''\n", ran.err


def test_a_folder_that_others_can_enter_is_refused() -> None:
    folder = Path(os.environ["XDG_RUNTIME_DIR"], f"lightwork-{os.geteuid()}")
    folder.mkdir(mode=0o777)
    folder.chmod(0o755)
    with pytest.raises(PermissionError, match="only its owner can enter"):
        Pool("threads", 1, monitor=True)
    assert "only its owner can enter" in top().err


def test_it_is_off_unless_asked_for() -> None:
    with Pool("threads", 1) as pool:
        pool.submit(abs, 1).result()
        assert not list(monitor.pools())
        assert "lightwork-monitor" not in [one.name for one in threading.enumerate()]


def test_what_a_killed_program_left_is_cleared_away() -> None:
    ran = run_script(
        """
        import os, signal
        from lightwork import Pool
        Pool("threads", 1, monitor=True)
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    assert ran.status == -signal.SIGKILL
    folder = monitor.folder()
    assert len(os.listdir(folder)) == 1
    assert not list(monitor.pools())
    assert not os.listdir(folder)


def test_who_connects_and_says_nothing_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "PATIENCE", 0.1)
    with Pool("threads", 1, monitor=True) as pool:
        path = pool._engine.at_end[0].__self__.path  # type: ignore[attr-defined]
        with socket.socket(socket.AF_UNIX) as silent, socket.socket(socket.AF_UNIX) as odd:
            silent.connect(path)
            odd.connect(path)
            odd.sendall(b"x" * 1000)
            found = None
            end = time.monotonic() + 30
            while found is None and time.monotonic() < end:
                found = monitor.ask(path)
            assert found is not None


def test_a_forked_child_leaves_the_socket_alone() -> None:
    ran = run_script(
        """
        import os
        from lightwork import Pool
        from lightwork.observe import monitor
        with Pool("threads", 1, monitor=True, name="parent") as pool:
            child = os.fork()
            if not child:
                pool.shutdown()
                os._exit(0)
            os.waitpid(child, 0)
            ((_, found),) = monitor.pools()
            print(found["pid"] == os.getpid())
        """,
        flags=["-W", "ignore::DeprecationWarning"],  # of fork() with threads, since 3.12
    )
    assert (ran.out, ran.err) == ("True\n", "")


@pytest.mark.parametrize("words", (["--interval", "0"], ["--interval", "x"], ["a", "b"]))
def test_wrong_use(words: list[str]) -> None:
    found = top(*words)
    assert found.status == 2
    assert "Traceback" not in found.err


def test_it_follows_a_run_and_ends_with_it(tmp_path: Path) -> None:
    (tmp_path / "tools.py").write_text(
        "import os, time\ndef work(path):\n    while not os.path.exists('go'): time.sleep(0.01)\n"
    )
    words = [sys.executable, "-m", "lightwork", "map", "tools.py:work", "a", "b", "c", "--quiet"]
    options: dict[str, Any] = {"cwd": tmp_path, "env": environment(), "stdout": subprocess.PIPE}
    with (
        subprocess.Popen([*words, "--monitor", "--name", "job"], **options) as run,
        subprocess.Popen([sys.executable, "-c", FOLLOW, "job"], text=True, **options) as look,
    ):
        assert look.stdout is not None
        for line in look.stdout:
            if "work('a'), index 0" in line:
                (tmp_path / "go").touch()
        assert look.wait(60) == 0
        assert run.wait(60) == 0


FOLLOW = """
import sys, time
from lightwork.cli import main
from lightwork.observe.monitor import pools
while not any(one["name"] == sys.argv[1] for _, one in pools()):
    time.sleep(0.01)
sys.exit(main(["top", sys.argv[1], "--interval", "0.05"]))
"""


def test_stacks_of_stuck_calls(tmp_path: Path) -> None:
    """With a stand-in for py-spy that prints what it prints."""
    spy = tmp_path / "py-spy"
    spy.write_text(
        "#!/bin/sh\n"
        'echo "Process $5: python"\n'
        "echo 'Thread 1 (idle): \"MainThread\"'\n"
        "echo '    nap (tests/observe/tasks.py:5)'\n"
        "echo '    _call (lightwork/backends/processes/loop.py:1)'\n"
    )
    spy.chmod(0o755)
    script = (
        "import sys; from lightwork.cli import main, top\n"
        "top._STUCK = 0.0\nsys.exit(main(['top', '--once', '--stacks']))"
    )
    with Pool("processes", 1, monitor=True) as pool:
        future = pool.submit(tasks.nap, 3600)
        wait_until_running(pool, 1)
        path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
        shown = run_command([sys.executable, "-c", script], env=path)
        assert shown.status == 0, shown.err
        assert "nap (tests/observe/tasks.py:5)" in shown.out
        assert "loop.py" not in shown.out
        without = run_command([sys.executable, "-c", script], env={"PATH": "/nowhere"})
        assert without.status == 2
        assert "pip install py-spy" in without.err
        future.kill()
