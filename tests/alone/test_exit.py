"""Interpreters that end while pools live."""

from __future__ import annotations

from pathlib import Path

import pytest

from .interpreter import HOWS, program, run

KINDS = ("threads", "processes")

LIVE = """
import atexit, os, sys, threading, time
from lightwork import Pool

def say(seconds, text):
    time.sleep(seconds)
    sys.stdout.write(text + "\\n")  # in one piece, unlike print
    sys.stdout.flush()
    return text

pool = Pool({kind!r}, 2)
pool.submit(say, 0, "ready").result()
for n in range(4):
    pool.submit(say, 0.1, f"task {{n}}")
{end}
"""


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("kind", KINDS)
def test_accepted_work_is_finished(kind: str, how: str, tmp_path: Path) -> None:
    done = run(LIVE.format(kind=kind, end=""), tmp_path, how=how).fine()
    assert sorted(done.out.split("\n")) == ["", "ready", *(f"task {n}" for n in range(4))]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", ["sys.exit(3)", "raise SystemExit(3)", "pool = None; sys.exit(3)"])
def test_sys_exit(kind: str, end: str, tmp_path: Path) -> None:
    done = run(LIVE.format(kind=kind, end=end), tmp_path)
    assert (done.status, done.err) == (3, "")
    assert done.out.count("task") == 4


@pytest.mark.parametrize("kind", KINDS)
def test_an_unhandled_exception(kind: str, tmp_path: Path) -> None:
    done = run(LIVE.format(kind=kind, end="raise ValueError('mine')"), tmp_path)
    assert done.status == 1
    assert done.err.count("Traceback") == 1
    assert done.err.splitlines()[-1] == "ValueError: mine"
    assert done.out.count("task") == 4


@pytest.mark.parametrize("kind", KINDS)
def test_an_unhandled_exception_inside_with(kind: str, tmp_path: Path) -> None:
    end = "with pool:\n    raise ValueError('mine')"
    done = run(LIVE.format(kind=kind, end=end), tmp_path)
    assert done.status == 1
    assert done.err.count("Traceback") == 1
    assert done.err.splitlines()[-1] == "ValueError: mine"


@pytest.mark.parametrize("kind", KINDS)
def test_os_exit(kind: str, tmp_path: Path) -> None:
    done = run(LIVE.format(kind=kind, end="os._exit(4)"), tmp_path)
    assert (done.status, done.err) == (4, "")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "end",
    [
        "pool.shutdown(wait=False)",
        "pool.shutdown(wait=False); pool.shutdown(wait=False)",
        "del pool",
        "pool = [pool]; pool.append(pool)",  # only the collector can free it
        "keep = pool.map(say, [0.05] * 4, 'abcd'); del pool",
        "import gc; pool = [pool]; pool.append(pool); del pool; gc.collect()",
        "sys.modules['keep'] = pool",
    ],
)
def test_a_pool_that_is_left_behind(kind: str, end: str, tmp_path: Path) -> None:
    done = run(LIVE.format(kind=kind, end=end), tmp_path).fine()
    assert done.out.count("task") == 4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("flags", [("-X", "dev"), ("-W", "error"), ("-X", "dev", "-W", "error")])
def test_no_warnings(kind: str, flags: tuple[str, ...], tmp_path: Path) -> None:
    for end in ("", "pool.shutdown()", "del pool", "with pool: pass"):
        done = run(LIVE.format(kind=kind, end=end), tmp_path, flags=flags).fine()
        assert done.out.count("task") == 4


@pytest.mark.parametrize("kind", KINDS)
def test_from_a_thread(kind: str, tmp_path: Path) -> None:
    """The main thread ends first; another one still works with its pool."""
    source = """
    import threading, time
    from lightwork import Pool

    def work():
        with Pool({kind!r}, 2) as pool:
            for found in pool.map(abs, range(-3, 0)):
                print(found, flush=True)
                time.sleep(0.1)

    threading.Thread(target=work).start()
    """.replace("{kind!r}", repr(kind))
    done = run(source, tmp_path)
    # As concurrent.futures: once the interpreter ends, no pool takes more. What was accepted
    # is delivered; the thread may then end with an error, but nothing hangs.
    assert done.status == 0
    assert done.seconds < 20


