"""A map with a checkpoint: what is finished is kept, and never run again."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from lightwork import (
    CannotPickle,
    Checkpoint,
    CheckpointChanged,
    CheckpointError,
    Failure,
    Pool,
    current_task,
)
from tests.journal.functions import Marks, as_set, double, pair, picky, refuse, until, wait_for_file
from tests.scripts import environment, run_script

KINDS = ("processes", "threads", "serial")
each_kind = pytest.mark.parametrize("kind", KINDS)


@each_kind
@pytest.mark.parametrize("ordered", (True, False))
def test_a_second_run_runs_nothing(kind: str, ordered: bool, tmp_path: Path) -> None:
    fn = Marks(tmp_path)
    path = tmp_path / "run.db"
    for run in range(2):
        with Pool(kind, 2) as pool:
            found = list(pool.map(fn, range(500), checkpoint=path, ordered=ordered))
        assert (found if ordered else sorted(found)) == [(n, "done") for n in range(500)]
        assert len(fn.taken()) == (500 if run == 0 else 0)


@each_kind
def test_what_was_taken_before_the_end_is_not_run_again(kind: str, tmp_path: Path) -> None:
    fn = Marks(tmp_path)
    path = tmp_path / "run.db"
    had: set[int] = set()
    for stop in (1, 7, 40, 150):
        with Pool(kind, 2) as pool:
            results = pool.map(fn, range(200), checkpoint=path, buffersize=20)
            taken = [item for item, _ in itertools.islice(results, stop)]
            results.close()
        assert taken == list(range(stop))
        assert not had & {int(one) for one in fn.taken()}
        had |= set(taken)
    with Pool(kind, 2) as pool:
        assert [n for n, _ in pool.map(fn, range(200), checkpoint=path)] == list(range(200))


@each_kind
def test_more_items_are_welcome_and_fewer_are_a_change(kind: str, tmp_path: Path) -> None:
    fn = Marks(tmp_path)
    path = tmp_path / "run.db"
    with Pool(kind, 2) as pool:
        list(pool.map(fn, range(10), checkpoint=path))
        fn.taken()
        assert len(list(pool.map(fn, range(30), checkpoint=path))) == 30
        assert fn.taken() == [str(n) for n in range(10, 30)]
        fewer = pool.map(fn, range(20), checkpoint=path)
        assert [n for n, _ in itertools.islice(fewer, 20)] == list(range(20))
        with pytest.raises(CheckpointChanged, match="goes on behind the last item, 19"):
            next(fewer)


@each_kind
def test_other_items_are_noticed_in_their_place(kind: str, tmp_path: Path) -> None:
    fn = Marks(tmp_path)
    path = tmp_path / "run.db"
    with Pool(kind, 2) as pool:
        list(pool.map(fn, ["a", "b", "c", "d"], checkpoint=path))
        fn.taken()
        changed = pool.map(fn, ["a", "b", "x", "d"], checkpoint=path)
        assert [next(changed), next(changed)] == [("a", "done"), ("b", "done")]
        with pytest.raises(CheckpointChanged, match="number 2 is not the one that it was"):
            next(changed)
        assert not fn.taken()
        restarted = pool.map(fn, ["a", "b", "x", "d"], checkpoint=path, restart=True)
        assert [item for item, _ in restarted] == ["a", "b", "x", "d"]
        assert len(fn.taken()) == 4


def test_another_function_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    with Pool("serial") as pool:
        assert list(pool.map(double, range(5), checkpoint=path)) == [0, 2, 4, 6, 8]
        with pytest.raises(CheckpointChanged, match=r"functions:double then, .*:pair now"):
            pool.map(pair, range(5), range(5), checkpoint=path)
        with pytest.raises(CheckpointChanged, match="made with seed"):
            pool.map(double, range(5), checkpoint=path, seed=3)
        with pytest.raises(CheckpointChanged, match="as pickle, and json is asked for"):
            pool.map(double, range(5), checkpoint=Checkpoint(path, results="json"))
        with sqlite3.connect(path) as database:
            database.execute("UPDATE meta SET value = 'cpython-27' WHERE name = 'python'")
        database.close()
        with pytest.raises(CheckpointChanged, match="made by cpython-27, and this is cpython-3"):
            pool.map(double, range(5), checkpoint=path)
        with pytest.raises(TypeError, match="restart= is about a checkpoint"):
            pool.map(double, range(5), restart=True)
        found = pool.map(lambda x: -x, range(3), checkpoint=path, restart=True)
        assert list(found) == [0, -1, -2]


@each_kind
def test_failures_are_kept_with_their_errors_and_tried_again(kind: str, tmp_path: Path) -> None:
    path, bad = tmp_path / "run.db", tmp_path / "bad"
    bad.touch()
    items = [(n, str(bad)) for n in range(10)]
    with Pool(kind, 2) as pool:
        found = list(pool.map(picky, items, checkpoint=path, on_error="return"))
        assert [n for n, one in enumerate(found) if isinstance(one, Failure)] == [0, 3, 6, 9]
    database = sqlite3.connect(path)
    kept = database.execute("SELECT position, value FROM items WHERE done = 0").fetchall()
    database.close()
    assert [position for position, _ in kept] == [0, 3, 6, 9]
    told = json.loads(kept[1][1])
    assert (told["type"], told["message"], told["attempts"]) == ("ValueError", "not 3", 1)
    assert "picky" in told["traceback"]
    bad.unlink()
    with Pool(kind, 2) as pool:
        assert list(pool.map(picky, items, checkpoint=path)) == list(range(10))


@each_kind
def test_a_result_that_cannot_be_kept_is_its_items_failure(kind: str, tmp_path: Path) -> None:
    with Pool(kind, 2) as pool:
        found = pool.map(refuse, range(3), checkpoint=tmp_path / "run.db", on_error="return")
        first, failed, last = found
    assert (first, last) == (0, 2)
    assert isinstance(failed, Failure)
    assert isinstance(failed.exception, CannotPickle)


def test_an_item_without_content_is_refused(tmp_path: Path) -> None:
    with Pool("threads", 2) as pool:
        results = pool.map(double, [1, threading.Lock()], checkpoint=tmp_path / "run.db")
        assert next(results) == 2
        with pytest.raises(CannotPickle, match="recognizes items by their content"):
            next(results)


def test_it_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    before = os.umask(0)
    try:
        with Checkpoint(path) as checkpoint, Pool("serial") as pool:
            assert list(pool.map(double, range(3), checkpoint=checkpoint)) == [0, 2, 4]
            log = tmp_path / "run.db-wal"
            for file in (path, log):
                assert stat.S_IMODE(file.stat().st_mode) == 0o600
    finally:
        os.umask(before)
    assert not log.exists()
    path.chmod(0o620)
    with Pool("serial") as pool:
        with pytest.raises(CheckpointError, match="can be written to by others"):
            pool.map(double, range(3), checkpoint=path)


def test_a_second_run_on_one_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    with Pool("threads", 2) as pool:
        first = pool.map(double, itertools.count(), checkpoint=path)
        assert next(first) == 0
        with pytest.raises(CheckpointError, match="in use by another run"):
            pool.map(double, range(3), checkpoint=path)
        ran = run_script(
            """
            import sys
            from lightwork import CheckpointError, Pool
            with Pool("serial") as pool:
                try:
                    pool.map(abs, range(3), checkpoint=sys.argv[1])
                except CheckpointError as error:
                    print(error)
            """,
            args=[str(path)],
        )
        assert "in use by another run" in ran.out, ran
        assert next(first) == 2
        first.close()
        # What it had running is kept; then the next may have it.
        assert list(itertools.islice(pool.map(double, itertools.count(), checkpoint=path), 2)) == [
            0,
            2,
        ]


def test_the_next_map_takes_the_file_from_one_that_was_left(tmp_path: Path) -> None:
    """A closed map waits for what runs, to keep its result; but not in the next one's way."""
    path, go = tmp_path / "run.db", tmp_path / "go"
    items = [(0, ""), (1, str(go)), (2, "")]
    with Pool("threads", 2) as pool:
        left = pool.map(wait_for_file, items, checkpoint=path)
        assert next(left) == 0
        left.close()
        again = pool.map(wait_for_file, items, checkpoint=path)
        assert next(again) == 0
        go.touch()
        assert list(again) == [1, 2]


