"""Ctrl-C and SIGTERM: soon, with one short traceback, and with nobody left."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from .interpreter import Program, program

KINDS = ("processes", "threads")

SIX = """
import os, sys, time
from lightwork import Pool

def work(n):
    os.write(1, b"working\\n")  # in one piece, unlike print
    time.sleep(60)

{wrap}
"""

BODIES = {
    "map in with": """
with Pool({kind!r}, 6) as pool:
    for one in pool.map(work, range(12)):
        pass
""",
    "results in with": """
with Pool({kind!r}, 6) as pool:
    futures = [pool.submit(work, n) for n in range(12)]
    for one in futures:
        one.result()
""",
    "end of with": """
with Pool({kind!r}, 6) as pool:
    futures = [pool.submit(work, n) for n in range(12)]
""",
    "shutdown": """
pool = Pool({kind!r}, 6)
futures = [pool.submit(work, n) for n in range(12)]
pool.shutdown()
""",
    "no with": """
pool = Pool({kind!r}, 6)
for one in pool.map(work, range(12)):
    pass
""",
    "at exit": """
pool = Pool({kind!r}, 6)
futures = [pool.submit(work, n) for n in range(12)]
""",
}


def _start(body: str, kind: str, folder: Path) -> Program:
    return Program(SIX.format(wrap=BODIES[body].format(kind=kind)), folder)


def _check_interrupted(one: Program, begin: float) -> None:
    done = one.finish(20)
    seconds = time.monotonic() - begin
    assert seconds < 1.0, (seconds, done)
    assert done.status in (130, -signal.SIGINT), done
    assert done.err.count("Traceback") <= 1, done.err
    assert done.err.splitlines()[-1] == "KeyboardInterrupt", done.err
    assert len(done.err.splitlines()) <= 25, done.err
    assert one.left() == {}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("body", BODIES)
def test_ctrl_c_ends_six_long_tasks_at_once(body: str, kind: str, tmp_path: Path) -> None:
    one = _start(body, kind, tmp_path)
    try:
        for _ in range(6):
            assert one.line() == "working"
        time.sleep(0.1)
        begin = time.monotonic()
        one.interrupt()
        if body == "at exit":
            # Python itself says "Exception ignored" for an interrupt at its very end, or nothing.
            done = one.finish(20)
            assert time.monotonic() - begin < 1.0
            assert done.err.count("Traceback") <= 1, done.err
            assert one.left() == {}
        else:
            _check_interrupted(one, begin)
    finally:
        one.end()


@pytest.mark.parametrize("body", BODIES)
def test_a_second_ctrl_c_ends_at_once(body: str, tmp_path: Path) -> None:
    one = _start(body, "processes", tmp_path)
    try:
        for _ in range(6):
            assert one.line() == "working"
        begin = time.monotonic()
        one.interrupt()
        time.sleep(0.01)
        one.interrupt()
        done = one.finish(20)
        assert time.monotonic() - begin < 1.0
        assert done.status != 0 or body == "at exit"
        assert one.left() == {}
    finally:
        one.end()


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.05, 0.1, 0.2, 0.4])
def test_ctrl_c_at_any_moment_of_the_start(delay: float, tmp_path: Path) -> None:
    # Python itself loses an interrupt that comes in a weak reference's callback, as there is one in
    # each import: it says so, and goes on. A user would press the keys again.
    source = """
    import signal, sys
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    sys.unraisablehook = lambda lost: signal.setitimer(signal.ITIMER_REAL, 0.01)
    print("begin", flush=True)
    import time
    from lightwork import Pool
    with Pool("processes", 4) as pool:
        for one in pool.map(time.sleep, [0.001] * 100_000):
            pass
    """
    with program(source, tmp_path) as one:
        assert one.line() == "begin"
        time.sleep(delay)
        begin = time.monotonic()
        one.interrupt()
        done = one.finish(20)
        assert time.monotonic() - begin < 2.0
        assert done.status in (130, -signal.SIGINT), done
        assert one.left() == {}


def test_ctrl_c_that_is_caught(tmp_path: Path) -> None:
    """A program may go on after it: finished results are kept, and a new pool works."""
    source = """
    import os, time
    from lightwork import Pool
    def work(n):
        if n >= 4:
            os.write(1, b"working\\n")
            time.sleep(60)
        return n
    kept = []
    try:
        with Pool("processes", 2) as pool:
            for found in pool.map(work, range(12)):
                kept.append(found)
    except KeyboardInterrupt:
        print("caught", kept, flush=True)
    with Pool("processes", 2) as pool:
        print(sum(pool.map(abs, range(10))))
    """
    with program(source, tmp_path) as one:
        assert one.line() == "working"
        assert one.line() == "working"
        time.sleep(0.3)  # what was finished has been handed over by now
        one.interrupt()
        done = one.finish(20).fine()
        assert done.out.splitlines() == ["caught [0, 1, 2, 3]", "45"]
        assert one.left() == {}


def test_sigterm_drains(tmp_path: Path) -> None:
    """What runs is finished, what has not started is not, and the status says so."""
    source = """
    import os, time
    from lightwork import Pool
    def work(n):
        os.write(1, f"start {n}\\n".encode())
        time.sleep(0.5)
        os.write(1, f"finish {n}\\n".encode())
    with Pool("processes", 2) as pool:
        list(pool.map(work, range(50)))
    """
    with program(source, tmp_path) as one:
        assert {one.line(), one.line()} == {"start 0", "start 1"}
        begin = time.monotonic()
        one.process.terminate()
        done = one.finish(20)
        assert time.monotonic() - begin < 5
        assert done.status == 143, done
        assert sorted(done.out.splitlines()) == ["finish 0", "finish 1"], done.out
        assert "Traceback" not in done.err
        assert one.left() == {}


def test_sigterm_waits_no_longer_than_the_grace_period(tmp_path: Path) -> None:
    source = SIX.format(
        wrap="with Pool('processes', 2, grace=0.3) as pool:\n    list(pool.map(work, range(6)))"
    )
    with program(source, tmp_path) as one:
        assert one.line() == "working"
        begin = time.monotonic()
        one.process.terminate()
        done = one.finish(20)
        assert 0.25 < time.monotonic() - begin < 3
        assert done.status == 143, done
        assert one.left() == {}


def test_sigterm_outside_of_with_is_left_alone(tmp_path: Path) -> None:
    source = SIX.format(wrap="pool = Pool('processes', 2)\nlist(pool.map(work, range(6)))")
    with program(source, tmp_path) as one:
        assert one.line() == "working"
        one.process.terminate()
        assert one.finish(20).status == -signal.SIGTERM
        assert one.left() == {}


def test_a_handler_of_the_users_is_left_alone(tmp_path: Path) -> None:
    source = """
    import signal, time
    from lightwork import Pool
    def mine(*_):
        print("my handler", flush=True)
    signal.signal(signal.SIGTERM, mine)
    with Pool("processes", 2) as pool:
        pool.submit(abs, -1).result()
        print("ready", flush=True)
        pool.submit(time.sleep, 0.5).result()
        print(signal.getsignal(signal.SIGTERM) is mine)
    """
    with program(source, tmp_path) as one:
        assert one.line() == "ready"
        one.process.terminate()
        done = one.finish(20).fine()
        assert done.out.splitlines() == ["my handler", "True"]


def test_handlers_are_given_back(tmp_path: Path) -> None:
    source = """
    import signal
    from lightwork import Pool
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    for kind in ("processes", "threads", "serial"):
        with Pool(kind, 2) as pool:
            pool.submit(abs, -1).result()
            with Pool(kind, 2) as inner:
                inner.submit(abs, -1).result()
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    """
    with program(source, tmp_path) as one:
        one.finish(30).fine()


def test_workers_have_ordinary_handlers(tmp_path: Path) -> None:
    """Not the parent's: SIGTERM ends a worker (kill PID), as people expect of a process."""
    source = """
    import os, signal
    from lightwork import Pool, WorkerCrashed
    signal.signal(signal.SIGTERM, lambda *_: print("parent's handler"))
    def end():
        os.kill(os.getpid(), signal.SIGTERM)
    for method in ("forkserver", "spawn", "fork"):
        with Pool("processes", 1, start_method=method) as pool:
            error = pool.submit(end).exception(20)
            assert isinstance(error, WorkerCrashed) and error.signal == "SIGTERM", (method, error)
    """
    with program(source, tmp_path) as one:
        one.finish(30).fine()


def test_stop_and_continue(tmp_path: Path) -> None:
    """Ctrl-Z and fg: nothing is lost."""
    source = """
    from lightwork import Pool
    def work(n):
        return n * n
    with Pool("processes", 2) as pool:
        print("ready", flush=True)
        assert sum(pool.map(work, range(200_000))) == sum(n * n for n in range(200_000))
    """
    with program(source, tmp_path) as one:
        assert one.line() == "ready"
        for _ in range(3):
            time.sleep(0.05)
            one.process.send_signal(signal.SIGSTOP)
            time.sleep(0.1)
            one.process.send_signal(signal.SIGCONT)
        one.finish(60).fine()
