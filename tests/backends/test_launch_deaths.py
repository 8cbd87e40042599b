"""Killing at every stage: workers, the server, the parent. Nothing is left, nothing is lost."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import select
import signal
import subprocess
import sys
import time

import pytest

from lightwork.backends.processes import link
from lightwork.backends.processes.launch import Exit, Spec
from tests.scripts import environment, run_script

from .launching import METHODS, Talker, alive, entry, gone, of, run, until_started, wait_for

pytestmark = pytest.mark.skipif(os.name != "posix", reason="POSIX processes")
every_method = pytest.mark.parametrize("method", METHODS)
served = pytest.mark.parametrize("method", ("forkserver", "spawn"))


def server_pid() -> int:
    """The pid of this process's fork server."""
    assert link._state.server is not None
    return link._state.server.pid


@every_method
def test_kill_at_once(method: str) -> None:
    """Before the pid is known, or the server has even read the request."""
    with of(method) as one:
        for _ in range(30):
            child = one.launch(Spec(entry("hang"), (2,)))
            child.kill()
            assert wait_for(child).exitcode == -signal.SIGKILL


@every_method
def test_kill_at_any_moment(method: str) -> None:
    with of(method) as one:
        for n in range(60):
            child = one.launch(Spec(entry("nothing")))
            select.select([], [], [], n * 1e-4)
            child.kill()
            child.kill()
            assert wait_for(child).exitcode in (0, -signal.SIGKILL)
            child.kill()


@every_method
def test_kill_of_a_stopped_worker(method: str) -> None:
    with of(method) as one:
        talker = Talker(one, "hang")
        talker.hear()
        os.kill(until_started(talker.child), signal.SIGSTOP)
        assert talker.kill().exitcode == -signal.SIGKILL


@every_method
@pytest.mark.parametrize("name", ["hang_with_child", "crash_with_child"])
def test_a_worker_takes_its_processes_along(method: str, name: str) -> None:
    with of(method) as one:
        talker = Talker(one, name)
        grandchild = talker.hear()
        if name == "hang_with_child":
            assert alive(grandchild)
            assert talker.kill().exitcode == -signal.SIGKILL
        else:
            assert talker.end().exitcode == -signal.SIGSEGV
        assert gone(grandchild)


@served
def test_the_server_is_killed(method: str) -> None:
    with of(method) as one:
        talkers = [Talker(one, name) for name in ("hang", "hang", "hog")]
        for talker in talkers:
            talker.hear()
        pids = [until_started(talker.child) for talker in talkers]
        os.kill(server_pid(), signal.SIGKILL)
        assert gone(*pids)
        for talker in talkers:
            assert talker.end() == Exit(None, None)
            talker.child.kill()
        assert run(method, "leave", 4).exitcode == 4


def test_the_server_is_killed_at_any_moment() -> None:
    """Every launch ends, with or without an exit code, and the next server is as good."""
    with of("forkserver") as one:
        for n in range(20):
            children = [one.launch(Spec(entry("nothing"))) for _ in range(3)]
            select.select([], [], [], n * 4e-3)
            server = server_pid()
            os.kill(server, signal.SIGKILL)
            for child in children:
                assert wait_for(child).exitcode in (0, None)
        assert gone(server)
        assert run("forkserver", "leave", 4).exitcode == 4


def test_the_server_ignores_polite_signals() -> None:
    run("forkserver", "nothing")
    before = server_pid()
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(before, number)
    assert run("forkserver", "leave", 3).exitcode == 3
    assert server_pid() == before
    assert os.getpgid(before) == before


def test_stopping_the_server() -> None:
    with of("forkserver") as one:
        talker = Talker(one, "hang")
        talker.hear()
        pid, server = until_started(talker.child), server_pid()
        link.stop_server()
        link.stop_server()
        assert not os.path.exists(f"/proc/{server}")
        assert gone(pid)
        assert talker.end() == Exit(None, None)


DOOMED = """
    import os, sys, threading, time
    from lightwork.backends.processes.launch import Spec, launcher
    from tests.backends.launching import Talker, until_started

    method, name, how = sys.argv[1:]
    one = launcher(method)
    talkers = []

    def launch():
        for _ in range(2):
            talkers.append(Talker(one, name))
            said = talkers[-1].hear()
            print(until_started(talkers[-1].child), *([said] if said != "up" else []), flush=True)
        print("done", flush=True)

    if "thread" in how:
        threading.Thread(target=launch).start()
        threading.Event().wait()
    launch()
    if "copy" in how and os.fork() == 0:
        # A copy of the parent that holds whatever it held.
        print(os.getpid(), "done", flush=True)
        time.sleep(600)
    time.sleep(600)
"""