def test_what_still_ran_when_a_map_was_left_is_kept(tmp_path: Path) -> None:
    path, go = tmp_path / "run.db", tmp_path / "go"
    items = [(0, ""), (1, str(go))]
    with Pool("threads", 2) as pool:
        left = pool.map(wait_for_file, items, checkpoint=path, chunksize=1)
        assert next(left) == 0
        until(Path(f"{go}-begun").exists)  # what has not begun is cancelled
        left.close()
        go.touch()
    go.unlink()  # run again, item 1 would never end
    with Pool("threads", 2) as pool:
        assert list(pool.map(wait_for_file, items, checkpoint=path)) == [0, 1]


def test_a_map_that_nobody_reads_is_kept_too(tmp_path: Path) -> None:
    fn = Marks(tmp_path)
    path = tmp_path / "run.db"
    with Pool("threads", 2) as pool:
        pool.map(fn, range(100), checkpoint=path)
    assert len(fn.taken()) == 100
    with Pool("threads", 2) as pool:
        assert len(list(pool.map(fn, range(100), checkpoint=path))) == 100
    assert not fn.taken()


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """A checkpoint of 3,000 items."""
    path = tmp_path / "run.db"
    with Pool("serial") as pool:
        assert len(list(pool.map(double, range(3000), checkpoint=path))) == 3000
    return path