@pytest.mark.parametrize("kind", KINDS)
def test_daemon_threads_that_submit_until_the_end(kind: str, tmp_path: Path) -> None:
    source = """
    import threading, time
    from lightwork import Pool
    pool = Pool(KIND, 2)

    def submit_for_ever():
        try:
            while True:
                pool.submit(abs, -1)
                time.sleep(0.0005)
        except RuntimeError:
            pass

    for _ in range(4):
        threading.Thread(target=submit_for_ever, daemon=True).start()
    time.sleep(0.2)
    """.replace("KIND", repr(kind))
    for _ in range(5):
        run(source, tmp_path).fine()


@pytest.mark.parametrize("kind", KINDS)
def test_an_exit_handler_that_submits(kind: str, tmp_path: Path) -> None:
    source = """
    import atexit
    from lightwork import Pool, PoolClosed
    pool = Pool(KIND, 2)
    pool.submit(abs, -1).result()

    @atexit.register
    def late():
        try:
            pool.submit(abs, -1)
        except PoolClosed:
            print("refused")
        try:
            with Pool(KIND, 1) as another:
                print(another.submit(abs, -2).result(20))
        except RuntimeError as error:
            print("refused, too")
    """.replace("KIND", repr(kind))
    done = run(source, tmp_path).fine()
    lines = done.out.splitlines()
    assert lines[0] == "refused"
    assert lines[1] in ("2", "refused, too")


@pytest.mark.parametrize("kind", KINDS)
def test_a_callback_while_the_interpreter_ends(kind: str, tmp_path: Path) -> None:
    end = """
def more(future):
    try:
        pool.submit(say, 0, "more")
    except RuntimeError:
        print("refused", flush=True)
pool.submit(say, 0.2, "last").add_done_callback(more)
"""
    done = run(LIVE.format(kind=kind, end=end), tmp_path).fine()
    assert "last" in done.out
    assert "refused" in done.out


@pytest.mark.parametrize("kind", KINDS)
def test_a_crash_and_an_error_that_nobody_asks_for(kind: str, tmp_path: Path) -> None:
    end = """
pool.submit(lambda: 1 / 0)
if pool.kind == "processes":
    pool.submit(os._exit, 3)
pool.submit(say, 0.1, "last")
"""
    done = run(LIVE.format(kind=kind, end=end), tmp_path).fine()
    assert "last" in done.out


def test_a_pool_made_in_a_worker_at_exit(tmp_path: Path) -> None:
    source = """
    from lightwork import Pool
    kept = None
    def nested(n):
        global kept
        kept = kept or Pool("processes", 1)
        return kept.submit(abs, -n).result()
    pool = Pool("processes", 2)
    print(list(pool.map(nested, range(4))))
    """
    assert run(source, tmp_path).fine().out == "[0, 1, 2, 3]\n"


def test_a_worker_with_threads_and_exit_handlers(tmp_path: Path) -> None:
    source = """
    import atexit, threading, time
    from lightwork import Pool
    def start(n):
        threading.Thread(target=time.sleep, args=(0.1,)).start()
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        atexit.register(print, "worker ends", flush=True)
        return n
    with Pool("processes", 2) as pool:
        print(sum(pool.map(start, range(4))), flush=True)
    """
    done = run(source, tmp_path).fine()
    assert done.out.startswith("6\n")
    assert done.seconds < 10


def test_a_hundred_interpreters_end_well(tmp_path: Path) -> None:
    """The races at the end of an interpreter are rare; look many times, in short."""
    source = """
    import sys
    from lightwork import Pool
    pool = Pool(sys.argv[1], 2)
    futures = [pool.submit(abs, -n) for n in range(20)]
    if sys.argv[2] == "wait":
        assert [one.result() for one in futures] == list(range(20))
    """
    for number in range(30):
        for kind in KINDS:
            done = run(source, tmp_path, args=(kind, "wait" if number % 2 else "leave"))
            assert (done.status, done.out, done.err) == (0, "", "")


def test_importing_starts_nothing(tmp_path: Path) -> None:
    source = """
    import os, sys, threading
    import lightwork
    assert "multiprocessing" not in sys.modules
    assert "pickle" not in sys.modules
    from lightwork import Pool, Retry, Backoff, Failure, current_task
    assert threading.active_count() == 1
    assert len(os.listdir("/proc/self/task")) == 1
    assert "numpy" not in sys.modules
    assert "cloudpickle" not in sys.modules
    assert "asyncio" not in sys.modules
    """
    run(source, tmp_path).fine()


def test_a_parent_that_is_killed(tmp_path: Path) -> None:
    source = LIVE.format(kind="processes", end="pool.submit(say, 100, 'never'); time.sleep(100)")
    with program(source, tmp_path) as one:
        assert one.line() == "ready"
        one.process.kill()
        one.process.wait()
        assert one.left(2.0) == {}
