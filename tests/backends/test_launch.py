"""Starting worker processes: what they get, what they are, how they end."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import pickle
import signal
import sys
import threading
from pathlib import Path

import pytest

from lightwork.backends.processes import link
from lightwork.backends.processes.boot import ENDED, ENDING, FAILED, RECORD, STARTED
from lightwork.backends.processes.launch import Exit, Spec, launcher
from lightwork.backends.processes.served import ServedChild

from .launching import METHODS, Talker, answer, entry, of, run, until_started, wait_for

pytestmark = pytest.mark.skipif(os.name != "posix", reason="POSIX processes")
every_method = pytest.mark.parametrize("method", METHODS)
served = pytest.mark.parametrize("method", ("forkserver", "spawn"))


@every_method
@pytest.mark.parametrize("code", [0, 1, 3, 255])
def test_exit_codes(method: str, code: int) -> None:
    assert run(method, "leave", code).exitcode == code
    assert run(method, "leave_at_once", code).exitcode == code


@every_method
def test_other_ends(method: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(method, "nothing").exitcode == 0
    assert run(method, "leave", None).exitcode == 0
    assert run(method, "leave", "a message").exitcode == 1
    assert run(method, "fail").exitcode == 1
    errors = capfd.readouterr().err
    assert "a message" in errors
    assert "ZeroDivisionError: on purpose" in errors


@every_method
def test_entry_that_does_not_exist(method: str, capfd: pytest.CaptureFixture[str]) -> None:
    with of(method) as one:
        assert wait_for(one.launch(Spec("no.such.module:entry"))).exitcode == 1
        assert wait_for(one.launch(Spec("json:no_such_entry"))).exitcode == 1
    errors = capfd.readouterr().err
    assert "ModuleNotFoundError" in errors
    assert "AttributeError" in errors


@every_method
@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGABRT", "SIGUSR1", "SIGSEGV"])
def test_signals(method: str, name: str) -> None:
    number = getattr(signal, name)
    assert run(method, "signal_self", int(number)).exitcode == -number


@every_method
def test_segmentation_fault(method: str) -> None:
    assert run(method, "read_nowhere").exitcode == -signal.SIGSEGV


@every_method
def test_peak_memory(method: str) -> None:
    small, large = (run(method, "fill_memory", size).peak_memory for size in (0, 200_000_000))
    assert small is not None
    assert large is not None
    assert 0 < small < 200_000_000 < large < 600_000_000


@every_method
def test_what_a_worker_is(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTWORK_TEST", "from the parent")
    monkeypatch.setattr(sys, "argv", ["the", "arguments"])
    seen = answer(method, "look_around", b"configured", env={"LIGHTWORK_MORE": "ä"})
    assert seen["group"] == seen["pid"]
    assert seen["config"] == "configured"
    assert seen["stdin"] == ""
    assert seen["main"] == []
    assert seen["main file"] is None
    assert seen["path"] == sys.path
    assert seen["argv"] == sys.argv
    assert seen["cwd"] == os.getcwd()
    assert seen["env"] == {**os.environ, "LIGHTWORK_MORE": "ä"}
    assert seen["sigint"]
    assert seen["sigterm"]
    assert seen["sigusr1"]
    assert seen["blocked"] == []
    assert seen["threads"] == 1
    assert seen["main thread"]


@every_method
def test_handlers_and_masks_of_the_parent_stay_there(method: str) -> None:
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    try:
        seen = answer(method, "look_around")
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == {signal.SIGUSR2}
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2})
        signal.signal(signal.SIGUSR1, before)
    assert seen["sigusr1"]
    assert seen["blocked"] == []


@served
def test_a_worker_has_no_descriptors_but_its_own(method: str, tmp_path: Path) -> None:
    with open(tmp_path / "inherited", "w") as file, of(method) as one:
        os.set_inheritable(file.fileno(), True)
        hanging = [Talker(one, "hang") for _ in range(3)]
        for talker in hanging:
            talker.hear()
        pipes = [os.pipe() for _ in range(4)]
        given = (pipes[3][1], pipes[0][0], pipes[1][1])
        child = one.launch(Spec(entry("look_around"), given))
        kinds = [os.readlink(f"/proc/self/fd/{fd}") for fd in given]
        line = os.read(pipes[3][0], 1 << 20)
        assert wait_for(child).exitcode == 0
        for talker in hanging:
            assert talker.kill().exitcode == -signal.SIGKILL
        for fd in (fd for pipe in pipes for fd in pipe):
            os.close(fd)
    seen = json.loads(line)
    assert len(seen["fds"]) == 3
    assert sorted(map(int, seen["descriptors"])) == [0, 1, 2, *sorted(seen["fds"])]
    assert [seen["descriptors"][str(fd)] for fd in seen["fds"]] == kinds


def test_a_fork_keeps_the_descriptors_of_the_user_but_not_ours(tmp_path: Path) -> None:
    with open(tmp_path / "kept", "w"), of("fork") as one, of("forkserver") as other:
        hanging = [Talker(one, "hang"), Talker(other, "hang")]
        for talker in hanging:
            talker.hear()
        talker = Talker(one, "look_around")
        said = talker.hear()
        given = os.fstat(talker.file.fileno())
        assert talker.end().exitcode == 0
        for talker in hanging:
            talker.kill()
    kept = list(said["descriptors"].values())
    assert str(tmp_path / "kept") in kept
    mine = f"pipe:[{given.st_ino}]"
    # The test's own end, and the worker's once: not the one that was dup'd for it.
    assert kept.count(mine) == 2
    assert "anon_inode:[pidfd]" not in kept


@served
def test_many_descriptors(method: str) -> None:
    pipes = [os.pipe() for _ in range(30)]
    writes = tuple(pipe[1] for pipe in pipes)
    with of(method) as one:
        child = one.launch(Spec(entry("look_around"), writes))
        line = os.read(pipes[0][0], 1 << 20)
        wait_for(child)
        with pytest.raises(ValueError, match="at most 200"):
            one.launch(Spec(entry("nothing"), (1,) * 201))
    for fd in (fd for pipe in pipes for fd in pipe):
        os.close(fd)
    assert len(json.loads(line)["fds"]) == 30


@every_method
def test_random_numbers_differ(method: str) -> None:
    assert len({answer(method, "look_around")["random"] for _ in range(4)}) == 4


@served
def test_the_parent_may_change_after_the_server_started(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(method, "nothing")
    (tmp_path / "lightwork_test_late.py").write_text("VALUE = 5\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert answer(method, "value_of", b"lightwork_test_late")[:2] == [False, 5]
    assert answer(method, "look_around")["cwd"] == str(tmp_path.resolve())


@every_method
def test_affinity_is_the_parents(method: str) -> None:
    before = os.sched_getaffinity(0)
    one = {min(before)}
    os.sched_setaffinity(0, one)
    try:
        assert set(answer(method, "look_around")["affinity"]) == one
    finally:
        os.sched_setaffinity(0, before)
    assert set(answer(method, "look_around")["affinity"]) == before


@every_method
def test_resource_limits_are_the_parents(method: str) -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert answer(method, "set_limit") == list(before)
    resource.setrlimit(resource.RLIMIT_NOFILE, (700, before[1]))
    try:
        assert answer(method, "set_limit") == [700, before[1]]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@every_method
def test_the_end_of_a_worker_is_that_of_an_interpreter(
    method: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with of(method) as one:
        talker = Talker(one, "tidy")
        assert talker.hear() == "thread"
        assert talker.hear() == "atexit"
        assert talker.end().exitcode == 0
    assert capfd.readouterr().out == "buffered"


@every_method
def test_managers_of_multiprocessing_can_be_used(method: str) -> None:
    with multiprocessing.get_context("spawn").Manager() as manager:
        queue = manager.Queue()
        assert run(method, "use_manager", pickle.dumps(queue)).exitcode == 0
        assert queue.get(timeout=10) == "from the worker"


@every_method
def test_a_config_of_megabytes(method: str) -> None:
    data = b"x" * 30_000_000
    assert len(answer(method, "look_around", data)["config"]) == len(data)


@every_method
def test_launching_from_threads(method: str) -> None:
    ends: list[Exit] = []

    def launch() -> None:
        ends.extend(run(method, "leave", code) for code in range(8))

    threads = [threading.Thread(target=launch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(end.exitcode or 0 for end in ends) == sorted([*range(8)] * 4)


@pytest.mark.parametrize("method", ("forkserver", "fork"))
def test_launch_by_launch_nothing_piles_up(method: str) -> None:
    run(method, "nothing")
    gc.collect()
    before = sorted(os.listdir("/proc/self/fd"))
    for _ in range(200):
        assert run(method, "nothing").exitcode == 0
    assert sorted(os.listdir("/proc/self/fd")) == before
    if method == "forkserver":
        assert link._state.server is not None
        pid = link._state.server.pid
        assert children(pid) == []
        assert len(os.listdir(f"/proc/{pid}/fd")) < 12


def children(pid: int) -> list[int]:
    """Its children, zombies too."""
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(one) for one in file.read().split()]


def test_a_handle_may_be_closed_early() -> None:
    with of("forkserver") as one:
        talker = Talker(one, "hang")
        talker.hear()
        pid = until_started(talker.child)
        talker.child.close()
        talker.child.close()
        talker.child.kill()  # nobody knows whether the pid is still its own: no effect
        talker.file.close()
        os.kill(pid, signal.SIGKILL)
        wait_for(one.launch(Spec(entry("nothing"))))
        assert link._state.server is not None
        while pid in children(link._state.server.pid):
            pass


@every_method
@pytest.mark.parametrize("inner", METHODS)
def test_a_worker_may_have_workers(method: str, inner: str) -> None:
    assert answer(method, "nest", inner.encode()) == [5, 5]


def test_unknown_start_methods() -> None:
    with pytest.raises(ValueError, match="'forkserver', 'spawn', 'fork'"):
        launcher("threads")


@every_method
def test_a_closed_launcher(method: str) -> None:
    one = launcher(method)
    one.close()
    with pytest.raises(ValueError, match="closed"):
        one.launch(Spec(entry("nothing")))


@every_method
def test_warming(method: str) -> None:
    with of(method) as one:
        one.warm(entry("nothing"))
        one.warm(entry("nothing"))
        assert wait_for(one.launch(Spec(entry("nothing")))).exitcode == 0


class TestRecords:
    """What a handle makes of what the server writes."""

    @staticmethod
    def handle() -> tuple[ServedChild, int]:
        read, write = os.pipe()
        return ServedChild(read), write

    def test_in_pieces(self) -> None:
        child, write = self.handle()
        data = RECORD.pack(STARTED, 2**22 + 1, 0) + RECORD.pack(ENDING, 0, 0)
        data += RECORD.pack(ENDED, -11, 5)
        for n, byte in enumerate(data):
            assert child.poll() is None
            assert child.pid == (None if n < RECORD.size else 2**22 + 1)
            os.write(write, bytes([byte]))
        assert child.poll() == child.poll() == Exit(-11, 5)
        os.close(write)
        assert child.poll() == Exit(-11, 5)
        child.close()

    def test_failure(self) -> None:
        child, write = self.handle()
        os.write(write, RECORD.pack(FAILED, 11, 0))
        os.close(write)
        assert child.poll() == Exit(None, None)
        assert isinstance(child.error, BlockingIOError)
        child.close()

    def test_the_server_died(self) -> None:
        child, write = self.handle()
        os.write(write, RECORD.pack(STARTED, 2**22 + 1, 0))
        assert child.poll() is None
        os.close(write)
        assert child.poll() == Exit(None, None)
        assert child.error is None
        child.kill()
        child.close()

    def test_a_pid_that_is_about_to_be_reaped_is_not_signalled(self) -> None:
        import subprocess

        with subprocess.Popen(["sleep", "60"]) as stranger:
            child, write = self.handle()
            os.write(write, RECORD.pack(STARTED, stranger.pid, 0) + RECORD.pack(ENDING, 0, 0))
            child.kill()
            child.poll()
            with pytest.raises(subprocess.TimeoutExpired):
                stranger.wait(0.05)
            os.close(write)
            child.close()
            stranger.kill()