@pytest.mark.parametrize("restart", (False, True))
def test_a_damaged_file_is_an_error_and_kept(full: Path, restart: bool) -> None:
    good = full.read_bytes()
    for damage in (b"garbage" * 1000, good[:100] + bytes(4000) + good[4100:]):
        full.write_bytes(damage)
        with Pool("serial") as pool:
            with pytest.raises(CheckpointError, match="is damaged: .* left as it is"):
                list(pool.map(double, range(3000), checkpoint=full, restart=restart))
        assert full.read_bytes() == damage
        assert not full.with_name("run.db-wal").exists()


def test_a_flipped_bit_is_found(full: Path) -> None:
    data = bytearray(full.read_bytes())
    row = data.rindex(b"\x80\x05")  # the last pickled result, wherever it lies
    data[row + 4] ^= 1
    full.write_bytes(bytes(data))
    with Pool("serial") as pool:
        with pytest.raises(CheckpointError, match="does not fit its checksum"):
            list(pool.map(double, range(3000), checkpoint=full))
    assert full.read_bytes() == bytes(data) or _is_same_but_header(full, bytes(data))


def _is_same_but_header(path: Path, data: bytes) -> bool:
    """A healthy header may be written to: it counts the changes."""
    return path.read_bytes()[4096:] == data[4096:]


@pytest.mark.parametrize("restart", (False, True))
def test_somebody_elses_database_is_left_alone(tmp_path: Path, restart: bool) -> None:
    path = tmp_path / "thesis.db"
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE chapters (text)")
    database.commit()
    database.close()
    before = path.read_bytes()
    with Pool("serial") as pool:
        with pytest.raises(CheckpointError, match="no checkpoint of lightwork"):
            pool.map(double, range(3), checkpoint=path, restart=restart)
    assert path.read_bytes() == before
    with Pool("serial") as pool:
        with pytest.raises(CheckpointError, match="is no file"):
            pool.map(double, range(3), checkpoint=tmp_path)
        with pytest.raises(CheckpointError, match="cannot be made: No such file"):
            pool.map(double, range(3), checkpoint=tmp_path / "nowhere" / "run.db")