@every_method
@pytest.mark.parametrize("name", ["hang", "hang_with_child", "hog"])
@pytest.mark.parametrize("how", ["plain", "thread", "copy"])
def test_nothing_outlives_the_parent(method: str, name: str, how: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", __import__("textwrap").dedent(DOOMED), method, name, how],
        stdout=subprocess.PIPE,
        text=True,
        env=environment({"PYTHONPATH": os.pathsep.join(sys.path)}),
    )
    assert parent.stdout is not None
    pids: list[int] = []
    copies: list[int] = []
    with parent:
        for _ in range(1 if how != "copy" else 2):
            for line in parent.stdout:
                *found, last = line.split()
                if last == "done":
                    copies += map(int, found)
                    break
                pids += map(int, [*found, last])
        try:
            assert len(pids) == (4 if name == "hang_with_child" else 2)
            assert all(map(alive, pids))
        finally:
            parent.kill()
        parent.wait()
        assert gone(*pids)
        for copy in copies:
            os.kill(copy, signal.SIGKILL)


@every_method
@pytest.mark.parametrize("end", ["pass", "sys.exit(3)", "os._exit(3)", "1/0", "os.kill(0, 15)"])
def test_the_interpreter_ends_while_workers_live(method: str, end: str) -> None:
    began = time.monotonic()
    ran = run_script(
        f"""
        import os, sys
        from tests.backends.launching import Talker, until_started
        from lightwork.backends.processes.launch import launcher
        one = launcher({method!r})
        talkers = [Talker(one, "hang") for _ in range(3)]
        for talker in talkers:
            talker.hear()
            print(until_started(talker.child), flush=True)
            talker.file.close()
        {end}
        """,
        flags=("-X", "dev", "-W", "error::ResourceWarning"),
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    status = {"pass": 0, "1/0": 1, "os.kill(0, 15)": -15}.get(end, 3)
    assert ran.status == status
    assert gone(*map(int, ran.out.split()))
    assert len(ran.out.split()) == 3
    assert ran.err == "" if end != "1/0" else ran.err.count("\n") < 6
    assert time.monotonic() - began < 20


@every_method
def test_out_of_descriptors(method: str) -> None:
    """The launch says so, gives back what it took, and goes on when there are some again."""
    run(method, "nothing")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = sorted(map(int, os.listdir("/proc/self/fd")))
    outcomes = set()
    with of(method) as one:
        for spare in range(12):
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(taken) + 20, before[1]))
            fillers: list[int] = []
            try:
                with contextlib.suppress(OSError):
                    while True:
                        fillers.append(os.open(os.devnull, os.O_RDONLY))
                for _ in range(spare):
                    os.close(fillers.pop())
                child = one.launch(Spec(entry("nothing")))
            except OSError as error:
                outcomes.add(errno.errorcode[error.errno or 0])
            else:
                outcomes.add("launched")
                wait_for(child)
            finally:
                for filler in fillers:
                    os.close(filler)
                resource.setrlimit(resource.RLIMIT_NOFILE, before)
            assert sorted(map(int, os.listdir("/proc/self/fd"))) == taken
        assert outcomes == {"EMFILE", "launched"}
        assert wait_for(one.launch(Spec(entry("nothing")))).exitcode == 0


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_of_the_users_has_a_server_of_its_own() -> None:
    with of("forkserver") as one:
        talker = Talker(one, "hang")
        talker.hear()
        mine = server_pid()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                talker.child.kill()  # not ours: without effect
                talker.child.poll()
                assert run("forkserver", "leave", 5).exitcode == 5
                assert server_pid() != mine
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert server_pid() == mine
        assert run("forkserver", "leave", 6).exitcode == 6
        assert talker.child.poll() is None
        assert talker.kill().exitcode == -signal.SIGKILL


@pytest.mark.parametrize("method", METHODS)
def test_the_user_reaps_all_children(method: str) -> None:
    """With a plain fork the worker is our own child, and the exit code may be taken from us."""
    ran = run_script(
        f"""
        import os, signal
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps
        from tests.backends.launching import run
        print(run({method!r}, "leave", 5).exitcode)
        """,
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert ran.err == ""
    assert ran.out.split() == (["None"] if method == "fork" else ["5"])


def test_hundreds_of_workers_at_once() -> None:
    with of("forkserver") as one:
        children = [one.launch(Spec(entry("leave"), (), b"%d" % (n % 7))) for n in range(300)]
        assert [wait_for(child).exitcode for child in children] == [n % 7 for n in range(300)]