def test_a_full_disk_ends_the_map_and_keeps_what_was_handed_out(tmp_path: Path) -> None:
    ran = run_script(
        """
        import resource, sys
        from lightwork import CheckpointError, Pool
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        taken = 0
        with Pool("threads", 2) as pool:
            try:
                for text in pool.map(str, range(100_000), checkpoint=sys.argv[1], buffersize=100):
                    taken += 1
            except CheckpointError as error:
                print(taken)
                print(error)
        """,
        args=[str(tmp_path / "run.db")],
    )
    assert ran.status == 0, ran
    taken, said = ran.out.splitlines()
    assert "cannot be written" in said
    assert 0 < int(taken) < 100_000
    with Checkpoint(tmp_path / "run.db") as checkpoint:
        checkpoint.open(str)
        assert int(taken) <= checkpoint.counts()[0]
    with Pool("serial") as pool:
        found = pool.map(str, range(100_000), checkpoint=tmp_path / "run.db")
        assert list(found) == [str(n) for n in range(100_000)]


def test_power_is_cut(tmp_path: Path) -> None:
    """All that was not yet synced is lost, or half of it: the file stays sound.

    Acted by killing the program, and cutting its log at any place. (That each commit is synced is
    SQLite's promise for the setting that `test_each_commit_is_synced` looks at.)
    """
    script = """
        import itertools, os, signal, sys
        from lightwork import Pool
        with Pool("threads", 2) as pool:
            for n in pool.map(abs, itertools.count(), checkpoint=sys.argv[1], buffersize=50):
                if n == 600:
                    os.kill(os.getpid(), signal.SIGKILL)
        """
    ran = run_script(script, args=[str(tmp_path / "run.db")])
    assert ran.status == -9
    database, log = (tmp_path / "run.db").read_bytes(), (tmp_path / "run.db-wal").read_bytes()
    assert len(log) > 20_000
    seen = set()
    for cut in [*range(0, len(log), len(log) // 20), len(log)]:
        for tail in (b"", b"\xff" * 5000):
            copy = tmp_path / f"cut-{cut}-{len(tail)}.db"
            copy.write_bytes(database)
            copy.chmod(0o600)
            Path(f"{copy}-wal").write_bytes(log[:cut] + tail)
            with Checkpoint(copy) as checkpoint:
                checkpoint.open(abs)
                done, failed = checkpoint.counts()
                seen.add(done)
                assert failed == 0
            with Pool("serial") as pool:
                assert list(pool.map(abs, range(700), checkpoint=copy)) == list(range(700))
    assert min(seen) == 0
    assert max(seen) >= 600
    assert len(seen) > 5


def test_each_commit_is_synced(tmp_path: Path) -> None:
    with Checkpoint(tmp_path / "run.db") as checkpoint:
        checkpoint.open(double)
        database = checkpoint.recorder().file._db
        assert database.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert database.execute("PRAGMA locking_mode").fetchone() == ("exclusive",)


@each_kind
def test_json_results(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    for _ in range(2):  # computed, and from the file: the same
        with Pool(kind, 2) as pool:
            found = pool.map(
                pair, "ab", [{1: None}, (2.5,)], checkpoint=Checkpoint(path, results="json")
            )
            assert list(found) == [["a", {"1": None}], ["b", [2.5]]]
    with Pool(kind, 2) as pool:
        other = Checkpoint(tmp_path / "other.db", results="json")
        with pytest.raises(TypeError, match="the checkpoint keeps JSON, and the result is none"):
            list(pool.map(as_set, range(3), checkpoint=other))
    with pytest.raises(ValueError, match="results must be one of"):
        Checkpoint(path, results="yaml")


def number(_: object) -> int:
    return current_task().index


def test_several_maps_on_one_file(tmp_path: Path) -> None:
    for run in range(2):
        with Checkpoint(tmp_path / "run.db") as checkpoint, Pool("threads", 2) as pool:
            first = pool.map(number, "abc", checkpoint=checkpoint.at(0))
            second = pool.map(number, "de", checkpoint=checkpoint.at(3))
            assert [*second, *first] == [3, 4, 0, 1, 2]
            checkpoint.check_end(5)
            if run:
                with pytest.raises(CheckpointChanged, match="goes on behind the last item, 3"):
                    checkpoint.check_end(4)
            with pytest.raises(CheckpointChanged, match="open for another function"):
                pool.map(double, "abc", checkpoint=checkpoint)
            with pytest.raises(TypeError, match="restart"):
                pool.map(number, "abc", checkpoint=checkpoint, restart=True)


def test_seeds_go_by_the_number_of_the_item(tmp_path: Path) -> None:
    with Pool("threads", 2) as pool:
        whole = list(pool.map(roll, range(20), seed=5))
        half = pool.map(roll, range(20), seed=5, checkpoint=tmp_path / "run.db", buffersize=2)
        assert list(itertools.islice(half, 7)) == whole[:7]
        half.close()
        again = pool.map(roll, range(20), seed=5, checkpoint=tmp_path / "run.db")
        assert list(again) == whole


def roll(_: int) -> float:
    return current_task().rng.random()


def test_amap(tmp_path: Path) -> None:
    fn = Marks(tmp_path)

    async def run() -> list[Any]:
        async with Pool("threads", 2) as pool:
            return [one async for one in pool.amap(fn, range(50), checkpoint=tmp_path / "run.db")]

    assert asyncio.run(run()) == asyncio.run(run()) == [(n, "done") for n in range(50)]
    assert len(fn.taken()) == 50


def test_a_forked_child_leaves_the_file_alone(tmp_path: Path) -> None:
    ran = run_script(
        """
        import os, sys
        from lightwork import Checkpoint, Pool
        with Pool("threads", 2) as pool:
            results = pool.map(abs, range(2000), checkpoint=sys.argv[1], buffersize=40)
            taken = [next(results) for _ in range(100)]
            child = os.fork()
            if not child:
                del results, pool
                sys.exit(0)  # the whole way out, with all finalizers
            assert os.waitpid(child, 0)[1] == 0
            taken += results
            assert taken == list(range(2000))
        with Checkpoint(sys.argv[1]) as checkpoint:
            checkpoint.open(abs)
            assert checkpoint.counts() == (2000, 0)
        print("fine")
        """,
        args=[str(tmp_path / "run.db")],
    )
    assert ran.out == "fine\n", ran


def test_the_interpreter_ends_with_a_map_that_nobody_reads(tmp_path: Path) -> None:
    ran = run_script(
        """
        import sys
        from lightwork import Pool
        pool = Pool("threads", 2)
        results = pool.map(abs, range(500), checkpoint=sys.argv[1])
        print(next(results))
        """,
        args=[str(tmp_path / "run.db")],
    )
    assert (ran.status, ran.out, ran.err) == (0, "0\n", "")
    with Checkpoint(tmp_path / "run.db") as checkpoint:
        checkpoint.open(abs)
        assert checkpoint.counts() == (500, 0)


def test_it_is_written_while_the_consumer_is_busy_elsewhere(tmp_path: Path) -> None:
    """Results are kept as they arrive, not as they are taken."""
    script = """if True:
        import sys
        from lightwork import Pool
        with Pool('threads', 2) as pool:
            results = pool.map(abs, range(30), checkpoint=sys.argv[1], buffersize=30)
            next(results)
            while pool.statistics().done < 30:
                pass
            print('done', flush=True)
            sys.stdin.read()
    """
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "run.db")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"done\n"
        end = time.monotonic() + 30
        while _items_in_the_log(tmp_path) < 30:
            assert time.monotonic() < end, "it waits for its consumer"
            time.sleep(0.01)
        process.kill()
    with Checkpoint(tmp_path / "run.db") as checkpoint:
        checkpoint.open(abs)
        assert checkpoint.counts() == (30, 0)


def _items_in_the_log(folder: Path) -> int:
    """Read from a copy, for the file itself is locked."""
    with tempfile.TemporaryDirectory() as copies:
        for name in ("run.db", "run.db-wal"):
            shutil.copyfile(folder / name, Path(copies, name))
        database = sqlite3.connect(Path(copies, "run.db"))
        try:
            found: int = database.execute("SELECT count(*) FROM items").fetchone()[0]
        except sqlite3.OperationalError:
            return 0  # the copy was made between two writes
        finally:
            database.close()
    return found
